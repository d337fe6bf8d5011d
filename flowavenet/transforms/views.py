"""Views: transforms that say where an inner transform acts, and put everything back afterwards.

Because what comes out has the shape and the time order of what went in, nobody outside a view needs to know of it:
models stay chains, callers never squeeze the conditioning again, and the latent is a waveform of noise.

Any length is allowed. Samples at the end that do not fill a group of ``n`` pass through untouched, so the map stays a
bijection of exactly the samples given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet.transforms.base import ReceptiveField, Run, State, Transform, zero_log_det


def squeeze(x: Tensor, n: int) -> Tensor:
    """Trade time for channels: (batch, channels, time) to (batch, channels * n, time / n), channel-major.

    Sample ``n * t + phase`` of channel ``c`` becomes step ``t`` of channel ``c * n + phase``.

    >>> squeeze(torch.arange(6.0).reshape(1, 1, 6), 2)
    tensor([[[0., 2., 4.],
             [1., 3., 5.]]])
    """
    batch, channels, time = x.shape
    return x.reshape(batch, channels, time // n, n).transpose(2, 3).reshape(batch, channels * n, time // n)


def unsqueeze(x: Tensor, n: int) -> Tensor:
    """Undo :func:`squeeze`: (batch, channels * n, steps) to (batch, channels, steps * n)."""
    batch, channels, steps = x.shape
    return x.reshape(batch, channels // n, n, steps).transpose(2, 3).reshape(batch, channels // n, steps * n)


def squeeze_cond(cond: Tensor, n: int) -> Tensor:
    """Put ``n`` columns of a conditioning side by side: (..., time, channels) to (..., time / n, n * channels).

    Channel ``c`` of column ``n * t + phase`` becomes channel ``phase * channels + c`` of column ``t``. Nothing moves in
    memory, since the channels of a column lie together.
    """
    return cond.unflatten(-2, (-1, n)).flatten(-2)


def pool_cond(cond: Tensor, n: int) -> Tensor:
    """Average groups of ``n`` columns of a conditioning: (..., time, channels) to (..., time / n, channels)."""
    return cond.unflatten(-2, (-1, n)).mean(dim=-2)


class Squeeze(Transform):
    """Trade time for channels by ``n``, run the inner transform, trade back.

    A conditioning on the time grid of ``x`` is brought along; a coarser one is handed on. The nats of a group of ``n``
    samples are shared evenly among them.

    Args:
        n: samples per group.
        inner: a transform of ``(batch, channels * n, time / n)``.
        bring: maps the conditioning to the coarser grid: :func:`squeeze_cond`, as published, keeps every column of it;
            :func:`pool_cond` keeps the mean of each group, which for a signal as slow as a mel is nearly all.

    Shape: (batch, channels, time), any time.
    Dinh et al., "Density estimation using Real NVP", 2017, arXiv:1605.08803, section 3.6.
    """

    def __init__(self, n: int, inner: Transform, bring: Callable[[Tensor, int], Tensor] = squeeze_cond, overlap: int = 0):
        super().__init__(*(
            (field + (overlap, overlap)).on_finer_grid(n) for field in (inner.receptive_field, inner.forward_receptive_field)
        ))
        self.n = n
        self.inner = inner
        self.bring = bring

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._around(self.inner, x, cond)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        state = state and state.on_coarser_grid(self.n)
        return self._around(partial(self.inner.inverse, state=state), z, cond)

    def _around(self, run: Run, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        ragged = x.shape[-1] % self.n
        whole = x.shape[-1] - ragged
        if whole == 0:
            return x, zero_log_det(x)
        y, log_det = run(self.analyse(x[..., :whole]), self._brought(cond, x.shape[-1], whole))
        shared = (log_det / self.n).repeat_interleave(self.n, dim=-1)
        return torch.cat([self.synthesise(y), x[..., whole:]], dim=-1), F.pad(shared, (0, ragged))

    def _brought(self, cond: Tensor | None, time: int, whole: int) -> Tensor | None:
        if cond is None:
            return None
        if cond.shape[-2] == time:
            return self.bring(cond[..., :whole, :], self.n)
        return cond[..., : whole // self.n, :]                         # it may have a column for the ragged end

    def analyse(self, x: Tensor) -> Tensor:
        """Map (batch, channels, steps * n) to (batch, channels * n, steps), without changing volume."""
        return squeeze(x, self.n)

    def synthesise(self, y: Tensor) -> Tensor:
        """Undo :meth:`analyse`."""
        return unsqueeze(y, self.n)


class Interleave(Squeeze):
    """Squeeze into blocks of channels, one for each phase: the even frames, then the odd ones (``n`` = 2).

    So a coupling inside reads whole frames to change the whole frames between them, and ``FactorOut`` sends every ``n``-th
    frame on. Nested, this is the lifting scheme: sampling goes from coarse to fine in time.

    Sweldens, "The lifting scheme: a construction of second generation wavelets", 1998.
    """

    def analyse(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.n)).permute(0, 3, 1, 2).flatten(1, 2)

    def synthesise(self, y: Tensor) -> Tensor:
        return y.unflatten(1, (self.n, -1)).permute(0, 2, 3, 1).flatten(2)


class SwapHalves(Transform):
    """Exchange the two channel halves, run the inner transform, exchange back: "change order" in the papers."""

    def __init__(self, inner: Transform):
        super().__init__(inner.receptive_field, inner.forward_receptive_field)
        self.inner = inner

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.inner(_swap(x), cond)
        return _swap(z), log_det

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.inner.inverse(_swap(z), cond, state)
        return _swap(x), log_det


def _swap(x: Tensor) -> Tensor:
    return x.roll(x.shape[1] // 2, dims=1)


class FactorOut(Transform):
    """Let only some channels go on into the inner transform; the rest is already noise.

    The papers call it factor-out, early output or split. A coupling before it can make the rest noise given what goes on:
    that coupling is the learned prior of FloWaveNet.

    Args:
        inner: a transform of the channels that go on.
        channels: which channels go on: ``(first, last + 1)``.
    """

    def __init__(self, inner: Transform, channels: tuple[int, int]):
        super().__init__(inner.receptive_field, inner.forward_receptive_field)
        self.inner = inner
        self.channels = channels

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._around(self.inner, x, cond)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        return self._around(partial(self.inner.inverse, state=state), z, cond)

    def _around(self, run: Run, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        first, stop = self.channels
        y, log_det = run(x[:, first:stop], cond)
        return torch.cat([x[:, :first], y, x[:, stop:]], dim=1), log_det


class ReverseGroups(Transform):
    """Run the inner transform on a signal whose groups of ``n`` samples each go backwards in time, then turn them back.

    A conditioning on the same time grid is turned as well; a coarser one is handed on. Samples at the end that fill no
    group stay. What is inside must not be recurrent over time.

    Args:
        n: samples per group.
        inner: any transform.
    """

    def __init__(self, n: int, inner: Transform):
        super().__init__(*(
            ReceptiveField(*(math.ceil(side / n) for side in field)).on_finer_grid(n)
            for field in (inner.receptive_field, inner.forward_receptive_field)
        ))
        self.n = n
        self.inner = inner

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._around(self.inner, x, cond)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        return self._around(self.inner.inverse, z, cond)

    def _around(self, run: Run, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        if cond is not None and cond.shape[-2] == x.shape[-1]:
            cond = self._turned(cond, -2)
        y, log_det = run(self._turned(x), cond)
        return self._turned(y), self._turned(log_det)

    def _turned(self, x: Tensor, dim: int = -1) -> Tensor:
        whole = x.shape[dim] - x.shape[dim] % self.n
        groups, rest = x.split([whole, x.shape[dim] - whole], dim=dim)
        turned = groups.unflatten(dim, (-1, self.n)).flip(dim).flatten(dim - 1, dim)
        return torch.cat([turned, rest], dim=dim) if rest.shape[dim] else turned
