"""The view between frames of MDCT coefficients and a few real signals, one for each band of the spectrum."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from flowavenet.transforms.base import ReceptiveField, Run, State, Transform
from flowavenet.transforms.mdct import MDCT


class Subbands(Transform):
    """Run the inner transform on ``n`` real signals, each a band of the spectrum at ``1 / n`` of the sample rate.

    The ``n * bins`` MDCT coefficients of a frame are cut into ``n`` groups of neighbours. An inverse MDCT of ``bins`` bands
    turns the groups of all frames into one signal: channel ``k`` holds the frequencies from ``k / n`` to ``(k + 1) / n`` of
    half the sample rate, ``bins`` samples a frame. Both maps are orthonormal, so the log-det is that of the inner transform.

    The conditioning, one column a frame, is handed on: for the inner transform it is on a coarser grid. The nats of a frame
    are the sum over its ``bins`` samples.

    Args:
        n: number of signals.
        bins: coefficients of one group, even; also the samples of each signal in a frame.
        inner: a transform of ``(batch, n, frames * bins)``.

    Shape: (batch, n * bins, frames), as from ``MDCT(n * bins, ...)``.
    Princen, Johnson, Bradley, "Subband/transform coding using filter bank designs based on time domain aliasing
    cancellation", ICASSP 1987.
    """

    def __init__(self, n: int, bins: int, inner: Transform):
        fields = [
            ReceptiveField(*(-(-side // bins) + 2 for side in field))  # and a neighbour on the way in and on the way out
            for field in (inner.receptive_field, inner.forward_receptive_field)
        ]
        super().__init__(*fields)
        self.n = n
        self.bins = bins
        self.inner = inner
        self._mdct = MDCT(bins, Transform())

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._around(self.inner, x, cond)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        finer = state and State(state.memory, state.first * self.bins, state.final * self.bins)
        return self._around(partial(self.inner.inverse, state=finer), z, cond)

    def _around(self, run: Run, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        if x.shape[1] != self.n * self.bins:
            raise ValueError(f"{x.shape[1]} coefficients are not {self.n} signals of {self.bins} bins each")
        y, log_det = run(self._mdct.synthesise(x), cond)
        return self._mdct.analyse(y), log_det.unflatten(-1, (-1, self.bins)).sum(dim=-1)
