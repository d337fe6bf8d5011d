"""The contract of every transform, and the two ways to combine them: one after the other, and backwards.

A transform is an invertible map of a signal that keeps its shape and its time order. ``forward`` goes from audio
to noise, ``inverse`` from noise to audio; both return the result and the logarithm of how much they stretch space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

Grads = dict[nn.Parameter, Tensor]
Run = Callable[[Tensor, "Tensor | None"], "tuple[Tensor, Tensor]"]


class Reach(NamedTuple):
    """How many samples to the left and to the right of a sample its value can depend on; infinite where all do."""

    left: int | float
    right: int | float

    def __add__(self, other: tuple[int, int]) -> Reach:  # type: ignore[override]
        return Reach(self.left + other[0], self.right + other[1])

    def on_finer_grid(self, n: int) -> Reach:
        """The same reach counted in samples when one step of this grid is a group of ``n`` samples."""
        return Reach(self.left * n + n - 1, self.right * n + n - 1)


class Transform(nn.Module):
    """An invertible map between a signal ``x`` and an equally shaped ``z``, given a conditioning signal.

    Shapes: ``x``, ``z`` (batch, channels, time); ``cond`` (batch, cond channels, time), on the time grid of ``x`` or
    a coarser one, or None; ``log_det`` (batch,), in nats, of the direction just computed, float32 or wider.
    """

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Audio to noise: ``(z, log|det dz/dx|)``."""
        return x, no_log_det(x)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to audio: ``(x, log|det dx/dz|)``."""
        return z, no_log_det(z)

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """:meth:`forward`, with the log-det told element by element: ``(z, nats)``, both of the shape of ``x``.

        The nats add up to the log-det. A map of one element counts where that element is, also within couplings; one that
        mixes elements, such as a matrix over the channels, is divided evenly among them.
        """
        z, log_det = self(x, cond)
        return z, (log_det / x[0].numel())[:, None, None].expand(x.shape)

    def rewind(
        self, z: Tensor, cond: Tensor | None, grad_z: Tensor, grad_log_det: Tensor, grads: Grads
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """From the result of ``forward`` and the gradients of a loss there to its input and the gradients there.

        For :mod:`~flowavenet.transforms.reversible`. Views and chains hand this on to what is inside.

        Args:
            z: what ``forward`` returned.
            cond: what it was given.
            grad_z, grad_log_det: gradients of the loss.
            grads: gradients of the weights are added to it.

        Returns:
            ``x``, the gradient of the loss by ``x``, and that by ``cond``, None for none.
        """
        with torch.no_grad():
            x, _ = self.inverse(z, cond)
        grad_x, grad_cond = self._pull_back(self, x, cond, lambda *_: (grad_z, grad_log_det), grads)
        return x, grad_x, grad_cond

    def _pull_back(
        self, run: Run, x: Tensor, cond: Tensor | None, grads_there: Callable[..., tuple[Tensor, Tensor]], grads: Grads
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients by ``x`` and ``cond`` of a loss whose gradients by the two results of ``run(x, cond)`` are
        ``grads_there(*results)``; those by the weights are added to ``grads``."""
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            cond = None if cond is None else cond.detach().requires_grad_()
            results = run(x, cond)
        with torch.no_grad():
            pairs = zip(results, grads_there(*results), strict=True)
        results, there = zip(*(pair for pair in pairs if pair[0].requires_grad), strict=True)
        wanted = [x, *([] if cond is None else [cond]), *weights]
        found = iter(torch.autograd.grad(results, wanted, there, allow_unused=True))
        grad_x, grad_cond = next(found), None if cond is None else next(found)
        for weight, grad in zip(weights, found, strict=True):
            if grad is not None:
                grads[weight] = grads[weight] + grad if weight in grads else grad
        return torch.zeros_like(x) if grad_x is None else grad_x, grad_cond

    def reach(self) -> Reach:
        """Samples of context that one sample of the inverse needs, either side, on this transform's time grid."""
        return Reach(0, 0)

    def forward_reach(self) -> Reach:
        """The same, of the forward direction."""
        return self.reach()


class Chain(Transform):
    """Several transforms, one after the other.

    z = t_n(... t_2(t_1(x)));  the log-dets add.
    """

    def __init__(self, *transforms: Transform):
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = no_log_det(x)
        for transform in self.transforms:
            x, log_det = transform(x, cond)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = no_log_det(z)
        for transform in reversed(self.transforms):
            z, log_det = transform.inverse(z, cond)
            total = total + log_det
        return z, total

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = torch.zeros_like(wide(x))
        for transform in self.transforms:
            x, nats = transform.localised(x, cond)
            total = total + nats
        return x, total

    def rewind(
        self, z: Tensor, cond: Tensor | None, grad_z: Tensor, grad_log_det: Tensor, grads: Grads
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        total = None
        for transform in reversed(self.transforms):
            z, grad_z, grad_cond = transform.rewind(z, cond, grad_z, grad_log_det, grads)
            total = total if grad_cond is None else grad_cond if total is None else total + grad_cond
        return z, grad_z, total

    def reach(self) -> Reach:
        return sum((transform.reach() for transform in self.transforms), Reach(0, 0))

    def forward_reach(self) -> Reach:
        return sum((transform.forward_reach() for transform in self.transforms), Reach(0, 0))


class Inverse(Transform):
    """The same transform, used in the other direction."""

    def __init__(self, transform: Transform):
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, cond)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(z, cond)

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = self(x, cond)[0]
        return z, -self.transform.localised(z, cond)[1]

    def reach(self) -> Reach:
        return self.transform.forward_reach()

    def forward_reach(self) -> Reach:
        return self.transform.reach()


class Scaled(Transform):
    """Run the inner transform on a signal so many times as loud: nets learn best from numbers around one, and speech is far
    quieter.

    z = inner(gain * x);  log_det = that of inner + log(gain) for each sample
    """

    def __init__(self, gain: float, inner: Transform):
        super().__init__()
        self.gain = gain
        self.inner = inner

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.inner(self.gain * x, cond)
        return z, log_det + math.log(self.gain) * x[0].numel()

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.inner.inverse(z, cond)
        return x / self.gain, log_det - math.log(self.gain) * x[0].numel()

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, nats = self.inner.localised(self.gain * x, cond)
        return z, nats + math.log(self.gain)

    def reach(self) -> Reach:
        return self.inner.reach()


def weight_state(weight: Tensor) -> tuple:
    """Changes when an optimizer, a copy or a move to another device changes the weight. What inference mode made has no
    version, and is not trained."""
    return None if weight.is_inference() else weight._version, weight.data_ptr(), weight.dtype


def exact(x: Tensor) -> torch.autocast:
    """A context in which mixed precision is off: what multiplies the signal itself must not round it to 8 bits."""
    return torch.autocast(x.device.type, enabled=False)


def no_log_det(x: Tensor) -> Tensor:
    """A log-det of zero for each item of the batch, in float32 or wider."""
    return x.new_zeros(x.shape[0], dtype=wide(x).dtype)


def wide(x: Tensor) -> Tensor:
    """``x`` in float32 if it is half precision: sums over 10^5 samples need the digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
