"""Mixing: an invertible matrix over the channels, the same at every time. The papers call it a 1x1 convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowavenet.transforms.base import Transform, exact, wide


class Mixing(Transform):
    """Multiply the channels of every time step by one learned matrix, which starts as a random rotation.

    z = W x;  log_det = time * log|det W|

    ``slogdet`` gives the logarithm of the absolute determinant, so a matrix whose determinant turns negative in
    training does no harm.

    Args:
        channels: number of channels.
        generator: draws the initial rotation.

    Kingma, Dhariwal, "Glow: generative flow with invertible 1x1 convolutions", 2018, arXiv:1807.03039.
    """

    def __init__(self, channels: int, generator: torch.Generator | None = None):
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(channels, channels, generator=generator))
        self.weight = nn.Parameter(rotation)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with exact(x):
            return torch.einsum("ij,bjt->bit", self.weight, x), self._log_det(x)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # inverted in float64: once per call, and the round trip in float32 is as exact as the products
        weight = torch.linalg.inv(self.weight.double()).to(z.dtype)
        with exact(z):
            return torch.einsum("ij,bjt->bit", weight, z), -self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        return (torch.linalg.slogdet(wide(self.weight)).logabsdet * x.shape[-1]).expand(x.shape[0])
