"""Coupling: change one half of the channels by amounts read off the other half, which stays as it is.

Since the half that is read does not change, the same amounts can be computed again on the way back: the net that
computes them need not be invertible.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowavenet.transforms.base import Grads, Reach, Transform, no_log_det, wide

TILE = 2048
"""Time steps, over the batch, whose gradients are computed at a time in constant memory."""


class AffineCoupling(Transform):
    """Scale and shift one half of the channels by amounts read off the other half.

    z_a = x_a;  z_b = (x_b - shift(x_a, cond)) * exp(-log_scale(x_a, cond));  log_det = -sum(log_scale)

    Args:
        net: maps (batch, channels / 2, time) and ``cond`` to shift and log-scale, stacked: (batch, channels, time).
        limit: softly keep every log-scale within +-limit, as ``limit * tanh(log_scale / limit)``; None: no limit.

    Dinh et al., "Density estimation using Real NVP", 2017, arXiv:1605.08803.
    """

    def __init__(self, net: nn.Module, limit: float | None = None):
        super().__init__()
        self.net = net
        self.limit = limit

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_scale = self._standardise(x, cond)
        return z, -log_scale.sum(dim=(1, 2))

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_scale = self._standardise(x, cond)
        return z, torch.cat([torch.zeros_like(log_scale), -log_scale], dim=1)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_a, z_b = z.chunk(2, dim=1)
        shift, log_scale = self._amounts(z_a, cond)
        x_b = (z_b * torch.exp(log_scale) + shift).to(z.dtype)
        return torch.cat([z_a, x_b], dim=1), log_scale.sum(dim=(1, 2))

    def rewind(
        self, z: Tensor, cond: Tensor | None, grad_z: Tensor, grad_log_det: Tensor, grads: Grads
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As ever, but with the net computed once, its amounts serving the inverse and the gradient, and tile by tile."""
        time, half, (left, right) = z.shape[-1], z.shape[1] // 2, self.reach()
        x, grad_x, grad_cond = z.clone(), grad_z.clone(), None if cond is None else torch.zeros_like(cond)
        step = max(1, TILE // len(z))
        for start in range(0, time, step):
            # the tile with as much around it as its amounts depend on
            begin, stop, end = max(0, start - left), min(time, start + step), min(time, start + step + right)
            z_b, grad_z_b = z[:, half:, start:stop], grad_z[:, half:, start:stop]

            def amounts(
                x_a: Tensor, cond: Tensor | None, tile: slice = slice(start - begin, stop - begin)
            ) -> tuple[Tensor, ...]:
                return tuple(amount[..., tile] for amount in self._amounts(x_a, cond))

            def back(
                shift: Tensor, log_scale: Tensor, z_b: Tensor = z_b, grad_z_b: Tensor = grad_z_b,
                tile: tuple = (slice(None), slice(half, None), slice(start, stop)),
            ) -> tuple[Tensor, Tensor]:
                x[tile] = z_b * torch.exp(log_scale) + shift
                grad_x[tile] = grad_b = grad_z_b * torch.exp(-log_scale)
                return -grad_b, -(grad_z_b * z_b) - grad_log_det[:, None, None]

            given = None if cond is None else cond[..., begin:end]
            through, through_cond = self._pull_back(amounts, z[:, :half, begin:end], given, back, grads)
            grad_x[:, :half, begin:end] += through
            if through_cond is not None:
                grad_cond[..., begin:end] += through_cond
        return x, grad_x, grad_cond

    def _standardise(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """The result, and the log-scales of the half that is changed."""
        x_a, x_b = x.chunk(2, dim=1)
        shift, log_scale = self._amounts(x_a, cond)
        z_b = ((x_b - shift) * torch.exp(-log_scale)).to(x.dtype)
        return torch.cat([x_a, z_b], dim=1), log_scale

    def _amounts(self, x_a: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        shift, log_scale = wide(self.net(x_a, cond)).chunk(2, dim=1)
        if self.limit is not None:
            # limit * tanh(log_scale / limit), by the function that is faster on a CPU
            log_scale = 2 * self.limit * (torch.sigmoid(2 / self.limit * log_scale) - 0.5)
        return shift, log_scale

    def reach(self) -> Reach:
        return Reach(*self.net.reach())


class AdditiveCoupling(Transform):
    """Shift one half of the channels by amounts read off the other half.

    z_a = x_a;  z_b = x_b - shift(x_a, cond);  log_det = 0

    Args:
        net: maps (batch, channels / 2, time) and ``cond`` to the shift, (batch, channels / 2, time).

    Dinh, Krueger, Bengio, "NICE: non-linear independent components estimation", 2014, arXiv:1410.8516.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_a, x_b = x.chunk(2, dim=1)
        return torch.cat([x_a, x_b - self.net(x_a, cond).to(x.dtype)], dim=1), no_log_det(x)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_a, z_b = z.chunk(2, dim=1)
        return torch.cat([z_a, z_b + self.net(z_a, cond).to(z.dtype)], dim=1), no_log_det(z)

    def reach(self) -> Reach:
        return Reach(*self.net.reach())


class ConditionalScale(Transform):
    """Divide every channel by an amount read off the conditioning alone.

    z = x * exp(-log_scale(cond));  log_det = -sum(log_scale)

    Args:
        net: maps ``cond``, on the time grid of ``x`` or up to a step longer, to log-scales (batch, channels, time).
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, nats = self.localised(x, cond)
        return z, nats.sum(dim=(1, 2))

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale(x, cond)
        return (x * torch.exp(-log_scale)).to(x.dtype), -log_scale

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale(z, cond)
        return (z * torch.exp(log_scale)).to(z.dtype), log_scale.sum(dim=(1, 2))

    def _log_scale(self, x: Tensor, cond: Tensor | None) -> Tensor:
        return wide(self.net(cond))[..., : x.shape[-1]]
