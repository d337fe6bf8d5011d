"""The net of WaveNet and of FloWaveNet's couplings: dilated convolutions with gates, residuals and skips."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from flowavenet.nets.fast import FastWaveNet
from flowavenet.nets.steps import WaveNetSteps


class WaveNet(nn.Module):
    """Predict something about every time step from its neighbours and the conditioning.

    h = relu(front(x));  then for each layer
        filter, gate = split(dilated(h) + conditioning(cond));   g = tanh(filter) * sigmoid(gate)
        h = (h + residual(g)) / sqrt(2);   skips += skip(g)
    out = last(relu(post(relu(skips)))) * exp(3 * scale)

    The last convolution and its scale start at zero, so that a coupling starts as the identity. The last layer has no
    residual branch: nothing would read it.

    Args:
        in_channels, out_channels, cond_channels: sizes of ``x``, of the result and of ``cond``.
        layers: gated layers; layer ``i`` has dilation ``dilation_base ** i``.
        stacks: times that these layers come one after the other.
        width: channels of ``h``.
        gate_width: channels of ``filter`` and of ``gate`` each; None: as many.
        skip_width: channels of ``skips``; None: as many.
        kernel_size: taps of the dilated convolutions, odd unless causal.
        front_size: taps of the front; None: as many.
        causal: look only backwards in time.

    Shapes: x (batch, in_channels, time), cond (batch, cond_channels, time) -> (batch, out_channels, time).
    van den Oord et al., "WaveNet", 2016, arXiv:1609.03499; Kim et al., "FloWaveNet", 2019, arXiv:1811.02155.
    """

    def __init__(
        self, in_channels: int, out_channels: int, cond_channels: int, *, layers: int = 2, stacks: int = 1, width: int = 256,
        gate_width: int | None = None, skip_width: int | None = None, kernel_size: int = 3, front_size: int | None = None,
        dilation_base: int = 2, causal: bool = False,
    ):
        super().__init__()
        gates, skips = gate_width or width, skip_width or width
        dilations = [dilation_base**layer for layer in range(layers)] * stacks
        self.front = TimeConv(in_channels, width, front_size or kernel_size, 1, causal)
        self.dilated = nn.ModuleList(TimeConv(width, 2 * gates, kernel_size, d, causal) for d in dilations)
        self.conditioning = nn.ModuleList(weight_norm(nn.Conv1d(cond_channels, 2 * gates, 1)) for _ in dilations)
        self.residual = nn.ModuleList(weight_norm(nn.Conv1d(gates, width, 1)) for _ in dilations[1:])
        self.skip = nn.ModuleList(weight_norm(nn.Conv1d(gates, skips, 1)) for _ in dilations)
        self.post = weight_norm(nn.Conv1d(skips, skips, 1))
        self.last = nn.Conv1d(skips, out_channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.scale = nn.Parameter(torch.zeros(1, out_channels, 1))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        h = F.relu(self.front(x))                                      # (batch, width, time)
        skips = 0
        for i, (dilated, conditioning) in enumerate(zip(self.dilated, self.conditioning, strict=True)):
            filter, gate = (dilated(h) + conditioning(cond)).chunk(2, dim=1)
            gated = torch.tanh(filter) * torch.sigmoid(gate)
            skips = skips + self.skip[i](gated)
            if i < len(self.residual):
                h = (h + self.residual[i](gated)) * math.sqrt(0.5)
        return self.last(F.relu(self.post(F.relu(skips)))) * torch.exp(3 * self.scale)

    def fast(self, dtype: torch.dtype, order: Tensor | None = None) -> FastWaveNet:
        """The same net, laid out for synthesis."""
        return FastWaveNet(self, dtype, order)

    def steps(self) -> WaveNetSteps:
        """The same net, evaluated one time step after the other; it must be causal."""
        return WaveNetSteps(self)

    def reach(self) -> tuple[int, int]:
        """Steps to the left and to the right that one step of the result depends on."""
        reaches = [conv.reach() for conv in (self.front, *self.dilated)]
        return sum(left for left, _ in reaches), sum(right for _, right in reaches)


class TimeConv(nn.Module):
    """A weight-normalised convolution over time that keeps the length, centred or causal.

    Args:
        dilation: steps between taps.
        causal: pad on the left only, so that no result depends on a later input.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int, causal: bool):
        super().__init__()
        if not causal and kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; a centred convolution needs an odd one, or causal: true")
        self.span = (kernel_size - 1) * dilation
        self.causal = causal
        padding = 0 if causal else self.span // 2
        self.conv = weight_norm(nn.Conv1d(in_channels, out_channels, kernel_size, dilation=dilation, padding=padding))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.span, 0)) if self.causal else x)

    def reach(self) -> tuple[int, int]:
        return (self.span, 0) if self.causal else (self.span // 2, self.span // 2)


class CondHalf(nn.Module):
    """Let a net see only one half of the conditioning channels: with a mel, the lower or the upper bands.

    Args:
        net: called with ``(x, half of cond)``.
        half: 0 for the first half of the channels, 1 for the second.
    """

    def __init__(self, net: nn.Module, half: int):
        super().__init__()
        self.net = net
        self.half = half

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return self.net(x, cond.chunk(2, dim=1)[self.half])

    def reach(self) -> tuple[int, int]:
        """That of the net."""
        return self.net.reach()
