"""The contract of every transform, and the ways to combine them: one after the other, backwards, and at another gain.

A transform is an invertible map of a signal that keeps its shape and its time order. ``forward`` goes from audio to noise,
``inverse`` from noise to audio; both return the result and how much they stretch space, told along time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Run = Callable[[Tensor, "Tensor | None"], "tuple[Tensor, Tensor]"]


class ReceptiveField(NamedTuple):
    """Count the samples to the left and to the right of a sample that its value depends on."""

    left: int
    right: int

    def __add__(self, other: tuple[int, int]) -> ReceptiveField:  # type: ignore[override]
        return ReceptiveField(self.left + other[0], self.right + other[1])

    def on_finer_grid(self, n: int) -> ReceptiveField:
        """Return the same field in samples, where one step of this grid is a group of ``n`` samples."""
        return ReceptiveField(self.left * n + n - 1, self.right * n + n - 1)


POINT = ReceptiveField(0, 0)


class State:
    """Hold what the recurrent transforms of a model remember of a stream, from one window of it to the next.

    A stream is synthesised window by window; windows overlap by the receptive field. What is recurrent cannot compute the
    overlap again, since that depends on all that came before. So it keeps its samples of the window that are final, and its
    own memory right after them; in the next window it begins with those samples and goes on from that memory.

    Attributes:
        first: position of the window in the stream, in steps of the grid at hand.
        final: number of the window's steps that are final; those after them lack context on the right.
        memory: what each transform keeps, by transform.
    """

    def __init__(self, memory: dict[nn.Module, Any] | None = None, first: int = 0, final: int = 0):
        self.memory: dict[nn.Module, Any] = {} if memory is None else memory
        self.first = first
        self.final = final

    def on_coarser_grid(self, n: int) -> State:
        """Return the same state for a transform whose steps are groups of ``n``; both share one memory."""
        return State(self.memory, self.first // n, self.final // n)


class Transform(nn.Module):
    """Map a signal ``x`` to an equally shaped ``z`` and back, given a conditioning signal. By itself, change nothing.

    Shapes: ``x``, ``z`` (batch, channels, time); ``cond`` (batch, time, cond channels), channels last, on the time grid of
    ``x`` or a coarser one, or None; ``log_det`` (batch, time) on the time grid of ``x``, in nats, of the direction just
    computed, float32 or wider. A map of single samples has its nats where they arise; one that mixes a group of samples
    shares its nats evenly over the group. The log-determinant of the whole map is the sum over time.

    Attributes:
        receptive_field: of the inverse: context that a window of ``z`` needs for its inner samples to equal those of the
            whole, given the :class:`State` of what came before if the transform is recurrent.
        forward_receptive_field: the same of the forward direction, which has no state.
    """

    def __init__(self, receptive_field: tuple[int, int] = POINT, forward_receptive_field: tuple[int, int] | None = None):
        super().__init__()
        self.receptive_field = ReceptiveField(*receptive_field)
        self.forward_receptive_field = ReceptiveField(*(forward_receptive_field or receptive_field))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map audio to noise: return ``(z, log|det dz/dx|)``."""
        return x, zero_log_det(x)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        """Map noise to audio: return ``(x, log|det dx/dz|)``; bring ``state`` up to date if the map is recurrent."""
        return z, zero_log_det(z)


class Chain(Transform):
    """Apply several transforms, one after the other.

    z = t_n(... t_2(t_1(x)));  the log-dets add.
    """

    def __init__(self, *transforms: Transform):
        super().__init__(
            sum((transform.receptive_field for transform in transforms), POINT),
            sum((transform.forward_receptive_field for transform in transforms), POINT),
        )
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = zero_log_det(x)
        for transform in self.transforms:
            x, log_det = transform(x, cond)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        total = zero_log_det(z)
        for transform in reversed(self.transforms):
            z, log_det = transform.inverse(z, cond, state)
            total = total + log_det
        return z, total


class Inverse(Transform):
    """Use a transform in the other direction.

    What it does forward must not be recurrent: this has no state to hand on.
    """

    def __init__(self, transform: Transform):
        super().__init__(transform.forward_receptive_field, transform.receptive_field)
        self.transform = transform

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, cond)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(z, cond)


class Scaled(Transform):
    """Run the inner transform on a louder signal: nets learn best from numbers around one, and speech is far quieter.

    z = inner(gain * x);  log_det = that of inner + log(gain) for each sample
    """

    def __init__(self, gain: float, inner: Transform):
        super().__init__(inner.receptive_field, inner.forward_receptive_field)
        self.gain = gain
        self.inner = inner

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.inner(self.gain * x, cond)
        return z, log_det + x.shape[1] * math.log(self.gain)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.inner.inverse(z, cond, state)
        return x / self.gain, log_det - x.shape[1] * math.log(self.gain)


def exact(x: Tensor) -> torch.autocast:
    """Return a context without mixed precision: what multiplies the signal itself must not round it to 8 bits."""
    return torch.autocast(x.device.type, enabled=False)


def zero_log_det(x: Tensor) -> Tensor:
    """Return a log-det of zero for each time step: (batch, time), float32 or wider."""
    return x.new_zeros(x.shape[0], x.shape[-1], dtype=wide(x).dtype)


def wide(x: Tensor) -> Tensor:
    """Return ``x`` in float32 if it is half precision: sums over 10^5 samples need the digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
