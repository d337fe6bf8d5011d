"""How far two spectra are apart: in every cell of the time-frequency plane, and as the ear groups them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from flowavenet.audio import MelSettings, MelSpectrogram

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""(FFT size, hop, window) of the multi-resolution distances, samples at 22,050 Hz; Yamamoto et al., 2020,
arXiv:1910.11480."""
MAGNITUDE_FLOOR = 3e-4
BLOCK = 1024
"""Frames in memory at a time."""
CEPSTRUM = 24
"""Coefficients of the mel cepstrum that are compared, from the first; the zeroth is loudness."""


def mr_stft(reference: Tensor, wave: Tensor, sample_rate: int) -> tuple[float, float]:
    """Two distances of magnitudes A and B, each averaged over three resolutions; 0 is the same.

    Returns:
        log-magnitude, mean |ln max(A, 3e-4) - ln max(B, 3e-4)|: how far they are apart in every cell, quiet ones too;
        spectral convergence, ||A - B|| / ||A||: energy of the difference, which the loud cells rule.
    """
    distances = []
    for resolution in RESOLUTIONS:
        cells, logs, error, energy = 0, 0.0, 0.0, 0.0
        for a, b in zip(_magnitudes(reference, *resolution), _magnitudes(wave, *resolution), strict=True):
            cells += a.numel()
            logs += float((a.clamp(min=MAGNITUDE_FLOOR).log() - b.clamp(min=MAGNITUDE_FLOOR).log()).abs().sum())
            error += float((a - b).square().sum())
            energy += float(a.square().sum())
        distances.append((logs / cells, math.sqrt(error) / max(math.sqrt(energy), 1e-9)))
    log_magnitude, convergence = (statistics.fmean(each) for each in zip(*distances, strict=True))
    return log_magnitude, convergence


def mel_distances(reference: Tensor, wave: Tensor, sample_rate: int) -> tuple[float, float]:
    """Two distances of log-mel spectrograms L (80 bands up to 8 kHz, natural log, floor 1e-5); 0 is the same.

    Returns:
        log-mel L1: mean distance of the bands;
        mel-cepstral distortion (MCD), dB: mean over frames of (10 / ln 10) sqrt(2 sum over m = 1 ... 24 of (c_m - c'_m)^2),
        c_m = (2 / 80) sum over n of L_n cos(pi m (n + 1/2) / 80): how far the envelopes are apart, whatever the loudness.

    All frames count, silent ones too, and none is warped in time. Other programs take the cepstrum of another spectrum, so
    their MCD is another. Kubichek, "Mel-cepstral distance measure for objective speech quality assessment", 1993.
    """
    settings = replace(MelSettings(), sample_rate=sample_rate, f_max=min(8000.0, sample_rate / 2))
    a, b = MelSpectrogram(settings)(torch.stack([reference, wave]).float())
    order = torch.arange(1, CEPSTRUM + 1)[:, None]
    cosines = torch.cos(math.pi * order * (torch.arange(settings.n_mels) + 0.5) / settings.n_mels)  # (24, 80)
    cepstrum = 2 / settings.n_mels * cosines @ (a - b)                 # of the difference: (24, frames)
    distortion = 10 / math.log(10) * (2 * cepstrum.square().sum(dim=0)).sqrt().mean()
    return float((a - b).abs().mean()), float(distortion)


def _magnitudes(wave: Tensor, n_fft: int, hop: int, win: int) -> Iterator[Tensor]:
    """The magnitude spectrogram, zeros beyond the ends, in pieces (n_fft / 2 + 1, frames), to spare memory."""
    window = torch.hann_window(win, dtype=wave.dtype)
    frames = 1 + len(wave) // hop                                      # frame t is centred on sample t * hop
    padded = F.pad(wave, (n_fft // 2, n_fft // 2))
    for start in range(0, frames, BLOCK):
        piece = padded[start * hop : (min(start + BLOCK, frames) - 1) * hop + n_fft]
        yield torch.stft(piece, n_fft, hop, win, window, center=False, return_complex=True).abs()
