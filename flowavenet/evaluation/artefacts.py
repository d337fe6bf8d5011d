"""Two faults that vocoders are known for and that distances average away: lines in the spectrum, and a trembling voice."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from flowavenet.audio import MelSettings, MelSpectrogram

PERIODS = (256, 128, 512)
"""Samples after which something repeats in a vocoder: hops, and groups of folded samples."""
LINE_FFT = 16384
TREMBLE_HZ = 4000.0
LOUD_DB = 30.0


def tonal_lines(reference: Tensor, wave: Tensor, sample_rate: int) -> float:
    """Power of ``wave`` at multiples of sample_rate / period, against what lies between them, in dB; less that of the
    recording. 0: no more lines than the recording has. The worst of the periods (256, 128, 512) counts.

    What repeats every hop or every fold makes a comb of such lines. Both are (samples,); NaN under a second.
    """
    if len(reference) < sample_rate:
        return math.nan
    a, b = _mean_spectrum_db(reference), _mean_spectrum_db(wave)
    return max(_comb_db(b, period) - _comb_db(a, period) for period in PERIODS)


def tremble(reference: Tensor, wave: Tensor, sample_rate: int) -> float:
    """How much rougher band levels run from frame to frame than in the recording, in dB; 0: the same.

    R = mean |L[t-1] - 2 L[t] + L[t+1]| over bands below 4 kHz, in frames within 30 dB of the recording's loudest;
    L: mel band levels in dB every 256 samples at 22,050 Hz; tremble = R(wave) - R(reference). NaN if nothing is that loud.
    """
    settings = replace(MelSettings(), sample_rate=sample_rate, n_mels=40, f_max=min(TREMBLE_HZ, sample_rate / 2))
    levels = 20 * MelSpectrogram(settings)(torch.stack([reference, wave]).float()) / math.log(10)
    loudness = levels[0].mean(dim=0)
    loud = (loudness > loudness.max() - LOUD_DB)[1:-1]
    if not loud.any() or levels[0].max() <= 20 * math.log10(settings.floor):
        return math.nan
    bends = (levels[..., :-2] - 2 * levels[..., 1:-1] + levels[..., 2:]).abs().mean(dim=1)
    rough = bends[:, loud].mean(dim=1)
    return float(rough[1] - rough[0])


def _mean_spectrum_db(wave: Tensor) -> Tensor:
    """Mean log-power of overlapping spectra: (LINE_FFT / 2 + 1,), dB. Logarithms first, so that no loud moment rules."""
    window = torch.hann_window(LINE_FFT, dtype=wave.dtype)
    spectrum = torch.stft(wave, LINE_FFT, LINE_FFT // 4, window=window, pad_mode="constant", return_complex=True)
    return (10 * torch.log10(spectrum.abs().square() + 1e-9)).mean(dim=-1)


def _comb_db(spectrum: Tensor, period: int) -> float:
    """Mean level at multiples of LINE_FFT / period bins less the level midway between them, dB."""
    spacing = LINE_FFT // period
    lines = torch.arange(spacing, len(spectrum) - spacing, spacing)
    on = torch.stack([spectrum[lines + i] for i in (-1, 0, 1)]).mean(dim=0)
    between = torch.stack([spectrum[lines + side * spacing // 2 + i] for side in (-1, 1) for i in (-1, 0, 1)]).mean(dim=0)
    return float((on - between).mean())
