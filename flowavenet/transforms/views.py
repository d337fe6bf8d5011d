"""Views: transforms that say where an inner transform acts, and put everything back afterwards.

Because what comes out has the shape and the time order of what went in, nobody outside a view needs to know of it:
models stay chains, the conditioning is never re-squeezed by callers, and the latent is a waveform of noise.

Any length is allowed. Samples at the end that do not fill a group of ``n`` pass through untouched, so the map stays a
bijection of exactly the samples given.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet.transforms.base import Grads, Reach, Run, Transform, no_log_det, wide


def fold(x: Tensor, n: int) -> Tensor:
    """Trade time for channels: (batch, channels, time) to (batch, channels * n, time / n), channel-major.

    Sample ``n * t + phase`` of channel ``c`` becomes step ``t`` of channel ``c * n + phase``.

    >>> fold(torch.arange(6.0).reshape(1, 1, 6), 2)
    tensor([[[0., 2., 4.],
             [1., 3., 5.]]])
    """
    batch, channels, time = x.shape
    return x.reshape(batch, channels, time // n, n).transpose(2, 3).reshape(batch, channels * n, time // n)


def unfold(x: Tensor, n: int) -> Tensor:
    """Undo :func:`fold`: (batch, channels * n, steps) to (batch, channels, steps * n)."""
    batch, channels, steps = x.shape
    return x.reshape(batch, channels // n, n, steps).transpose(2, 3).reshape(batch, channels // n, steps * n)


def pool(x: Tensor, n: int) -> Tensor:
    """Average groups of ``n`` samples: (batch, channels, time) to (batch, channels, time / n)."""
    return x.unflatten(-1, (-1, n)).mean(dim=-1)


class Folded(Transform):
    """Trade time for channels by ``n``, run the inner transform, trade back. The papers call it squeeze.

    A conditioning signal on the same time grid as ``x`` is brought along; a coarser one is handed on.

    Args:
        n: samples per group.
        inner: a transform of ``(batch, channels * n, time / n)``.
        bring: how the conditioning follows: :func:`fold`, as published, keeps every sample of it; :func:`pool` keeps
            the mean of each group, which for a signal as slow as a mel is nearly all.

    Shape: (batch, channels, time), any time.
    Dinh et al., "Density estimation using Real NVP", 2017, arXiv:1605.08803, section 3.6.
    """

    def __init__(self, n: int, inner: Transform, bring: Callable[[Tensor, int], Tensor] = fold):
        super().__init__()
        self.n = n
        self.inner = inner
        self.bring = bring

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._around(self.inner, x, cond)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._around(self.inner.inverse, z, cond)

    def _around(self, run: Run, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        whole = x.shape[-1] - x.shape[-1] % self.n
        if whole == 0:
            return x, no_log_det(x)
        y, log_det = run(self.analyse(x[..., :whole]), self._bring(cond, x.shape[-1], whole))
        return torch.cat([self.synthesise(y), x[..., whole:]], dim=-1), log_det

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if x.shape[-1] < self.n:
            return super().localised(x, cond)
        z, nats = self._around(self.inner.localised, x, cond)
        return z, F.pad(self.place(nats), (0, x.shape[-1] % self.n))

    def _bring(self, cond: Tensor | None, time: int, whole: int) -> Tensor | None:
        if cond is None:
            return None
        if cond.shape[-1] == time:
            return self.bring(cond[..., :whole], self.n)
        return cond[..., : whole // self.n]                            # it may have a column for the ragged end

    def rewind(
        self, z: Tensor, cond: Tensor | None, grad_z: Tensor, grad_log_det: Tensor, grads: Grads
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        whole = z.shape[-1] - z.shape[-1] % self.n
        if whole == 0:
            return z, grad_z, None
        with torch.enable_grad():
            given = None if cond is None else cond.detach().requires_grad_()
            brought = self._bring(given, z.shape[-1], whole)
        # a fold, and every orthonormal change of basis, takes gradients as it takes signals
        y, grad_y, grad_brought = self.inner.rewind(
            self.analyse(z[..., :whole]), None if brought is None else brought.detach(), self.analyse(grad_z[..., :whole]),
            grad_log_det, grads,
        )
        grad_cond = None if grad_brought is None else torch.autograd.grad(brought, given, grad_brought)[0]
        x = torch.cat([self.synthesise(y), z[..., whole:]], dim=-1)
        return x, torch.cat([self.synthesise(grad_y), grad_z[..., whole:]], dim=-1), grad_cond

    def analyse(self, x: Tensor) -> Tensor:
        """(batch, channels, steps * n) to (batch, channels * n, steps), without changing volume."""
        return fold(x, self.n)

    def synthesise(self, y: Tensor) -> Tensor:
        """Undo :meth:`analyse`."""
        return unfold(y, self.n)

    def place(self, nats: Tensor) -> Tensor:
        """What each element of the inner transform counts, where in time that element is: as :meth:`synthesise`."""
        return self.synthesise(nats)

    def reach(self) -> Reach:
        return self.inner.reach().on_finer_grid(self.n)


class Interleaved(Folded):
    """A fold whose channels come in blocks, one for each phase: the even frames, then the odd ones (``n`` = 2).

    So a coupling inside reads whole frames to change the whole frames between them, and ``Kept`` sends every ``n``-th
    frame on. Nested, this is the lifting scheme: sampling goes from coarse to fine in time.

    Sweldens, "The lifting scheme: a construction of second generation wavelets", 1998.
    """

    def analyse(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.n)).permute(0, 3, 1, 2).flatten(1, 2)

    def synthesise(self, y: Tensor) -> Tensor:
        return y.unflatten(1, (self.n, -1)).permute(0, 2, 3, 1).flatten(2)


class Swapped(Transform):
    """Exchange the two channel halves, run the inner transform, exchange back. The papers call it change order."""

    def __init__(self, inner: Transform):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.inner(_swap(x), cond)
        return _swap(z), log_det

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.inner.inverse(_swap(z), cond)
        return _swap(x), log_det

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, nats = self.inner.localised(_swap(x), cond)
        return _swap(z), _swap(nats)

    def rewind(
        self, z: Tensor, cond: Tensor | None, grad_z: Tensor, grad_log_det: Tensor, grads: Grads
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        x, grad_x, grad_cond = self.inner.rewind(_swap(z), cond, _swap(grad_z), grad_log_det, grads)
        return _swap(x), _swap(grad_x), grad_cond

    def reach(self) -> Reach:
        return self.inner.reach()


def _swap(x: Tensor) -> Tensor:
    half = x.shape[1] // 2
    return x.roll(half, dims=1)


class Kept(Transform):
    """Only some channels go on into the inner transform; the rest is already noise.

    The papers call it factor-out, early output or split. Put a coupling before it to make the rest noise given what
    is kept: that coupling is the learned prior of FloWaveNet.

    Args:
        inner: a transform of the kept channels.
        channels: which channels go on: ``(first, last + 1)``.
    """

    def __init__(self, inner: Transform, channels: tuple[int, int]):
        super().__init__()
        self.inner = inner
        self.channels = channels

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._around(self.inner, x, cond)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._around(self.inner.inverse, z, cond)

    def _around(self, run: Run, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_det = run(x[:, slice(*self.channels)], cond)
        return self._replaced(x, y), log_det

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, nats = self._around(self.inner.localised, x, cond)
        return z, self._replaced(torch.zeros_like(wide(x)), nats)

    def rewind(
        self, z: Tensor, cond: Tensor | None, grad_z: Tensor, grad_log_det: Tensor, grads: Grads
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        part = slice(*self.channels)
        y, grad_y, grad_cond = self.inner.rewind(z[:, part], cond, grad_z[:, part], grad_log_det, grads)
        return self._replaced(z, y), self._replaced(grad_z, grad_y), grad_cond

    def _replaced(self, x: Tensor, part: Tensor) -> Tensor:
        first, stop = self.channels
        return torch.cat([x[:, :first], part, x[:, stop:]], dim=1)

    def reach(self) -> Reach:
        return self.inner.reach()
