"""WaveGlow's nets laid out for synthesis, in rows and tiles as :mod:`~flowavenet.nets.fast` explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet.nets.fast import RowConv, Tiled, first_half_twice, half_gate

if TYPE_CHECKING:
    from flowavenet.nets.glownet import GlowNet, SeparableNet


class FastGlowNet(Tiled):
    """What a :class:`~flowavenet.nets.GlowNet` computes.

    Args and shapes: as for :class:`~flowavenet.nets.fast.FastWaveNet`.
    """

    def __init__(self, net: GlowNet, dtype: torch.dtype, order: Tensor | None = None):
        super().__init__(dtype, net.reach())
        convs, width = [dilated.conv for dilated in net.dilated], net.end.in_channels
        twice = first_half_twice(width, net.end.weight)
        order = torch.arange(net.conditioning.in_channels) if order is None else order
        given = net.conditioning.weight[:, order.argsort()].chunk(len(convs)), net.conditioning.bias.chunk(len(convs))
        self.start = net.start.weight[:, :, 0].to(dtype), net.start.bias.to(dtype)
        self.conditioning = [RowConv(weight * twice[:, None, None], None, 1, dtype) for weight in given[0]]
        self.dilated = [
            RowConv(conv.weight * twice[:, None, None], (conv.bias + bias) * twice, conv.dilation[0], dtype)
            for conv, bias in zip(convs, given[1], strict=True)
        ]
        self.onward = [RowConv(2 * conv.weight, conv.bias, 1, dtype) for conv in net.onward]
        self.end = net.end.weight[:, :, 0].to(dtype), net.end.bias.to(dtype)

    def _tile(self, x: Tensor, cond: Tensor) -> Tensor:
        h = F.linear(x.transpose(1, 2), *self.start)                   # (batch, time, width)
        width, skips = h.shape[2], 0
        for dilated, conditioning, onward in zip(self.dilated, self.conditioning, self.onward, strict=True):
            both = onward(half_gate(dilated(h).add_(conditioning(cond))))
            skips = both[..., -width:] + skips
            if both.shape[2] > width:
                h = both[..., :width] + h
        return F.linear(skips, *self.end)


class FastSeparableNet(Tiled):
    """What a :class:`~flowavenet.nets.SeparableNet` computes, and its shapes."""

    def __init__(self, net: SeparableNet, dtype: torch.dtype):
        super().__init__(dtype, net.reach())
        layers, twice = len(net.residual), first_half_twice(net.end.in_channels, net.end.weight)
        given = net.conditioning.weight.chunk(layers), net.conditioning.bias.chunk(layers)
        self.start = RowConv(net.start.weight, net.start.bias, 1, dtype)
        self.depthwise = [RowConv(conv.weight, conv.bias, 1, dtype, conv.groups) for conv in net.depthwise]
        self.gates = [                                                 # of what the depthwise gives, and the conditioning
            RowConv(torch.cat([conv.weight, weight], dim=1) * twice[:, None, None], (conv.bias + bias) * twice, 1, dtype)
            for conv, weight, bias in zip(net.pointwise, *given, strict=True)
        ]
        self.residual = [RowConv(2 * conv.weight, conv.bias, 1, dtype) for conv in net.residual]
        self.end = RowConv(net.end.weight, net.end.bias, 1, dtype)

    def _tile(self, x: Tensor, cond: Tensor) -> Tensor:
        h = self.start(x.transpose(1, 2))
        for depthwise, gates, residual in zip(self.depthwise, self.gates, self.residual, strict=True):
            h = h.add_(residual(half_gate(gates(torch.cat([depthwise(h), cond], dim=2)))))
        return self.end(h)
