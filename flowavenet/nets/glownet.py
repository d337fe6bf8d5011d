"""The nets inside a WaveGlow coupling: dilated convolutions at the rate of samples, or separable ones at that of frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from flowavenet.nets.base import Net
from flowavenet.nets.conv import TimeConv, gate, picture, rows, total_receptive_field, zero_conv
from flowavenet.nets.wavenet import normed_conv


class GlowNet(Net):
    """Predict something about every time step from its neighbours and the conditioning, each layer seeing twice as far.

    h = start(x);  then for each layer
        filter, gate = split(dilated(h) + conditioning(cond));   g = tanh(filter) * sigmoid(gate)
        residual, skip = split(onward(g));   h = h + residual;   skips += skip
    out = end(skips)

    One convolution reads the conditioning for all layers. The last layer goes on to the skips only; the end starts at
    zero, so that a coupling starts as the identity.

    Args:
        in_channels, out_channels, cond_channels: sizes of ``x``, of the result and of ``cond``.
        layers: gated layers; layer ``i`` has dilation ``2 ** i``.
        width: channels inside.
        kernel_size: taps of the dilated convolutions, odd.

    Shapes: x (batch, time, in_channels), cond (batch, time, cond_channels) -> (batch, time, out_channels).
    Prenger, Valle, Catanzaro, "WaveGlow: a flow-based generative network for speech synthesis", 2018, arXiv:1811.00002.
    """

    def __init__(
        self, in_channels: int, out_channels: int, cond_channels: int, *, layers: int, width: int, kernel_size: int
    ):
        dilated = [TimeConv(width, 2 * width, kernel_size, dilation=2**i) for i in range(layers)]
        super().__init__(total_receptive_field(dilated))
        self.start = weight_norm(TimeConv(in_channels, width))
        self.dilated = nn.ModuleList(map(normed_conv, dilated))
        self.conditioning = weight_norm(TimeConv(cond_channels, 2 * width * layers))
        self.onward = nn.ModuleList(
            weight_norm(TimeConv(width, 2 * width if i + 1 < layers else width)) for i in range(layers)
        )
        self.end = zero_conv(width, out_channels)

    def tile(self, x: Tensor, cond: Tensor) -> Tensor:
        x, cond = (picture(a.to(self.end.bias.dtype)) for a in (x, cond))
        h, skips = self.start(x), None
        width, read = h.shape[1], self.conditioning
        given = _by_layer(read, len(self.dilated))
        for dilated, weight, bias, onward in zip(self.dilated, *given, self.onward, strict=True):
            both = onward(gate(dilated(h).add_(read.convolve(cond, weight, bias))))
            skip = both[:, -width:]
            skips = skip if skips is None else skips + skip
            if both.shape[1] > width:
                h = h + both[:, :width]
        return rows(self.end(skips))


class SeparableNet(Net):
    """Do the same at a fraction of the work: each channel sees its neighbours in time for itself.

    h = start(x);  then for each layer
        filter, gate = split(pointwise(depthwise(h)) + conditioning(cond));   h = h + residual(tanh(filter) * sigmoid(gate))
    out = end(h)

    Published with a batch normalisation before each depthwise convolution, in which the items of a batch meet; here there
    is none, and that of a published checkpoint is folded into the convolutions.

    Args and shapes: as for :class:`GlowNet`; no dilation.
    Zhai et al., "SqueezeWave: extremely lightweight vocoders for on-device speech synthesis", 2020, arXiv:2001.05685.
    """

    def __init__(
        self, in_channels: int, out_channels: int, cond_channels: int, *, layers: int, width: int, kernel_size: int
    ):
        depthwise = [TimeConv(width, width, kernel_size, groups=width) for _ in range(layers)]
        super().__init__(total_receptive_field(depthwise))
        self.start = weight_norm(TimeConv(in_channels, width))
        self.depthwise = nn.ModuleList(depthwise)
        self.pointwise = nn.ModuleList(TimeConv(width, 2 * width) for _ in range(layers))
        self.conditioning = weight_norm(TimeConv(cond_channels, 2 * width * layers))
        self.residual = nn.ModuleList(weight_norm(TimeConv(width, width)) for _ in range(layers))
        self.end = zero_conv(width, out_channels)

    def tile(self, x: Tensor, cond: Tensor) -> Tensor:
        x, cond = (picture(a.to(self.end.bias.dtype)) for a in (x, cond))
        h = self.start(x)
        for depthwise, pointwise, weight, bias, residual in zip(
            self.depthwise, self.pointwise, *_by_layer(self.conditioning, len(self.residual)), self.residual, strict=True
        ):
            # one product of what the depthwise convolution gives and of the conditioning
            weight, bias = torch.cat([pointwise.weight, weight], dim=1), pointwise.bias + bias
            both = pointwise.convolve(torch.cat([depthwise(h), cond], dim=1), weight, bias)
            h = residual(gate(both)).add_(h)
        return rows(self.end(h))


def _by_layer(conv: TimeConv, layers: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the weights and the biases that one convolution has for each layer."""
    return conv.weight.chunk(layers), conv.bias.chunk(layers)
