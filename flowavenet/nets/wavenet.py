"""The net of WaveNet and of FloWaveNet's couplings: dilated convolutions with gates, residuals and skips."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from flowavenet.nets.base import Net
from flowavenet.nets.conv import TimeConv, gate, picture, rows, total_receptive_field, zero_conv
from flowavenet.nets.steps import WaveNetSteps


class WaveNet(Net):
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

    Shapes: x (batch, time, in_channels), cond (batch, time, cond_channels) -> (batch, time, out_channels).
    van den Oord et al., "WaveNet", 2016, arXiv:1609.03499; Kim et al., "FloWaveNet", 2019, arXiv:1811.02155.
    """

    def __init__(
        self, in_channels: int, out_channels: int, cond_channels: int, *, layers: int = 2, stacks: int = 1, width: int = 256,
        gate_width: int | None = None, skip_width: int | None = None, kernel_size: int = 3, front_size: int | None = None,
        dilation_base: int = 2, causal: bool = False,
    ):
        gates, skips = gate_width or width, skip_width or width
        dilations = [dilation_base**layer for layer in range(layers)] * stacks
        front = TimeConv(in_channels, width, front_size or kernel_size, causal=causal)
        dilated = [TimeConv(width, 2 * gates, kernel_size, dilation=d, causal=causal) for d in dilations]
        super().__init__(total_receptive_field([front, *dilated]))
        self.causal = causal
        self.front = normed_conv(front)
        self.dilated = nn.ModuleList(map(normed_conv, dilated))
        self.conditioning = nn.ModuleList(weight_norm(TimeConv(cond_channels, 2 * gates)) for _ in dilations)
        self.residual = nn.ModuleList(weight_norm(TimeConv(gates, width)) for _ in dilations[1:])
        self.skip = nn.ModuleList(weight_norm(TimeConv(gates, skips)) for _ in dilations)
        self.post = weight_norm(TimeConv(skips, skips))
        self.last = zero_conv(skips, out_channels)
        self.scale = nn.Parameter(torch.zeros(1, out_channels, 1))

    def tile(self, x: Tensor, cond: Tensor) -> Tensor:
        x, cond = (picture(a.to(self.last.bias.dtype)) for a in (x, cond))
        h, skips = self.front(x).relu_(), None
        for i, (dilated, conditioning, skip) in enumerate(zip(self.dilated, self.conditioning, self.skip, strict=True)):
            gated = gate(dilated(h).add_(conditioning(cond)))
            skips = skip(gated) if skips is None else skips.add_(skip(gated))
            if i < len(self.residual):
                h = self.residual[i](gated).add_(h).mul_(math.sqrt(0.5))
        return rows(self.last(self.post(skips.relu_()).relu_())) * torch.exp(3 * self.scale[0, :, 0])

    def steps(self) -> WaveNetSteps:
        """Return the same net, evaluated one time step after the other; it must be causal."""
        return WaveNetSteps(self)


def normed_conv(conv: TimeConv) -> nn.Sequential:
    """Return a convolution with weight norm, as a child ``conv``: where the published WaveNets have theirs."""
    return nn.Sequential(OrderedDict(conv=weight_norm(conv)))
