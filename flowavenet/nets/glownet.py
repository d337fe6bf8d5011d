"""The nets inside a WaveGlow coupling: dilated convolutions at the rate of samples, or separable ones at that of frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from flowavenet.nets.fastglow import FastGlowNet, FastSeparableNet
from flowavenet.nets.framenet import FrameConv, Pointwise, total_reach
from flowavenet.nets.wavenet import TimeConv


class GlowNet(nn.Module):
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

    Shapes: x (batch, in_channels, time), cond (batch, cond_channels, time) -> (batch, out_channels, time).
    Prenger, Valle, Catanzaro, "WaveGlow: a flow-based generative network for speech synthesis", 2018, arXiv:1811.00002.
    """

    def __init__(
        self, in_channels: int, out_channels: int, cond_channels: int, *, layers: int, width: int, kernel_size: int
    ):
        super().__init__()
        self.start = _mixed(in_channels, width)
        self.dilated = nn.ModuleList(TimeConv(width, 2 * width, kernel_size, 2**i, False) for i in range(layers))
        self.conditioning = _mixed(cond_channels, 2 * width * layers)
        self.onward = nn.ModuleList(_mixed(width, 2 * width if i + 1 < layers else width) for i in range(layers))
        self.end = _end(width, out_channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        h, skips = self.start(x), 0
        given = self.conditioning(cond).chunk(len(self.dilated), dim=1)
        for dilated, of_cond, onward in zip(self.dilated, given, self.onward, strict=True):
            filter, gate = (dilated(h) + of_cond).chunk(2, dim=1)
            both = onward(torch.tanh(filter) * torch.sigmoid(gate))
            residual, skip = both.tensor_split([both.shape[1] - h.shape[1]], dim=1)
            skips = skips + skip
            if residual.shape[1]:
                h = h + residual
        return self.end(skips)

    def fast(self, dtype: torch.dtype, order: Tensor | None = None) -> FastGlowNet:
        """The same net, laid out for synthesis."""
        return FastGlowNet(self, dtype, order)

    def reach(self) -> tuple[int, int]:
        """Steps to the left and to the right that one step of the result depends on."""
        return total_reach(self.dilated)


class SeparableNet(nn.Module):
    """The same task at a fraction of the work: neighbours are seen by each channel for itself.

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
        super().__init__()
        self.start = _mixed(in_channels, width)
        self.depthwise = nn.ModuleList(FrameConv(width, width, kernel_size, groups=width) for _ in range(layers))
        self.pointwise = nn.ModuleList(Pointwise(width, 2 * width) for _ in range(layers))
        self.conditioning = _mixed(cond_channels, 2 * width * layers)
        self.residual = nn.ModuleList(_mixed(width, width) for _ in range(layers))
        self.end = _end(width, out_channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        h = self.start(x)
        given = self.conditioning(cond).chunk(len(self.residual), dim=1)
        for depthwise, pointwise, of_cond, residual in zip(
            self.depthwise, self.pointwise, given, self.residual, strict=True
        ):
            filter, gate = (pointwise(depthwise(h)) + of_cond).chunk(2, dim=1)
            h = h + residual(torch.tanh(filter) * torch.sigmoid(gate))
        return self.end(h)

    def fast(self, dtype: torch.dtype) -> FastSeparableNet:
        """The same net, laid out for synthesis."""
        return FastSeparableNet(self, dtype)

    def reach(self) -> tuple[int, int]:
        """Steps to the left and to the right that one step of the result depends on."""
        return total_reach(self.depthwise)


def _mixed(in_channels: int, out_channels: int) -> nn.Conv1d:
    return weight_norm(nn.Conv1d(in_channels, out_channels, 1))


def _end(width: int, out_channels: int) -> nn.Conv1d:
    end = nn.Conv1d(width, out_channels, 1)
    nn.init.zeros_(end.weight)
    nn.init.zeros_(end.bias)
    return end
