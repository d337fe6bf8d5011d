"""The view that takes a signal to frequencies: the MDCT, a lapped transform, as an orthonormal change of basis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flowavenet.transforms.base import Transform, exact
from flowavenet.transforms.views import Squeeze


class MDCT(Squeeze):
    """Run the inner transform on the coefficients of an orthonormal MDCT with ``n`` bands and hop ``n``.

    This is a squeeze by ``n`` that also turns each group of samples into frequencies: channel ``k`` is the band around
    ``(k + 1/2) / n`` of half the sample rate, and neighbouring groups overlap by half, so that the bands join without
    clicks. The change of basis is orthonormal: its log-det is zero and white noise stays white noise.

    Each boundary between two groups rotates the samples mirrored about it, ``a`` before and ``c`` after, by an angle
    that the window gives, and each group is then taken to frequencies by an orthonormal DCT-IV:

        a' = cos(w) a - sin(w) c;   c' = cos(w) c + sin(w) a;   X = D x',  D[k, m] = sqrt(2/n) cos(pi/n (k+1/2)(m+1/2))

    Nothing is rotated across the two ends, so the transform is orthonormal on every finite length.

    Args:
        n: bands, even; also the hop in samples.
        inner: a transform of ``(batch, channels * n, time / n)``, channel-major as in :class:`Squeeze`.
        window: ``sine``, or ``kbd`` (Kaiser-Bessel derived, alpha 4): less leakage far off, more nearby.

    Princen, Johnson, Bradley, "Subband/transform coding using filter bank designs based on time domain aliasing
    cancellation", ICASSP 1987; Malvar, "Signal Processing with Lapped Transforms", 1992 (the factorisation).
    """

    def __init__(self, n: int, inner: Transform, window: str = "sine"):
        if n < 2 or n % 2:
            raise ValueError(f"an MDCT needs an even number of bands, got {n}")
        # a sample hears its own group and one neighbour, on the way in and on the way out
        super().__init__(n, inner, overlap=2)
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
        """Split each group into its first half and its second half, mirrored, so that both count away from a boundary."""
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


def _rising(window: str, n: int) -> Tensor:
    """Return the rising half (n,) of a window of 2n samples whose squares, n samples apart, add to one."""
    if window == "sine":
        return torch.sin(math.pi / (2 * n) * (torch.arange(n, dtype=torch.float64) + 0.5))
    if window == "kbd":
        kaiser = torch.kaiser_window(n + 1, periodic=False, beta=4 * math.pi, dtype=torch.float64)
        return torch.sqrt(kaiser.cumsum(0)[:n] / kaiser.sum())
    raise ValueError(f"window {window!r} is not known; choose one of: sine, kbd")
