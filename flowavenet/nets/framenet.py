"""Nets at frame rate: what reads the mel, and what a coupling on spectral coefficients asks for its amounts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet.nets.fast import FastFrameNet


class FrameConv(nn.Conv1d):
    """A convolution over frames that keeps their number: centred, or causal, so that no result depends on a later frame.

    Args:
        kernel_size: frames that it sees, odd unless causal.
        groups: as in ``torch.nn.Conv1d``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, groups: int = 1, causal: bool = False):
        if not causal and kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; a centred convolution needs an odd one")
        super().__init__(in_channels, out_channels, kernel_size, padding=0 if causal else kernel_size // 2, groups=groups)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.reach()) if self.causal else x)

    def reach(self) -> tuple[int, int]:
        """Frames to the left and to the right that one frame of the result depends on."""
        side = self.padding[0]
        return (self.kernel_size[0] - 1, 0) if self.causal else (side, side)


class MelEncoder(nn.Module):
    """Read a mel spectrogram with some context, and bring it to the time grid of a coarser transform.

    h = conv(mel);  then for each further layer  h = h + conv(gelu(h));   cond = interpolate([mel, h])

    Args:
        n_mels: bands.
        width: learned features.
        layers: convolutions.
        kernel_size: frames that each one sees, odd unless causal.
        causal: look only backwards in time.

    Shape: mel (batch, n_mels, frames) to (batch, n_mels + width, steps); steps are spread evenly over the frames.
    """

    def __init__(self, n_mels: int, width: int, layers: int = 3, kernel_size: int = 5, causal: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(
            FrameConv(width if layer else n_mels, width, kernel_size, causal=causal) for layer in range(layers)
        )

    def forward(self, mel: Tensor, steps: int) -> Tensor:
        first, *further = self.layers
        h = first(mel)
        for layer in further:
            h = h + layer(F.gelu(h))
        cond = torch.cat([mel, h.to(mel.dtype)], dim=1)
        return cond if steps == mel.shape[-1] else F.interpolate(cond, size=steps, mode="linear")

    def reach(self) -> tuple[int, int]:
        """Frames before and after that one step depends on, where there are as many steps as frames; else one more."""
        return total_reach(self.layers)


class Pointwise(nn.Conv1d):
    """Mix the channels of each frame: a convolution of kernel size 1.

    In half precision it is computed as a matrix product, which on a CPU takes 0.5 to 0.7 of the time of a convolution; in
    float32 it is the other way round.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        half = self.weight.dtype.itemsize == 2 or torch.is_autocast_enabled(x.device.type)
        if not half:
            return super().forward(x)
        return torch.baddbmm(self.bias[None, :, None], self.weight[:, :, 0].expand(len(x), -1, -1), x)


class FrameNet(nn.Module):
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

    Shapes: x (batch, in_channels, time), cond (batch, cond_channels, time or one more) -> (batch, out_channels, time).
    """

    def __init__(
        self, in_channels: int, out_channels: int, cond_channels: int, *, layers: int, width: int, kernel_size: int,
        causal: bool = False,
    ):
        super().__init__()
        self.front = Pointwise(in_channels, width)
        self.conditioning = Pointwise(cond_channels, width)
        self.depthwise = nn.ModuleList(
            FrameConv(width, width, kernel_size, groups=width, causal=causal) for _ in range(layers)
        )
        self.pointwise = nn.ModuleList(Pointwise(width, 2 * width) for _ in range(layers))
        self.residual = nn.ModuleList(Pointwise(width, width) for _ in range(layers))
        self.last = Pointwise(width, out_channels)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        h = self.front(x) + self.conditioning(cond[..., : x.shape[-1]])
        for depthwise, pointwise, residual in zip(self.depthwise, self.pointwise, self.residual, strict=True):
            filter, gate = pointwise(depthwise(h)).chunk(2, dim=1)
            h = h + residual(torch.tanh(filter) * torch.sigmoid(gate))
        return self.last(F.relu(h))

    def fast(self, dtype: torch.dtype) -> FastFrameNet:
        """The same net, laid out for synthesis."""
        return FastFrameNet(self, dtype)

    def reach(self) -> tuple[int, int]:
        """Frames to the left and to the right that one frame of the result depends on."""
        return total_reach(self.depthwise)


def total_reach(layers: Iterable[FrameConv]) -> tuple[int, int]:
    """Frames before and after that one frame of the result of several layers depends on."""
    lefts, rights = zip(*(layer.reach() for layer in layers), strict=True)
    return sum(lefts), sum(rights)
