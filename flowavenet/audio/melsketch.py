"""A mel's sketch: the two curves and the few numbers by which its convention is recognised."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_FEW = 20  # frames of which no contrast is taken
_LOUDEST = 0.001  # the part of values that are louder than what is called loudest


@dataclass(frozen=True)
class Sketch:
    """What is looked at of a mel, as values of whatever convention it may be of, but for frames of digital silence."""

    values: Tensor
    """(bands, frames), float64."""
    lowest: float
    highest: float
    clamped: bool
    """Whether the lowest value repeats, as a floor does and a minimum does not."""
    capped: bool
    """Whether the highest does."""
    average: Tensor
    """Mean over frames, (bands,)."""
    change: float
    """Standard deviation over frames, the mean of all bands."""
    loudest: float
    """The value that one in a thousand exceeds."""

    @staticmethod
    def of(mel: Tensor) -> Sketch:
        """Sketch a mel (batch, bands, frames)."""
        flat = mel.transpose(0, 1).flatten(1).double()
        lowest, highest = flat.min(), flat.max()
        values = flat[:, (flat > lowest).any(0)]
        return Sketch(
            values,
            lowest.item(),
            highest.item(),
            clamped=int((flat == lowest).sum()) > max(2, 0.0005 * flat.numel()),
            capped=int((flat == highest).sum()) > max(2, 0.0002 * flat.numel()),
            average=values.mean(1),
            change=values.std(1, correction=0).mean().item(),
            loudest=values.flatten().kthvalue(math.ceil((1 - _LOUDEST) * values.numel())).values.item(),
        )

    @property
    def frames(self) -> int:
        """Frames that are not digital silence."""
        return self.values.shape[1]

    def contrast(self, unit: Tensor) -> Tensor:
        """ln of the standard deviation over frames of what adjacent bands differ by, in ``unit`` values, (bands - 1,).

        Only frames in which both are above the floor count, as it hides what they differ by; NaN, if these are too few.
        """
        heard = self.values > self.lowest if self.clamped else torch.ones_like(self.values, dtype=torch.bool)
        both = (heard[1:] & heard[:-1]).double()
        scaled = self.values / unit[:, None]
        apart = scaled[1:] - scaled[:-1]
        count = both.sum(1).clamp(min=1)
        mean = (apart * both).sum(1) / count
        variance = ((apart - mean[:, None]).square() * both).sum(1) / count
        return torch.where(count > _FEW, 0.5 * variance.clamp(min=1e-12).log(), torch.nan)
