"""Nets at frame rate: what reads the mel, and what a coupling on spectral coefficients asks for shift and log-scale."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet.nets.base import Net
from flowavenet.nets.conv import TimeConv, gate, picture, rows, total_receptive_field, zero_conv


class MelEncoder(nn.Module):
    """Read a mel spectrogram with some context, and bring it to the time grid of a coarser transform.

    h = conv(mel);  then for each further layer  h = h + conv(gelu(h));   cond = interpolate([mel, h])

    Args:
        n_mels: bands.
        width: learned features.
        layers: convolutions.
        kernel_size: frames that each one sees, odd unless causal.
        causal: look only backwards in time.

    Attributes:
        receptive_field: frames before and after that one step depends on, where there are as many steps as frames; else
            one more.

    Shape: mel (batch, n_mels, frames) -> (batch, steps, n_mels + width); steps are spread evenly over the frames.
    """

    def __init__(self, n_mels: int, width: int, layers: int = 3, kernel_size: int = 5, causal: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(
            TimeConv(width if layer else n_mels, width, kernel_size, causal=causal) for layer in range(layers)
        )
        self.receptive_field = total_receptive_field(self.layers)

    def forward(self, mel: Tensor, steps: int) -> Tensor:
        first, *further = self.layers
        frames = mel.transpose(1, 2)
        h = first(picture(frames.to(first.weight.dtype)))
        for layer in further:
            h = layer(F.gelu(h)).add_(h)
        cond = torch.cat([frames, rows(h).to(mel.dtype)], dim=2)
        if steps != cond.shape[1]:
            cond = F.interpolate(cond.transpose(1, 2), size=steps, mode="linear").transpose(1, 2).contiguous()
        return cond


class FrameNet(Net):
    """Predict something about every frame from its neighbours and the conditioning, at little cost.

    h = front(x) + conditioning(cond);  then for each layer
        filter, gate = split(pointwise(depthwise(h)));   h = h + residual(tanh(filter) * sigmoid(gate))
    out = last(relu(h))

    Looking at neighbours costs one multiplication per channel and tap; mixing channels is left to 1x1 products. The last
    one starts at zero, so that a coupling starts as the identity.

    Args:
        in_channels, out_channels, cond_channels: sizes of ``x``, of the result and of ``cond``.
        layers: gated layers.
        width: channels inside.
        kernel_size: frames that a layer sees, odd unless causal.
        causal: look only backwards in time.

    Shapes: x (batch, time, in_channels), cond (batch, time or more, cond_channels) -> (batch, time, out_channels).
    """

    def __init__(
        self, in_channels: int, out_channels: int, cond_channels: int, *, layers: int, width: int, kernel_size: int,
        causal: bool = False,
    ):
        depthwise = [TimeConv(width, width, kernel_size, groups=width, causal=causal) for _ in range(layers)]
        super().__init__(total_receptive_field(depthwise))
        self.front = TimeConv(in_channels, width)
        self.conditioning = TimeConv(cond_channels, width)
        self.depthwise = nn.ModuleList(depthwise)
        self.pointwise = nn.ModuleList(TimeConv(width, 2 * width) for _ in range(layers))
        self.residual = nn.ModuleList(TimeConv(width, width) for _ in range(layers))
        self.last = zero_conv(width, out_channels)

    def tile(self, x: Tensor, cond: Tensor) -> Tensor:
        x, cond = (picture(a.to(self.last.bias.dtype)) for a in (x, cond))
        h = self.front(x).add_(self.conditioning(cond))
        for depthwise, pointwise, residual in zip(self.depthwise, self.pointwise, self.residual, strict=True):
            h = residual(gate(pointwise(depthwise(h)))).add_(h)
        return rows(self.last(h.relu_()))
