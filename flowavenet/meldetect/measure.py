"""Measure of a mel spectrogram what shows its convention: its range, two curves over bands, how frames follow each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_FEW = 20  # frames that a spread is taken of, at least
_LOUDEST = 0.001  # part of the values that are louder than what is called loudest
_PILE = 0.002  # part of the range next to the lowest value in which what a floor hides piles up
LAGS = 1, 2, 4, 8
ALIKE = 3e-4
"""Variance of the difference of bands that hold the same bin, nats squared: less is not told from it."""


@dataclass(frozen=True)
class Measured:
    """What was measured of a mel, in its own values, without frames of digital silence."""

    ordered: Tensor
    """All values in ascending order, float64."""
    clamped: bool
    """True if the lowest value repeats, as a floor does and a minimum does not."""
    capped: bool
    """True if the highest value repeats."""
    piled: bool
    """True if many values lie next to the lowest."""
    frames: int
    """Frames that are not digital silence."""
    average: Tensor
    """Mean over frames, (bands,)."""
    change: float
    """Standard deviation over frames, mean over bands."""
    loudest: float
    """The value that one in a thousand exceeds."""
    pairs: Tensor
    """Variance of the lower band, of the upper, and their covariance, for adjacent bands, (3, bands - 1); NaN if unknown."""
    steps: Tensor
    """ln of the standard deviation of frames LAGS apart, (4, bands); NaN if unknown."""

    @staticmethod
    def of(mel: Tensor) -> Measured:
        """Measure a mel (batch, bands, frames)."""
        flat = mel.transpose(0, 1).flatten(1).double()
        lowest, highest = flat.min(), flat.max()
        values = flat[:, (flat > lowest).any(0)]
        ordered = values.flatten().sort().values
        bottom = lowest + _PILE * (highest - lowest)
        clamped = int((flat == lowest).sum()) > max(2, 0.0005 * flat.numel())
        piled = clamped or int((flat <= bottom).sum()) > 0.005 * flat.numel()
        heard = values > bottom if piled else torch.ones_like(values, dtype=torch.bool)
        return Measured(
            ordered, clamped, int((flat == highest).sum()) > max(2, 0.0002 * flat.numel()), piled, values.shape[1],
            values.mean(1), values.std(1, correction=0).mean().item(),
            ordered[math.ceil((1 - _LOUDEST) * len(ordered)) - 1].item(),
            _pairs(values, heard), _steps(mel.double(), bottom if piled else lowest - 1),
        )

    @property
    def lowest(self) -> float:
        return self.ordered[0].item()

    @property
    def highest(self) -> float:
        return self.ordered[-1].item()

    def below(self, value: Tensor) -> Tensor:
        """Return the part of the values that are below others."""
        return torch.searchsorted(self.ordered, value.contiguous()).double() / len(self.ordered)

    def contrast(self, unit: Tensor) -> Tensor:
        """Return ln of the spread of the difference between adjacent bands, in units (..., bands): (..., bands - 1)."""
        lower, upper, both = self.pairs
        one, two = unit[..., :-1], unit[..., 1:]
        return 0.5 * (lower / one**2 + upper / two**2 - 2 * both / (one * two)).clamp(min=ALIKE).log()


def _pairs(values: Tensor, heard: Tensor) -> Tensor:
    """Variances and covariance of adjacent bands over the frames in which both are heard, (3, bands - 1)."""
    both = (heard[1:] & heard[:-1]).double()
    count = both.sum(1)
    low, high = values[:-1], values[1:]
    mean = [(one * both).sum(1) / count.clamp(min=1) for one in (low, high)]
    low, high = ((one - middle[:, None]) * both for one, middle in zip((low, high), mean, strict=True))
    found = torch.stack([(low * low).sum(1), (high * high).sum(1), (low * high).sum(1)]) / count.clamp(min=1)
    return torch.where(count > _FEW, found, torch.nan)


def _steps(mel: Tensor, bottom: Tensor) -> Tensor:
    """ln of the spread of frames LAGS apart, where both are above the bottom, (4, bands)."""
    found = []
    for lag in LAGS:
        if mel.shape[2] <= lag:
            found.append(torch.full((mel.shape[1],), torch.nan, dtype=mel.dtype))
            continue
        heard = ((mel[..., lag:] > bottom) & (mel[..., :-lag] > bottom)).double()
        squares = ((mel[..., lag:] - mel[..., :-lag]).square() * heard).sum((0, 2))
        count = heard.sum((0, 2))
        found.append(torch.where(count > _FEW, 0.5 * (squares / count).clamp(min=1e-12).log(), torch.nan))
    return torch.stack(found)


def rough_over_bands(mel: Tensor) -> float:
    """Return how much likelier (batch, bands, frames) is than (batch, frames, bands), nats: speech is smoother along time.

    Second differences are larger over bands, and values four steps apart are less alike over frames. Both are about normal,
    for speech and for its transpose; the factors were fitted to the recordings that `speech` names.
    """
    mel = mel.double()

    def roughness(dim: int) -> float:
        return math.log(torch.diff(mel, n=2, dim=dim).square().mean().item() + 1e-9) if mel.shape[dim] > 2 else 0.0

    return 8 * (roughness(1) - roughness(2)) - 10 * (steadiness(mel, 4) - steadiness(mel.transpose(1, 2), 4))


def steadiness(mel: Tensor, frames: int = 1) -> float:
    """Return the correlation of values so many frames apart, about each band's mean."""
    mel = mel - mel.mean(2, keepdim=True)
    if mel.shape[2] <= frames:
        return 0.0
    return ((mel[..., frames:] * mel[..., :-frames]).mean() / mel.square().mean().clamp(min=1e-12)).item()
