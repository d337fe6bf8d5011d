"""What average speech is as a mel spectrogram in any convention, and by what speech is told from its transpose.

Two curves over bands follow from a convention's settings. The *level* is the mean over frames of the logarithm of magnitude;
speech falls from the first formant on, whoever speaks. The *contrast* is how much the difference between adjacent bands
varies from frame to frame. In both, the way in which narrow bands fall on the bins of the Fourier transform leaves a
zigzag that is the same for every voice, and gives away where the bands lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from flowavenet.audio.filterbank import mel_filter_bank
from flowavenet.audio.settings import MelSettings

# Of average speech, at points evenly spaced on HTK's mel scale from 0 to 11,025 Hz: ln(amplitude / sqrt(Hz)), and how much
# more the logarithms of adjacent bands' magnitudes differ than those of noise do, as a logarithm. Both, and the spreads in
# `speechlikelihood`, are the most probable of the mels, in seven of the conventions, of 24 recordings each of five voices
# (LJSpeech; Kathleen, Kerstin, Flemishguy and Nathalie of rhasspy), 2026-11-21.
_LEVEL = torch.tensor(
    [-11.45, -10.45, -9.25, -8.34, -8.51, -8.57, -8.67, -8.87, -9.20, -9.53, -9.88, -10.11, -10.27, -10.45, -10.66, -10.81,
     -10.89, -10.88, -10.88, -11.05, -11.09, -11.07, -10.96, -10.97, -11.21, -11.27, -11.26, -11.20, -11.28, -11.41, -11.62,
     -11.96, -12.21, -12.40, -12.53, -12.80, -12.86, -12.97, -13.06, -12.71, -12.60]
)  # fmt: skip
_CONTRAST = torch.tensor(
    [0.48, 0.75, 0.90, 0.82, 0.71, 0.61, 0.52, 0.47, 0.43, 0.38, 0.34, 0.37, 0.39, 0.41, 0.46, 0.60, 0.67, 0.68, 0.71, 0.76,
     0.82]
)  # fmt: skip
_TOP = 11025.0  # Hz
_ZIGZAG, _AROUND = 1.11, 9  # how much of noise's zigzag speech has; about the mean of so many bands
_OF_POWERS = -0.07  # what the contrast of bands of powers is less
AT_PEAK = 1.1  # nats that recordings brought to a common peak are above average
OVER_FRAMES = 1.6  # nats, standard deviation of a band over frames


@dataclass(frozen=True)
class AverageSpeech:
    """Average speech in a convention before its logarithm, in nats of magnitude."""

    centre: Tensor
    """Of each band, Hz, (n_mels,)."""
    level: Tensor
    """Mean over frames of ln magnitude, (n_mels,)."""
    contrast: Tensor
    """ln of the standard deviation over frames of what adjacent bands differ by, (n_mels - 1,)."""
    filled: Tensor
    """Whether a band has any bin of the Fourier transform, (n_mels,), bool."""


@lru_cache(maxsize=64)
def average_speech(settings: MelSettings) -> AverageSpeech:
    """What average speech is in a convention."""
    bank = mel_filter_bank(settings).double()
    hz = torch.arange(settings.n_fft // 2 + 1) * (settings.sample_rate / settings.n_fft)
    squares = torch.hann_window(settings.win_length, dtype=torch.float64).square()
    level = _at(hz, _LEVEL) + 0.5 * math.log(settings.sample_rate * squares.sum())
    if settings.preemphasis:
        turn = torch.cos(2 * math.pi * hz / settings.sample_rate)
        level = level + 0.5 * torch.log(1 + settings.preemphasis**2 - 2 * settings.preemphasis * turn)
    level = (bank @ torch.exp(settings.power * level.double())).clamp(min=1e-12).log() / settings.power
    area = bank.sum(1).clamp(min=1e-12)
    centre = bank @ hz.double() / area
    noise = _contrast_of_noise(bank / area[:, None], squares, settings.n_fft)
    smooth = _smoothed(noise)
    contrast = smooth + _ZIGZAG * (noise - smooth) + _at((centre[1:] + centre[:-1]) / 2, _CONTRAST)
    return AverageSpeech(
        centre,
        level + (0.0 if settings.peak is None else AT_PEAK),
        contrast + (_OF_POWERS if settings.power == 2 else 0.0),
        area > 1e-9,
    )


def _contrast_of_noise(bank: Tensor, squares: Tensor, n_fft: int) -> Tensor:
    """ln of how much, as a part of their mean, adjacent bands of white noise differ.

    The spectra of a windowed noise k bins apart correlate by what the transform of the squared window is at k; magnitudes
    of complex normals correlate by about the square of that, and have a variance of 4 / pi - 1 of their squared mean.
    """
    correlation = torch.fft.rfft(squares, n_fft).abs() / squares.sum()
    bins = torch.arange(bank.shape[1])
    variance = (4 / math.pi - 1) * bank @ correlation[(bins[:, None] - bins).abs()].square() @ bank.T
    own = variance.diagonal()
    return 0.5 * (own[1:] + own[:-1] - 2 * variance.diagonal(1)).clamp(min=1e-4).log()


def _smoothed(curve: Tensor) -> Tensor:
    side = _AROUND // 2
    return F.avg_pool1d(F.pad(curve[None, None], (side, side), mode="replicate"), _AROUND, 1)[0, 0]


def _at(hz: Tensor, curve: Tensor) -> Tensor:
    """Values at these frequencies of a curve that is given from 0 to `_TOP`, beyond which it stays."""
    position = (mels(hz) / mels(torch.tensor(_TOP)) * (len(curve) - 1)).clamp(max=len(curve) - 1)
    below = position.floor().clamp(max=len(curve) - 2).long()
    return torch.lerp(curve[below].to(position), curve[below + 1].to(position), position - below)


def rough_over_bands(mel: Tensor) -> float:
    """How much likelier (batch, bands, frames) is than (batch, frames, bands), in nats: speech is smoother along time.

    By second differences, which are larger over bands, and by how alike values four steps apart are, which are more so over
    bands. Both are about normal, for speech and for its transpose; the factors are of the recordings above.
    """
    mel = mel.double()

    def roughness(dim: int) -> float:
        return math.log(torch.diff(mel, n=2, dim=dim).square().mean().item() + 1e-9) if mel.shape[dim] > 2 else 0.0

    return 8 * (roughness(1) - roughness(2)) - 10 * (steadiness(mel, 4) - steadiness(mel.transpose(1, 2), 4))


def steadiness(mel: Tensor, frames: int = 1) -> float:
    """Correlation of values so many frames apart, about each band's mean."""
    mel = mel - mel.mean(2, keepdim=True)
    if mel.shape[2] <= frames:
        return 0.0
    return ((mel[..., frames:] * mel[..., :-frames]).mean() / mel.square().mean().clamp(min=1e-12)).item()


def mels(hz: Tensor) -> Tensor:
    """Hz on HTK's mel scale."""
    return 2595 * torch.log10(1 + hz / 700)
