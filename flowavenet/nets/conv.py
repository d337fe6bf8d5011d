"""Convolutions over time, channels-last, and the gate that follows them.

On a CPU the layout decides the cost: where the channels of one time step lie side by side, (batch, time, channels), oneDNN
convolves nearly twice as fast as where the time steps do. Such rows are at the same time a picture of height 1 in torch's
channels-last memory format, (batch, channels, 1, time), which two-dimensional convolutions take and give without a copy.
Inside, nets work on pictures: a convolution's result is then no view, and to change it in place costs a gradient nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet.nets import winograd

FEW = 1000
"""Rows below which a pointwise convolution in half precision runs faster as a matrix product, on CPUs with bfloat16."""
MANY = 8192
"""Input channels from which oneDNN takes three times as long for a pointwise convolution as a matrix product (AVX2)."""


class TimeConv(nn.Conv1d):
    """Convolve over time, as many steps out as in: centred, or causal, so that no result depends on a later step.

    out[t] = bias + sum_i weight[:, :, i] @ x[t + (i - taps before) * dilation], zeros beyond the ends

    The weight has the shape of ``torch.nn.Conv1d``'s, (out_channels, in_channels / groups, kernel_size); in memory its input
    channels lie side by side, so that nothing is moved when it is used. Loading a state dict keeps that order.

    Args:
        in_channels, out_channels: sizes of the last dimension of the input and of the result.
        kernel_size: taps, odd unless causal.
        dilation: steps between taps.
        groups: as in ``torch.nn.Conv1d``.
        causal: all taps but the last lie in the past.

    Shapes: rows (batch, time, in_channels) -> (batch, time, out_channels); or pictures of them, see :func:`picture`:
    (batch, in_channels, 1, time) -> (batch, out_channels, 1, time).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, *, dilation: int = 1, groups: int = 1,
        causal: bool = False,
    ):
        if not causal and kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; a centred convolution needs an odd one, or causal: true")
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation, groups=groups)
        self.weight = nn.Parameter(channels_last(self.weight.detach()))
        span = (kernel_size - 1) * dilation
        self.receptive_field = (span, 0) if causal else (span // 2, span // 2)
        self.pointwise = kernel_size == groups == 1
        self.causal = causal
        self._padding, self._dilation = (0, self.receptive_field[1]), (1, dilation)    # of the picture

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 3:
            return rows(self(picture(x)))
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return what the convolution of a picture would be with another weight and bias."""
        if self.pointwise and _as_product(x, weight):
            return picture(F.linear(rows(x), weight.squeeze(2), bias))
        if winograd.pays(x, weight):
            return picture(winograd.convolve(rows(x), weight, bias, self.receptive_field[0], self._dilation[1]))
        if self.causal:
            x = F.pad(x, self.receptive_field)
        return torch.conv2d(x, weight.unsqueeze(2), bias, 1, self._padding, self._dilation, self.groups)


def picture(x: Tensor) -> Tensor:
    """View rows (batch, time, channels) as (batch, channels, 1, time)."""
    return x.transpose(1, 2).unsqueeze(2)


def rows(x: Tensor) -> Tensor:
    """View a picture (batch, channels, 1, time) as (batch, time, channels)."""
    return x.squeeze(2).transpose(1, 2)


def _as_product(x: Tensor, weight: Tensor) -> bool:
    """Say whether a matrix product is the faster way to a pointwise convolution."""
    if x.is_cpu:
        if x.dtype.itemsize == 2:
            return x.shape[3] < FEW
        several = torch.compiler.is_compiling() or torch.get_num_threads() > 1
        if weight.shape[1] < MANY and several:                         # in float32 oneDNN is faster, where torch uses it
            return False
    return not torch.is_grad_enabled()                                 # a product is a view, see above


def zero_conv(in_channels: int, out_channels: int) -> TimeConv:
    """Return a pointwise convolution that starts at zero, so that a coupling starts as the identity."""
    conv = TimeConv(in_channels, out_channels)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def channels_last(weight: Tensor) -> Tensor:
    """Return the weight of a convolution, (out, in, taps) or (out, in, height, width), with ``in`` innermost in memory."""
    return weight.movedim(1, -1).contiguous().movedim(-1, 1)


def gate(both: Tensor) -> Tensor:
    """Return tanh(filter) * sigmoid(gate) of a picture ``both`` whose channels hold one after the other.

    ``both`` is overwritten. Sigmoid is several times faster on a CPU than tanh:

    tanh(f) s = (1 - 2 sigmoid(-2 f)) s = s - 2 sigmoid(-2 f) s
    """
    both.narrow(1, 0, both.shape[1] // 2).mul_(-2)
    filter, gate = both.sigmoid_().chunk(2, dim=1)
    return torch.addcmul(gate, filter, gate, value=-2)


def total_receptive_field(layers: Iterable[nn.Module]) -> tuple[int, int]:
    """Return the steps before and after a step that it depends on through ``layers``, one after the other."""
    sides = [layer.receptive_field for layer in layers]
    return sum(left for left, _ in sides), sum(right for _, right in sides)
