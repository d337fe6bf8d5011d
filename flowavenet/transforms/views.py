"""Views: transforms that say where an inner transform acts, and put everything back afterwards.

Because what comes out has the shape and the time order of what went in, nobody outside a view needs to know of it:
models stay chains, the conditioning is never re-squeezed by callers, and the latent is a waveform of noise.

Any length is allowed. Samples at the end that do not fill a group of ``n`` pass through untouched, so the map stays a
bijection of exactly the samples given.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowavenet.transforms.base import Grads, Reach, Run, Transform, exact, no_log_det


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


class Lapped(Folded):
    """Run the inner transform on the coefficients of an orthonormal lapped transform (MDCT): ``n`` bands, hop ``n``.

    A fold by ``n`` that also turns each group of samples into frequencies: channel ``k`` is the band around
    ``(k + 1/2) / n`` of half the sample rate, and neighbouring groups overlap by half, so that the bands join without
    clicks. The change of basis is orthonormal: its log-det is zero and white noise stays white noise.

    Each boundary between two groups rotates the samples mirrored about it, ``a`` before and ``c`` after, by an angle
    that the window gives, and each group is then taken to frequencies by an orthonormal DCT-IV:

        a' = cos(w) a - sin(w) c;   c' = cos(w) c + sin(w) a;   X = D x',  D[k, m] = sqrt(2/n) cos(pi/n (k+1/2)(m+1/2))

    Nothing is rotated across the two ends, so the transform is orthonormal on every finite length.

    Args:
        n: bands, even; also the hop in samples.
        inner: a transform of ``(batch, channels * n, time / n)``, channel-major as in :class:`Folded`.
        window: ``sine``, or ``kbd`` (Kaiser-Bessel derived, alpha 4): less leakage far off, more nearby.

    Princen, Johnson, Bradley, "Subband/transform coding using filter bank designs based on time domain aliasing
    cancellation", ICASSP 1987; Malvar, "Signal Processing with Lapped Transforms", 1992 (the factorisation).
    """

    def __init__(self, n: int, inner: Transform, window: str = "sine"):
        if n < 2 or n % 2:
            raise ValueError(f"a lapped transform needs an even number of bands, got {n}")
        super().__init__(n, inner)
        position = torch.arange(n, dtype=torch.float64) + 0.5
        dct = math.sqrt(2 / n) * torch.cos(math.pi / n * position[:, None] * position[None, :])
        # the window's value j + 1/2 samples after a boundary is cos(angle[j]), before it sin(angle[j])
        angle = torch.acos(_rising(window, n)[n // 2 :])
        # Kept in float64 whatever the model is cast to: rounding them would cost orthonormality.
        self._constants = dct, torch.cos(angle), torch.sin(angle)

    def analyse(self, x: Tensor) -> Tensor:
        batch, channels, time = x.shape
        dct, cos, sin = self._as(x)
        left, right = self._halves(x)                                  # (batch, channels, steps, n / 2) each
        left, right = self._rotate(left, right, cos, sin)
        groups = torch.cat([left, right.flip(-1)], dim=-1)             # (batch, channels, steps, n)
        with exact(x):
            y = groups @ dct                                           # a DCT-IV is its own transpose
        return y.transpose(2, 3).reshape(batch, channels * self.n, time // self.n)

    def synthesise(self, y: Tensor) -> Tensor:
        batch, channels, steps = y.shape[0], y.shape[1] // self.n, y.shape[2]
        dct, cos, sin = self._as(y)
        with exact(y):
            groups = y.reshape(batch, channels, self.n, steps).transpose(2, 3) @ dct
        left, right = self._halves(groups.reshape(batch, channels, steps * self.n))
        left, right = self._rotate(left, right, cos, -sin)
        return torch.cat([left, right.flip(-1)], dim=-1).reshape(batch, channels, steps * self.n)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first half of each group, and the second half mirrored, so that both count away from a boundary."""
        groups = x.reshape(*x.shape[:2], -1, self.n)
        return groups[..., : self.n // 2], groups[..., self.n // 2 :].flip(-1)

    @staticmethod
    def _rotate(left: Tensor, right: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        before, after = right[:, :, :-1], left[:, :, 1:]               # either side of each inner boundary
        turned_after = cos * after + sin * before
        turned_before = cos * before - sin * after
        return (
            torch.cat([left[:, :, :1], turned_after], dim=2),
            torch.cat([turned_before, right[:, :, -1:]], dim=2),
        )

    def _as(self, x: Tensor) -> list[Tensor]:
        return [constant.to(x) for constant in self._constants]

    def reach(self) -> Reach:
        # a sample hears its own group and one neighbour, on the way in and on the way out
        return (self.inner.reach() + (2, 2)).on_finer_grid(self.n)


def _rising(window: str, n: int) -> Tensor:
    """The rising half (n,) of a window of 2n samples whose squares, n samples apart, add to one."""
    if window == "sine":
        return torch.sin(math.pi / (2 * n) * (torch.arange(n, dtype=torch.float64) + 0.5))
    if window == "kbd":
        kaiser = torch.kaiser_window(n + 1, periodic=False, beta=4 * math.pi, dtype=torch.float64)
        return torch.sqrt(kaiser.cumsum(0)[:n] / kaiser.sum())
    raise ValueError(f"window {window!r} is not known; choose one of: sine, kbd")


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
