"""Say what average speech looks like as a mel spectrogram of given settings.

Three curves over bands follow from a convention's settings:

- *level*, the mean over frames of ln magnitude. Speech falls from the first formant on, whoever speaks.
- *contrast*, the spread over frames of the difference between adjacent bands. Narrow bands hold few bins of the Fourier
  transform, which leaves a zigzag that is the same for every voice and tells where the bands lie.
- *step*, the spread of the difference between adjacent frames. It follows from how much windows overlap, and from the hop.

The curves of speech were fitted to mels, in seven of the conventions, of 24 recordings each of five voices (LJSpeech;
Kathleen, Kerstin, Flemishguy and Nathalie of rhasspy), 2026-11-21; `_STEP` and `_SPEECH_STEP` to 4 recordings each,
2026-11-29.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from flowavenet.audio.filterbank import mel_filter_bank
from flowavenet.audio.settings import MelSettings
from flowavenet.meldetect.measure import ALIKE

# ln(amplitude / sqrt(Hz)), and how much larger ln contrast is than that of noise; evenly spaced on HTK's mel scale up to
# _TOP
_LEVEL = np.array(
    [-11.45, -10.45, -9.25, -8.34, -8.51, -8.57, -8.67, -8.87, -9.20, -9.53, -9.88, -10.11, -10.27, -10.45, -10.66, -10.81,
     -10.89, -10.88, -10.88, -11.05, -11.09, -11.07, -10.96, -10.97, -11.21, -11.27, -11.26, -11.20, -11.28, -11.41, -11.62,
     -11.96, -12.21, -12.40, -12.53, -12.80, -12.86, -12.97, -13.06, -12.71, -12.60]
)  # fmt: skip
_CONTRAST = np.array(
    [0.48, 0.75, 0.90, 0.82, 0.71, 0.61, 0.52, 0.47, 0.43, 0.38, 0.34, 0.37, 0.39, 0.41, 0.46, 0.60, 0.67, 0.68, 0.71, 0.76,
     0.82]
)  # fmt: skip
_TOP = 11025.0  # Hz
_ZIGZAG, _AROUND = 1.11, 9  # the zigzag of speech as a part of that of noise; bands about which it is taken
_SPACING, _WIDER = 35.0, 0.55  # mels between bands, and what a factor e of that adds to the contrast
_WINDOW, _LONGER = 1024 / 22050, 0.2  # seconds of the window, likewise
_OF_POWERS = -0.07  # added to the contrast of bands of powers
AT_PEAK = 1.1  # nats by which recordings brought to a common peak are above average
OVER_FRAMES = 1.6  # nats, standard deviation of a band over frames
_SPEECH_STEP = 12.0  # nats a second by which bands of speech rise and fall


@dataclass(frozen=True)
class AverageSpeech:
    """Average speech before a convention's logarithm, in nats of magnitude."""

    centre: np.ndarray
    """Centre of each band, Hz, (n_mels,)."""
    level: np.ndarray
    """Mean over frames of ln magnitude, (n_mels,)."""
    contrast: np.ndarray
    """ln of the standard deviation over frames of the difference between adjacent bands, (n_mels - 1,)."""
    step: np.ndarray
    """ln of the standard deviation of the difference between adjacent frames, (n_mels,)."""
    filled: np.ndarray
    """True for bands that hold a bin of the Fourier transform, (n_mels,), bool."""


@lru_cache(maxsize=1024)
def average_speech(settings: MelSettings) -> AverageSpeech:
    """Return the curves of average speech for these settings."""
    low, high = settings.band_edges
    bin_hz = settings.sample_rate / settings.n_fft
    bins = slice(int(low / bin_hz), min(settings.n_fft // 2, int(high / bin_hz) + 1) + 1)
    bank = mel_filter_bank(settings)[:, bins].double().numpy()
    hz = np.arange(bins.start, bins.stop) * bin_hz
    squares = _hann(settings.win_length) ** 2
    level = _at(hz, _LEVEL) + 0.5 * math.log(settings.sample_rate * squares.sum())
    if settings.preemphasis:
        turn = np.cos(2 * math.pi * hz / settings.sample_rate)
        level = level + 0.5 * np.log(1 + settings.preemphasis**2 - 2 * settings.preemphasis * turn)
    level = np.log(np.maximum(bank @ np.exp(settings.power * level), 1e-12)) / settings.power
    area = np.maximum(bank.sum(1), 1e-12)
    centre = bank @ hz / area
    between = (centre[1:] + centre[:-1]) / 2
    own, shared = _noise(bank / area[:, None], squares, settings.n_fft)
    noise = 0.5 * np.log(np.maximum(own[1:] + own[:-1] - 2 * shared, 1e-4))
    smooth = np.convolve(np.pad(noise, _AROUND // 2, mode="edge"), np.full(_AROUND, 1 / _AROUND), "valid")
    wider = math.log((mels(high) - mels(low)) / (settings.n_mels + 1) / _SPACING)
    contrast = (
        smooth + _ZIGZAG * (noise - smooth) + _at(between, _CONTRAST) + _OF_POWERS * (settings.power == 2)
        + _WIDER * wider * (0.3 + 0.7 / (1 + np.exp((2000 - between) / 500)))
        + _LONGER * math.log(settings.win_length / settings.sample_rate / _WINDOW)
    )
    contrast = np.where(noise > 0.5 * math.log(2e-4), contrast, 0.5 * math.log(ALIKE))
    seconds = settings.hop_length / settings.sample_rate
    step = 0.5 * np.log(2 * own * (1 - overlap(settings, 1) ** 2) + (_SPEECH_STEP * seconds) ** 2)
    return AverageSpeech(centre, level + (0.0 if settings.peak is None else AT_PEAK), contrast, step, area > 1e-9)


def overlap(settings: MelSettings, frames: int) -> float:
    """Return the correlation of the windows of two frames so many hops apart."""
    window, hop = _hann(settings.win_length), min(frames * settings.hop_length, settings.win_length)
    return float((window[hop:] * window[: len(window) - hop]).sum() / (window**2).sum())


def _hann(length: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * math.pi / length * np.arange(length))


def _noise(bank: np.ndarray, squares: np.ndarray, n_fft: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the variances of bands of white noise, as a part of their squared mean, and the covariances of neighbours.

    Bins k apart of a windowed noise correlate by the transform of the squared window at k. The correlation of their
    magnitudes is about the square of that, and a magnitude has a variance of 4 / pi - 1 of its squared mean.
    """
    correlation = (np.abs(np.fft.rfft(squares, n_fft)) / squares.sum()) ** 2
    spread = correlation[0] * bank
    for k in range(1, min(int(np.flatnonzero(correlation > 1e-4).max()) + 1, bank.shape[1])):
        spread[:, k:] += correlation[k] * bank[:, :-k]
        spread[:, :-k] += correlation[k] * bank[:, k:]
    return (4 / math.pi - 1) * (bank * spread).sum(1), (4 / math.pi - 1) * (bank[1:] * spread[:-1]).sum(1)


def _at(hz: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Interpolate a curve that is given from 0 to `_TOP`, and stays as it is beyond, at frequencies."""
    return np.interp(mels(hz), np.linspace(0, mels(_TOP), len(curve)), curve)


def mels(hz: float | np.ndarray) -> float | np.ndarray:
    """Convert Hz to HTK's mel scale."""
    return 2595 * np.log10(1 + np.asarray(hz) / 700)
