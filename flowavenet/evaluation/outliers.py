"""Find the bad recordings of a folder: those that differ from the others in something that faults change.

A few numbers are measured of each recording, each of which some kind of fault moves far. How far is told in robust
standard deviations from the folder's median: so a folder says itself what is usual there, whatever a few bad files do.
The likelihood is the one that catches faults nobody thought of; the others also say what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from flowavenet.audio import MelSettings, MelSpectrogram, mel_filter_bank
from flowavenet.evaluation.report import number

FEWEST = 8
"""Recordings of which one can be told to differ."""
REASON = 3.0
"""Standard deviations from which on a measure is given as a reason."""
BANDS = 40
SPEECH_DB = 25.0
"""Frames so little below the loud ones are speech."""
MISSING_DB = 15.0
"""Bands so far below the usual are missing."""


class Measure(NamedTuple):
    """A number that faults change: what it is, its unit, and its least standard deviation, for folders where all agree."""

    title: str
    unit: str
    least: float
    both: bool = False
    """Whether less of it is a fault as well."""


MEASURES = {
    "surprise": Measure("surprise", "dB", 0.5),
    "timbre": Measure("timbre off by", "dB", 0.5),
    "pitch": Measure("pitch", "semitones over 55 Hz", 0.5, both=True),
    "level": Measure("level", "dB", 1.0, both=True),
    "peak": Measure("at its peak", "% of samples", 0.1),
    "gaps": Measure("without any signal", "% of frames", 0.5),
    "ends": Measure("at its louder end", "dB re speech", 2.0),
    "hum": Measure("mains hum", "dB", 1.0),
    "offset": Measure("DC offset", "% of rms", 2.0, both=True),
}


@dataclass(frozen=True)
class Measured:
    """What was measured of a recording; NaN for what cannot be told of it."""

    values: dict[str, float]
    """Of :data:`MEASURES`, except ``timbre``, which is a difference to the others."""
    profile: Tensor
    """Mean level of 40 bands up to half the sample rate, where there is speech, re its loud frames: (40,), dB."""
    band_hz: Tensor
    """Where those bands peak."""


class Standing(NamedTuple):
    """How a recording stands among the others."""

    deviation: float
    """Robust standard deviations from the median, of the measure in which it differs most."""
    values: dict[str, float]
    reasons: list[str]
    """What differs by more than :data:`REASON` of them, the most first, with what is usual."""


def measure(wave: Tensor, sample_rate: int, surprise_db: float) -> Measured:
    """Measure a recording.

    Args:
        wave: (samples,), as recorded.
        sample_rate: Hz.
        surprise_db: see :attr:`~flowavenet.evaluation.scoring.Likelihood.surprise_db`.
    """
    settings = MelSettings(sample_rate=sample_rate, n_mels=BANDS, f_max=sample_rate / 2)
    band_hz = mel_filter_bank(settings).argmax(dim=1) * sample_rate / settings.n_fft
    levels = 20 / math.log(10) * MelSpectrogram(settings)(wave[None])[0]           # (bands, frames), dB
    loudness = 10 * torch.log10((10 ** (levels / 10)).sum(dim=0))
    level = loudness.quantile(0.9)
    profile = levels[:, loudness > level - SPEECH_DB].mean(dim=1) - level
    peak, rms = wave.abs().max(), wave.square().mean().sqrt()
    frames = wave.unfold(0, min(256, len(wave)), min(256, len(wave)))
    values = {
        "surprise": surprise_db,
        "pitch": _pitch(wave, sample_rate),
        "level": level.item(),
        "peak": 100 * (wave.abs() >= 0.998 * peak).float().mean().item() if peak else 0.0,
        "gaps": 100 * (frames.amax(dim=1) == frames.amin(dim=1)).float().mean().item(),
        "ends": _loudest_end(wave, sample_rate),
        "hum": _hum(wave, sample_rate),
        "offset": 100 * (wave.mean() / rms).item() if rms else 0.0,
    }
    return Measured(values, profile, band_hz)


def rank(recordings: Sequence[Measured]) -> list[Standing]:
    """How each recording stands among all of them, in their order.

    Raises ValueError for fewer than :data:`FEWEST`.
    """
    if len(recordings) < FEWEST:
        raise ValueError(f"{len(recordings)} recordings are too few to tell what is usual; rank {FEWEST} or more")
    profiles = torch.stack([one.profile for one in recordings])
    off = profiles - profiles.median(dim=0).values
    values = [one.values | {"timbre": difference.std().item()} for one, difference in zip(recordings, off, strict=True)]
    columns = {name: torch.tensor([each[name] for each in values], dtype=torch.float64) for name in MEASURES}
    usual = {name: column.nanmedian().item() for name, column in columns.items()}
    away = {name: _deviations(column, usual[name], MEASURES[name]) for name, column in columns.items()}
    standings = []
    for i, each in enumerate(values):
        order = sorted(MEASURES, key=lambda name: -away[name][i])
        reasons = [_reason(name, each[name], usual[name]) for name in order if away[name][i] > REASON]
        if reasons and (cutoff := _cutoff(off[i], recordings[i].band_hz)):
            reasons.append(f"nothing above {cutoff / 1000:.1f} kHz")
        standings.append(Standing(away[order[0]][i], each, reasons))
    return standings


def _deviations(column: Tensor, usual: float, about: Measure) -> list[float]:
    """How far each value lies on the faulty side of the median, in robust standard deviations; 0 if it is not known.

    1.4826 * the median absolute deviation, which is the standard deviation if the values are Gaussian
    """
    spread = 1.4826 * (column - usual).abs().nanmedian().item()
    deviations = (column - usual) / max(spread, about.least)
    return (deviations.abs() if about.both else deviations).nan_to_num(0.0).tolist()


def _reason(name: str, value: float, usual: float) -> str:
    about = MEASURES[name]
    return f"{about.title} {number(value, 1)} {about.unit} (usually {number(usual, 1)})"


def _cutoff(off: Tensor, band_hz: Tensor) -> float | None:
    """From where on all bands of a profile are missing, Hz; None if the upper ones are not."""
    there = (off > -MISSING_DB).nonzero()
    last = int(there[-1]) if len(there) else 0
    return band_hz[last].item() if last < len(off) - 2 else None


def _pitch(wave: Tensor, sample_rate: int) -> float:
    """Median pitch of what is voiced in the louder half of the frames, by their autocorrelation, semitones over 55 Hz."""
    size = round(0.046 * sample_rate)
    if len(wave) < 4 * size:
        return math.nan
    frames = wave.unfold(0, size, size // 2) * torch.hann_window(size)
    energy = frames.square().sum(dim=1)
    frames = frames[(energy >= energy.median()) & (energy > 0)]
    if not len(frames):
        return math.nan
    correlation = torch.fft.irfft(torch.fft.rfft(frames, 2 * size).abs().square())
    shortest = sample_rate // 400
    best, lag = (correlation[:, shortest : sample_rate // 60] / correlation[:, :1]).max(dim=1)
    lags = lag[best > 0.5] + shortest
    return 12 * math.log2(sample_rate / lags.median().item() / 55) if len(lags) > 3 else math.nan


def _hum(wave: Tensor, sample_rate: int) -> float:
    """How far the first five multiples of 50 or of 60 Hz rise above what lies between them, in the quieter frames, dB."""
    size = 2 ** math.ceil(math.log2(0.37 * sample_rate))               # resolves 3 Hz
    if len(wave) < size:
        return math.nan
    spectrum = torch.stft(
        wave, size, size // 4, window=torch.hann_window(size), pad_mode="constant", return_complex=True
    ).abs().square()
    # by order, as torch's quantiles are for short recordings only
    levels = 10 * torch.log10(spectrum.kthvalue(1 + spectrum.shape[1] // 4, dim=1).values + 1e-9)

    def at(hertz: Tensor) -> Tensor:
        bins = (hertz * size / sample_rate).round().int()
        return torch.stack([levels[bins + i] for i in (-1, 0, 1)]).amax(dim=0)

    multiples = torch.arange(1, 6)
    combs = [mains * multiples for mains in (50, 60)]
    above = [at(comb) - (at(comb - comb[0] / 2) + at(comb + comb[0] / 2)) / 2 for comb in combs]
    return max(each.median().item() for each in above)


def _loudest_end(wave: Tensor, sample_rate: int) -> float:
    """Level of the first or the last 20 ms, whichever is louder, re that of the loud frames, dB: high if it is cut."""
    size = sample_rate // 50
    if len(wave) < 4 * size:
        return math.nan
    power = wave.unfold(0, size, size).square().mean(dim=1)
    ends = torch.stack([wave[:size], wave[-size:]]).square().mean(dim=1).max()
    return 10 * torch.log10((ends + 1e-10) / (power.quantile(0.9) + 1e-10)).item()
