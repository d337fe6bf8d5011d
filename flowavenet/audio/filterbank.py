"""The bands of a mel spectrogram: triangles over the frequencies of a Fourier transform."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from flowavenet.audio.settings import MelSettings


def mel_filter_bank(settings: MelSettings) -> Tensor:
    """Triangles that gather the bins of a Fourier transform into bands as wide as the ear's.

    Band m rises from edge m to edge m + 1 and falls to edge m + 2. It has unit area over Hz, or a peak of 1 if
    ``settings.norm`` is None. The edges are evenly spaced on a mel scale. Slaney's is linear up to 1000 Hz, 15 mel;
    then there are 27 mel for each factor of 6.4. HTK's is 2595 log10(1 + Hz / 700).

    Returns:
        (n_mels, n_fft / 2 + 1), float32, equal to `librosa.filters.mel`.

    Slaney, "Auditory Toolbox", version 2, 1998, Interval Research Corporation 1998-010.
    Young et al., "The HTK Book", 2006, section 5.4.
    """
    rate = settings.band_rate or settings.sample_rate                  # as the bands count Hz
    ends = settings.f_min, settings.f_max
    return _bank(rate, settings.n_fft, settings.n_mels, *ends, settings.mel_scale, settings.norm).clone()


@lru_cache(maxsize=64)
def _bank(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float, mel_scale: str, norm: str | None) -> Tensor:
    htk = mel_scale == "htk"

    def hz_to_mel(hz: float) -> float:
        if htk:
            return 2595 * math.log10(1 + hz / 700)
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)

    mels = torch.linspace(
        hz_to_mel(f_min), hz_to_mel(f_max), n_mels + 2, dtype=torch.float64
    )
    if htk:
        edges = 700 * (10 ** (mels / 2595) - 1)
    else:
        edges = torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    edges = edges[:, None]  # Hz
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)  # of the Fourier transform
    bins = bins * rate / n_fft  # Hz
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles if norm is None else triangles * 2 / (high - low)).float()
