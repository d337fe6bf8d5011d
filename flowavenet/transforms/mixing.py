"""Mixing: an invertible matrix over the channels, the same at every time. The papers call it a 1x1 convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowavenet.transforms.base import Transform, exact, weight_state, wide


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
        self._kept: tuple | None = None                                # of the last inverse, without gradients
        self._frozen = False

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = torch.linalg.slogdet(wide(self.weight)).logabsdet
        with exact(x):
            return self.weight @ x, (log_det * x.shape[-1]).expand(x.shape[0])

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weight, log_det = self._inverted()
        with exact(z):
            return weight.to(z.dtype) @ z, (log_det * -z.shape[-1]).expand(z.shape[0])

    def _inverted(self) -> tuple[Tensor, Tensor]:
        """The inverse matrix and log|det W|; kept for the next call while nobody trains and the weight is the same."""
        if self._frozen:
            return self._kept[1:]
        fixed = not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling())
        state = weight_state(self.weight) if fixed else None
        if fixed and self._kept is not None and self._kept[0] == state:
            return self._kept[1:]
        # in float64, so that the round trip in float32 is as exact as the products
        inverse = torch.linalg.inv(self.weight.double()).to(wide(self.weight).dtype)
        log_det = torch.linalg.slogdet(wide(self.weight)).logabsdet
        self._kept = (state, inverse, log_det) if fixed else None
        return inverse, log_det

    @torch.no_grad()
    def freeze(self) -> None:
        """Invert the matrix now and for good, for a copy that is never trained again."""
        self._kept, self._frozen = (None, *self._inverted()), True

    def train(self, mode: bool = True) -> Mixing:
        if not self._frozen:
            self._kept = None                                          # averaging writes to weights behind their version
        return super().train(mode)
