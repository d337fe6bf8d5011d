"""Nets that say how far back a signal's past resembles it: weights of a pitch prediction, off the mel or off a waveform.

Both spread a softmax over a fixed table of lags, and mix for each lag the filter that delays a subband by it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet.nets.signalnet import Neighbours

LAGS = 400
HIGHEST, LOWEST = 420.0, 60.0
"""Hz; the pitches whose periods the lags cover, spaced evenly on a logarithmic scale: 0.5 % apart."""
HALF_KERNEL = 6.5
"""Samples of a delaying filter on either side of its lag."""


def lags(sample_rate: float) -> Tensor:
    """Return the lags in samples at ``sample_rate`` Hz, from the shortest to the longest: (LAGS,), float64."""
    return sample_rate / torch.logspace(math.log10(HIGHEST), math.log10(LOWEST), LAGS, dtype=torch.float64, device="cpu")


def taps(sample_rate: float) -> int:
    """Return how many samples of the past the filters read."""
    return int(lags(sample_rate)[-1]) + math.ceil(HALF_KERNEL)


@lru_cache
def delays(sample_rate: float, band: int) -> Tensor:
    """Return the filters that delay the signal of a subband by each lag: (LAGS, taps), lag 1 first, float64.

    Channel ``band`` of :class:`~flowavenet.transforms.Subbands` holds the frequencies from ``band * sample_rate / 2`` on,
    moved down to 0. A delay by L samples turns a frequency of the original by 2 pi L (f + band / 2), so the filter is

        w_l = integral over f in (0, 1/2) of 2 cos(2 pi f (l - L) - pi band L), times cos^2(pi (l - L) / 13) within +-6.5

    the windowed sinc for band 0. Laakso et al., "Splitting the unit delay", IEEE Signal Processing Magazine, 1996.
    """
    lag = lags(sample_rate)[:, None]
    distance = torch.arange(1, taps(sample_rate) + 1, dtype=torch.float64, device="cpu") - lag
    frequency = (torch.arange(512, dtype=torch.float64, device="cpu") + 0.5) / 1024
    turned = 2 * math.pi * distance[..., None] * frequency
    even, odd = torch.cos(turned).mean(dim=-1), torch.sin(turned).mean(dim=-1)
    window = torch.cos(math.pi / 2 * (distance / HALF_KERNEL).clamp(-1, 1)).square()
    return window * (torch.cos(math.pi * band * lag) * even + torch.sin(math.pi * band * lag) * odd)


class MelLags(nn.Module):
    """Predict the lowest subband from its past, the lag read off the mel.

    weights = gain * sum_p softmax(logits)_p delay_p,  logits = conv(features) + kappa * cepstrum(mel)

    The cepstrum is the mel less its smooth envelope, correlated with the cosine that harmonics of each lag would draw over
    the bands below 2 kHz. It finds the pitch to within 5 % nearly always, before any training.

    Args:
        centres: centre frequencies of the mel bands, Hz, (n_mels,).
        width: channels of the features.
        sample_rate: Hz of the subband.

    Shape: mel (batch, frames, n_mels), features (batch, frames, width) -> (batch, frames, 1, taps).
    """

    most = 0.995

    def __init__(self, centres: Tensor, width: int, sample_rate: float):
        super().__init__()
        self.logits = Neighbours(width, LAGS, 3)
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.kappa = nn.Parameter(torch.tensor(3.0))
        self.gain = Neighbours(width, 1, 3)
        self.receptive_field = (1, 1)
        self._tables = cepstrum(centres, lags(sample_rate) / sample_rate), delays(sample_rate, 0)

    def forward(self, mel: Tensor, features: Tensor) -> Tensor:
        to_cepstrum, filters = (table.to(mel) for table in self._tables)
        chance = torch.softmax(self.logits(features).to(mel.dtype) + self.kappa * (mel @ to_cepstrum), dim=-1)
        gain = self.most * torch.sigmoid(self.gain(features)).to(mel.dtype)
        return (gain * (chance @ filters)).unsqueeze(2)


class WaveLags(nn.Module):
    """Predict higher subbands from their pasts, the lag read off the waveform of the lowest one.

    weights of a band = its gain * sum_p softmax(logits)_p delay_p
    logits = linear(features) + sharpness * autocorrelation_p

    Args:
        bands: which subbands: (first, last + 1).
        width: channels of the features.
        sample_rate: Hz of a subband.
        hop: samples of a subband in a frame.

    Shape: wave (batch, frames * hop), features (batch, frames, width) -> (batch, frames, bands, taps).
    """

    most = 0.99

    def __init__(self, bands: tuple[int, int], width: int, sample_rate: float, hop: int):
        super().__init__()
        self.bands = bands
        self.logits = nn.Linear(width, LAGS)
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.sharpness = nn.Linear(width, 1)
        nn.init.constant_(self.sharpness.bias, 8.0)
        self.gain = Neighbours(width + 1, bands[1] - bands[0], 3)
        nn.init.constant_(self.gain.bias, -1.5)
        self.sample_rate, self.hop = sample_rate, hop
        side = -(-(WINDOW // 2) // hop) + 1
        self.receptive_field = (side, side)
        self._filters = torch.cat([delays(sample_rate, band) for band in range(*bands)], dim=1)

    def forward(self, wave: Tensor, features: Tensor) -> Tensor:
        alike = autocorrelation(wave, self.hop, self.sample_rate)
        sharpness = F.softplus(self.sharpness(features).to(alike.dtype))
        chance = torch.softmax(self.logits(features).to(alike.dtype) + sharpness * alike, dim=-1)
        expected = (chance * alike).sum(dim=-1, keepdim=True)
        heard = torch.cat([features, expected.to(features.dtype)], dim=-1)
        gain = self.most * torch.sigmoid(self.gain(heard)).to(alike.dtype)
        return gain.unsqueeze(-1) * (chance @ self._filters.to(alike)).unflatten(-1, (gain.shape[-1], -1))


def cepstrum(centres: Tensor, seconds: Tensor) -> Tensor:
    """Return the matrix (n_mels, lags) that takes a mel to how strongly harmonics of each period would show in it."""
    centres = centres.double()
    weight = torch.exp(-(centres / 900).square()) * (centres >= 70)
    cosine = weight * torch.cos(2 * math.pi * centres * seconds[:, None])
    cosine = cosine / cosine.square().sum(dim=1, keepdim=True).sqrt()
    band = torch.arange(len(centres), dtype=torch.float64, device="cpu")
    smooth = torch.exp(-0.5 * ((band[:, None] - band) / 3).square())
    smooth = smooth / smooth.sum(dim=1, keepdim=True)
    return (cosine @ (torch.eye(len(centres), dtype=torch.float64, device="cpu") - smooth)).T


WINDOW, TRANSFORM = 224, 512
"""Samples of the lowest subband whose autocorrelation is taken, and the length of its Fourier transform."""


def autocorrelation(wave: Tensor, hop: int, sample_rate: float) -> Tensor:
    """Return how much a waveform resembles itself at every lag, around the middle of every frame: (batch, frames, LAGS).

    The samples of a Hann window are correlated by way of their power spectrum, and divided by their energy.

    Args:
        wave: (batch, frames * hop), zeros beyond its ends.
    """
    frames = wave.shape[1] // hop
    window = torch.hann_window(WINDOW, dtype=torch.float64, device=wave.device).to(wave.dtype)
    pieces = F.pad(wave, (WINDOW // 2 - hop // 2, WINDOW // 2)).unfold(1, WINDOW, hop)[:, :frames] * window
    spectrum = torch.fft.rfft(pieces, TRANSFORM)
    power = spectrum.real.square() + spectrum.imag.square()
    result = power @ _cosines(sample_rate).to(power)
    return result[..., :-1] / (result[..., -1:] + 1e-9)


@lru_cache
def _cosines(sample_rate: float) -> Tensor:
    """Return the matrix from a power spectrum to the correlation at every lag, and to the energy: (bins, LAGS + 1)."""
    bins = torch.arange(TRANSFORM // 2 + 1, dtype=torch.float64, device="cpu")
    twice = torch.full((len(bins), 1), 2.0, dtype=torch.float64, device="cpu")
    twice[0] = 1
    cosine = torch.cos(2 * math.pi / TRANSFORM * bins[:, None] * lags(sample_rate))
    return twice * torch.cat([cosine, torch.ones_like(twice)], dim=1)
