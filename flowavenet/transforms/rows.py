"""Rows: a signal folded into a picture is changed row by row, each by amounts read off the rows above it.

Between the samples of a waveform one after the other (:mod:`~flowavenet.transforms.autoregressive`) and one half given
the other (:mod:`~flowavenet.transforms.coupling`): forward all rows at once, inverse as many steps as there are rows, each
for all columns at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowavenet.transforms.base import Grads, Reach, Run, Transform, wide


class RowAutoregressive(Transform):
    """Scale and shift each channel by amounts read off the channels before it.

    z_0 = x_0;  z_r = x_r * exp(log_scale_r) + shift_r  for r >= 1;  log_det = sum(log_scale)
    shift_r, log_scale_r = net(x_0 ... x_{r-1}, cond)

    With :class:`~flowavenet.transforms.Folded` around it, a channel is a row of the picture: every ``net.rows``-th sample.

    Args:
        net: maps (batch, rows, time) and ``cond`` to the shifts and log-scales of all rows but the first, stacked:
            (batch, 2 * (rows - 1), time). Its ``steps(cond)`` gives the same for one row after the other, as in
            :class:`~flowavenet.nets.RowNet`.

    Ping, Peng, Zhao, Song, "WaveFlow: a compact flow-based model for raw audio", ICML 2020, arXiv:1912.01219.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, nats = self.localised(x, cond)
        return z, nats.sum(dim=(1, 2))

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, log_scale = wide(self.net(x, cond)).chunk(2, dim=1)
        z = x[:, 1:] * torch.exp(log_scale) + shift
        nats = torch.cat([torch.zeros_like(log_scale[:, :1]), log_scale], dim=1)
        return torch.cat([x[:, :1], z.to(x.dtype)], dim=1), nats

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, *others = z.split(1, dim=1)
        steps, rows, total = self.net.steps(cond), [first], 0
        for row in others:
            shift, log_scale = wide(steps(rows[-1])).chunk(2, dim=1)
            rows.append(((row - shift) * torch.exp(-log_scale)).to(z.dtype))
            total = total - log_scale.sum(dim=(1, 2))
        return torch.cat(rows, dim=1), total

    def reach(self) -> Reach:
        # each row reaches as far again around what the row above it has reached
        left, right = self.net.reach()
        return Reach(left * (self.net.rows - 1), right * (self.net.rows - 1))

    def forward_reach(self) -> Reach:
        return Reach(*self.net.reach())


class Reversed(Transform):
    """Run the inner transform on a signal whose groups of ``n`` samples each go backwards in time, then turn them back.

    A conditioning signal on the same time grid is turned as well; a coarser one is handed on. Samples at the end that
    fill no group stay.

    Args:
        n: samples per group.
        inner: any transform.
    """

    def __init__(self, n: int, inner: Transform):
        super().__init__()
        self.n = n
        self.inner = inner

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._around(self.inner, x, cond)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._around(self.inner.inverse, z, cond)

    def _around(self, run: Run, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_det = run(self._turned(x), self._bring(cond, x.shape[-1]))
        return self._turned(y), log_det

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, nats = self._around(self.inner.localised, x, cond)
        return z, self._turned(nats)

    def rewind(
        self, z: Tensor, cond: Tensor | None, grad_z: Tensor, grad_log_det: Tensor, grads: Grads
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        y, brought = self._turned(z), self._bring(cond, z.shape[-1])
        y, grad_y, grad_cond = self.inner.rewind(y, brought, self._turned(grad_z), grad_log_det, grads)
        return self._turned(y), self._turned(grad_y), self._bring(grad_cond, z.shape[-1])

    def _bring(self, cond: Tensor | None, time: int) -> Tensor | None:
        return self._turned(cond) if cond is not None and cond.shape[-1] == time else cond

    def _turned(self, x: Tensor) -> Tensor:
        whole = x.shape[-1] - x.shape[-1] % self.n
        turned = x[..., :whole].unflatten(-1, (-1, self.n)).flip(-1).flatten(-2)
        return turned if whole == x.shape[-1] else torch.cat([turned, x[..., whole:]], dim=-1)

    def reach(self) -> Reach:
        return self._around_groups(self.inner.reach())

    def forward_reach(self) -> Reach:
        return self._around_groups(self.inner.forward_reach())

    def _around_groups(self, inner: Reach) -> Reach:
        return Reach(*(math.ceil(side / self.n) for side in inner)).on_finer_grid(self.n)
