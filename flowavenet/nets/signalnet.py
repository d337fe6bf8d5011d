"""Nets of the flagship: what reads the mel once a frame, and what reads waveforms several times a frame.

All are channels-last and built of one block: a depthwise convolution looks at neighbours, two matrix products mix channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flowavenet.nets.base import Net

TILE = 4096
"""Positions, over the batch, that a signal net computes at a time on a CPU, so that its activations stay in the cache."""


class Block(nn.Module):
    """Let every position look at its neighbours, then mix its channels; add that to what it was.

    x + down(silu(up(norm(depthwise(x)))));  norm is over the channels of one position

    Args:
        width: channels; twice as many inside.
        kernel_size: positions that are looked at, odd.
        dilation: positions between two that are looked at.

    Shape: (batch, time, width), kept; zeros beyond both ends.
    Liu et al., "A ConvNet for the 2020s", 2022, arXiv:2201.03545 (the order of the layers).
    """

    def __init__(self, width: int, kernel_size: int = 5, dilation: int = 1):
        super().__init__()
        self.depthwise = nn.Parameter(torch.empty(width, kernel_size).uniform_(-1, 1) / kernel_size**0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.dilation = dilation
        side = kernel_size // 2 * dilation
        self.receptive_field = (side, side)

    def forward(self, x: Tensor) -> Tensor:
        looked = depthwise(x, self.depthwise, self.bias, self.dilation)
        inner = self.up(self.norm(looked))
        if torch.is_grad_enabled():
            return x + self.down(F.silu(inner))
        return self.down(F.silu(inner, inplace=True)).add_(x)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """Convolve each channel of x (batch, time, channels) with its row of weight (channels, taps), centred; add the bias.

    On a CPU the gradient that torch has for this takes twenty times as long as the convolution. Training there calls
    :class:`_Depthwise`, whose gradient is the same convolution, mirrored, and a sum of products for each tap.
    """
    if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _Depthwise.apply(x, weight, dilation) + bias
    return _convolve(x, weight, dilation, bias)


def _convolve(x: Tensor, weight: Tensor, dilation: int, bias: Tensor | None = None) -> Tensor:
    side = weight.shape[1] // 2 * dilation
    picture = x.transpose(1, 2).unsqueeze(2)                           # channels last in memory, so nothing is moved
    kernel = weight.to(x.dtype)[:, None, None]
    return F.conv2d(picture, kernel, bias, 1, (0, side), (1, dilation), len(weight)).squeeze(2).transpose(1, 2)


class _Depthwise(torch.autograd.Function):
    """Compute :func:`_convolve` with a gradient that is as cheap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _convolve(x, weight, dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        grad, time, taps = grad.contiguous(), x.shape[1], weight.shape[1]
        of_taps = []
        for tap in range(taps):
            offset = (tap - taps // 2) * ctx.dilation                  # out[t] reads x[t + offset]
            read = x[:, max(0, offset) : max(0, time + min(0, offset))]
            made = grad[:, max(0, -offset) : max(0, time - max(0, offset))]
            of_taps.append((read * made).sum(dim=(0, 1)))
        return _convolve(grad, weight.flip(1), ctx.dilation), torch.stack(of_taps, dim=1).to(weight.dtype), None


class Neighbours(nn.Linear):
    """Multiply every position together with its neighbours by one matrix: a convolution as a matrix product.

    Args:
        in_channels, out_channels: sizes of the last dimension.
        kernel_size: positions side by side, odd; zeros beyond both ends.

    Shape: (batch, time, in_channels) -> (batch, time, out_channels).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__(in_channels * kernel_size, out_channels)
        self.kernel_size = kernel_size
        self.receptive_field = (kernel_size // 2, kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        padded, time = F.pad(x, (0, 0, *self.receptive_field)), x.shape[1]
        return super().forward(torch.cat([padded[:, i : i + time] for i in range(self.kernel_size)], dim=-1))


class FrameEncoder(nn.Module):
    """Read features off a mel spectrogram, with finite context.

    h = blocks(front((mel + 5) / 3))

    Args:
        n_mels: bands.
        width: features.
        layers: number of :class:`Block`.

    Attributes:
        receptive_field: frames before and after that a column depends on.

    Shape: (batch, frames, n_mels) -> (batch, frames, width).
    """

    def __init__(self, n_mels: int, width: int, layers: int):
        super().__init__()
        self.front = Neighbours(n_mels, width, 5)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(layers)))
        side = self.front.receptive_field[0] + sum(block.receptive_field[0] for block in self.blocks)
        self.receptive_field = (side, side)

    def forward(self, frames: Tensor) -> Tensor:
        return self.blocks(self.front((frames + 5) / 3))


class SignalNet(Net):
    """Predict something about every position of a signal from its neighbours and from features that come once a frame.

    h = front(x) + conditioning(cond), the latter linear between the boundaries of frames, where it is the mean of two;
    out = last(blocks(h)), the dilations of the blocks 1, 2, 4, 1, ...;  last starts at zero

    Long signals are computed tile by tile on a CPU, so that activations stay in the cache; the result is the same.

    Args:
        in_channels, out_channels, cond_channels: sizes of ``x``, of the result and of ``cond``.
        width: channels inside.
        layers: number of :class:`Block`.
        positions: positions of ``x`` in a frame.

    Attributes:
        receptive_field: positions before and after.
        checkpointed: compute activations again for the gradient instead of keeping them.

    Shape: x (batch, frames * positions, in_channels), cond (batch, frames or more, cond_channels) ->
    (batch, frames * positions, out_channels).
    """

    def __init__(self, in_channels: int, out_channels: int, cond_channels: int, *, width: int, layers: int, positions: int):
        front = Neighbours(in_channels, width, 5)
        blocks = [Block(width, dilation=2 ** (i % 3)) for i in range(layers)]
        side = front.receptive_field[0] + sum(block.receptive_field[0] for block in blocks)
        super().__init__((side, side))
        self.front = front
        self.conditioning = nn.Linear(cond_channels, width)
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(width, out_channels)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.positions = positions
        # and a frame is conditioned by its neighbours, too
        self._frames = max(-(-side // positions), 1) + 1

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        dtype, frames = self.last.weight.dtype, x.shape[1] // self.positions
        x, cond = x.to(dtype), cond[:, :frames].to(dtype)
        step = max(TILE // (len(x) * self.positions), 4 * self._frames)
        if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling() or step >= frames:
            if self.checkpointed and torch.is_grad_enabled():
                return checkpoint(self.tile, x, cond, use_reentrant=False, preserve_rng_state=False)
            return self.tile(x, cond)
        tiles = []
        for start in range(0, frames, step):
            begin, end = max(0, start - self._frames), min(frames, start + step + self._frames)
            tile = self.tile(x[:, begin * self.positions : end * self.positions], cond[:, begin:end])
            tiles.append(tile.unflatten(1, (-1, self.positions))[:, start - begin : start - begin + step])
        return torch.cat(tiles, dim=1).flatten(1, 2)

    def tile(self, x: Tensor, cond: Tensor) -> Tensor:
        """Return the result for all of ``x``, zeros beyond its ends."""
        h = self.front(x)
        return self.last(self.blocks(h + spread(self.conditioning(cond), self.positions)))


def spread(features: Tensor, positions: int) -> Tensor:
    """Bring features (batch, frames, channels) to several positions a frame, linear between the boundaries of frames.

    Returns: (batch, frames * positions, channels).
    """
    before = torch.cat([features[:, :1], features[:, :-1]], dim=1)
    after = torch.cat([features[:, 1:], features[:, -1:]], dim=1)
    place = (torch.arange(positions, device=features.device, dtype=features.dtype) + 0.5) / positions
    begin, end = (features + before) / 2, (features + after) / 2
    return torch.lerp(begin.unsqueeze(2), end.unsqueeze(2), place[:, None]).flatten(1, 2)


def side_by_side(x: Tensor, fold: int) -> Tensor:
    """Put ``fold`` samples of each channel into one position.

    (batch, channels, time) to (batch, time / fold, channels * fold).
    """
    return x.unflatten(-1, (-1, fold)).permute(0, 2, 1, 3).flatten(2)


def apart(x: Tensor, fold: int, parts: Sequence[int]) -> Tensor:
    """Undo :func:`side_by_side` for channels of any shape.

    (batch, positions, prod(parts) * fold) to (batch, *parts, time).
    """
    return x.unflatten(-1, (*parts, fold)).movedim(1, -2).flatten(-2)
