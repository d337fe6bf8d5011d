"""ActNorm: one shift and one scale per channel, set from the first batch so that training starts at unit variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowavenet.transforms.base import Transform, wide


class ActNorm(Transform):
    """Shift and scale each channel by two learned numbers.

    z = scale * (x + shift);  log_det = time * sum(log|scale|)

    The first batch seen in training mode sets them so that ``z`` has mean 0 and standard deviation 1 in each channel,
    over the batches of all processes together. That this has happened is a buffer, ``initialised``: it is saved with
    the weights, so neither loading nor resuming sets them again.

    Args:
        channels: number of channels.

    Kingma, Dhariwal, "Glow: generative flow with invertible 1x1 convolutions", 2018, arXiv:1807.03039.
    """

    initialised: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, channels, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1))
        self.register_buffer("initialised", torch.tensor(False))
        # Reading a buffer on a GPU stops the host, so it is read once; not state: it only says "already looked".
        self._looked = False

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training and not self._looked:
            self._looked = True
            if not self.initialised:
                self.initialise(x)
        return self.scale * (x + self.shift), self._log_det(x)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z / self.scale - self.shift, -self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        return (wide(self.scale).abs().log().sum() * x.shape[-1]).expand(x.shape[0])

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set shift and scale from ``x`` (batch, channels, time), the share of this process of the first batch."""
        # float64 sums, so that any split of the batch over processes gives the same numbers
        y = x.double()
        count = torch.full_like(y[0, :, 0], y.shape[0] * y.shape[2])
        sums = torch.stack([count, y.sum(dim=(0, 2)), y.square().sum(dim=(0, 2))])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        count, total, squares = sums
        mean = total / count
        std = ((squares - count * mean.square()) / (count - 1).clamp(min=1)).clamp(min=0).sqrt()
        self.shift.copy_(-mean[None, :, None])
        self.scale.copy_(1 / (std + 1e-6)[None, :, None])
        self.initialised.fill_(True)
