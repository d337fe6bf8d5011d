"""Couplings and what stands between them: ActNorm, the invertible 1x1 convolution, and a scale read off the conditioning.

A coupling changes one half of the channels by a shift and a scale read off the other half, which stays as it is. Since the
half that is read does not change, shift and scale can be computed again on the way back: their net need not be invertible.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flowavenet.transforms.base import State, Transform, exact, wide, zero_log_det


class AffineCoupling(Transform):
    """Scale and shift one half of the channels by parameters read off the other half.

    z_a = x_a;  z_b = (x_b - shift(x_a, cond)) * exp(-log_scale(x_a, cond));  log_det = -sum(log_scale)

    Args:
        net: maps (batch, time, channels / 2) and ``cond`` to shift and log-scale, stacked: (batch, time, channels); its
            ``receptive_field`` is (left, right) steps.
        limit: softly keeps every log-scale within +-limit, as ``limit * tanh(log_scale / limit)``; None: no limit.

    Dinh et al., "Density estimation using Real NVP", 2017, arXiv:1605.08803.
    """

    def __init__(self, net: nn.Module, limit: float | None = None):
        super().__init__(net.receptive_field)
        self.net = net
        self.limit = limit

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_a, x_b = x.chunk(2, dim=1)
        shift, log_scale = self.shift_and_log_scale(x_a, cond)
        z_b = ((x_b - shift) * torch.exp(-log_scale)).to(x.dtype)
        return torch.cat([x_a, z_b], dim=1), -log_scale.sum(dim=1)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        z_a, z_b = z.chunk(2, dim=1)
        shift, log_scale = self.shift_and_log_scale(z_a, cond)
        x_b = (z_b * torch.exp(log_scale) + shift).to(z.dtype)
        return torch.cat([z_a, x_b], dim=1), log_scale.sum(dim=1)

    def log_factors(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Return the logarithm of dz/dx of every changed element: (batch, channels / 2, time)."""
        return -self.shift_and_log_scale(x.chunk(2, dim=1)[0], cond)[1]

    def shift_and_log_scale(self, x_a: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what the net reads off the unchanged half: (batch, channels / 2, time) each."""
        shift, log_scale = self.net(x_a.transpose(1, 2), cond).transpose(1, 2).chunk(2, dim=1)
        if self.limit is not None:
            # limit * tanh(log_scale / limit), by the function that is faster on a CPU
            log_scale = 2 * self.limit * (torch.sigmoid(2 / self.limit * log_scale) - 0.5)
        return shift, log_scale


class AdditiveCoupling(Transform):
    """Shift one half of the channels by what is read off the other half.

    z_a = x_a;  z_b = x_b - shift(x_a, cond);  log_det = 0

    Args:
        net: maps (batch, time, channels / 2) and ``cond`` to the shift, (batch, time, channels / 2).

    Dinh, Krueger, Bengio, "NICE: non-linear independent components estimation", 2014, arXiv:1410.8516.
    """

    def __init__(self, net: nn.Module):
        super().__init__(net.receptive_field)
        self.net = net

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_a, x_b = x.chunk(2, dim=1)
        return torch.cat([x_a, x_b - self._shift(x_a, cond)], dim=1), zero_log_det(x)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        z_a, z_b = z.chunk(2, dim=1)
        return torch.cat([z_a, z_b + self._shift(z_a, cond)], dim=1), zero_log_det(z)

    def _shift(self, x_a: Tensor, cond: Tensor | None) -> Tensor:
        return self.net(x_a.transpose(1, 2), cond).transpose(1, 2).to(x_a.dtype)


class ConditionalScale(Transform):
    """Divide every channel by a scale read off the conditioning alone.

    z = x * exp(-log_scale(cond));  log_det = -sum(log_scale)

    Args:
        net: maps ``cond``, on the time grid of ``x`` or a few steps longer, to log-scales (batch, time, channels).
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_factors = self.log_factors(x, cond)
        return (x * torch.exp(log_factors)).to(x.dtype), log_factors.sum(dim=1)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        log_factors = self.log_factors(z, cond)
        return (z * torch.exp(-log_factors)).to(z.dtype), -log_factors.sum(dim=1)

    def log_factors(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Return the logarithm of dz/dx of every element: (batch, channels, time)."""
        return -wide(self.net(cond)).transpose(1, 2)[..., : x.shape[-1]]


class ActNorm(Transform):
    """Shift and scale each channel by two learned numbers, set from the first batch.

    z = scale * (x + shift);  log_det = sum(log|scale|) at each time step

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

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        return z / self.scale - self.shift, -self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        return wide(self.scale).abs().log().sum().expand(x.shape[0], x.shape[-1])

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


class InvertibleConv1x1(Transform):
    """Multiply the channels of every time step by one learned matrix, which starts as a random rotation.

    z = W x;  log_det = log|det W| at each time step

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
        self._inverted: tuple[Any, Tensor, Tensor] | None = None       # of which weight, its inverse, log|det|
        self._frozen = False

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = torch.linalg.slogdet(wide(self.weight)).logabsdet
        with exact(x):
            return self.weight @ x, log_det.expand(x.shape[0], x.shape[-1])

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        weight, log_det = self.inverted()
        with exact(z):
            return weight.to(z.dtype) @ z, (-log_det).expand(z.shape[0], z.shape[-1])

    def inverted(self) -> tuple[Tensor, Tensor]:
        """Return the inverse matrix and log|det W|; keep them while nobody trains and the weight stays the same."""
        if self._frozen:
            return self._inverted[1:]
        fixed = not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling())
        same = self._weight_state() if fixed else None
        if fixed and self._inverted is not None and self._inverted[0] == same:
            return self._inverted[1:]
        # in float64, so that the round trip in float32 is as exact as the products
        inverse = torch.linalg.inv(self.weight.double()).to(wide(self.weight).dtype)
        log_det = torch.linalg.slogdet(wide(self.weight)).logabsdet
        self._inverted = (same, inverse, log_det) if fixed else None
        return inverse, log_det

    def _weight_state(self) -> tuple:
        """Return what changes when an optimizer, a copy or a move changes the weight; in inference mode nobody trains."""
        return None if self.weight.is_inference() else self.weight._version, self.weight.data_ptr(), self.weight.dtype

    @torch.no_grad()
    def freeze(self) -> None:
        """Invert the matrix now and for good, in a copy that is never trained again: a graph has no inverse."""
        self._inverted, self._frozen = (None, *self.inverted()), True

    def train(self, mode: bool = True) -> InvertibleConv1x1:
        if not self._frozen:
            self._inverted = None                                      # averaging writes to weights behind their version
        return super().train(mode)
