"""The nets again, laid out for synthesis: the same numbers, up to rounding, in a fraction of the time.

What a convolution costs on a CPU depends on how its input lies in memory. Here the channels of one time step lie side by
side, a row per step (batch, time, channels), which makes convolutions nearly twice as fast as time steps side by side do.
Weight norms and constant factors are folded into the weights; tanh(x) is 2 sigmoid(2 x) - 1, many times faster, so that half
of a gate is

    gated = (sigmoid(2 filter) - 1/2) * sigmoid(gate)

and the rest is left to the next weights. The readable nets remain the reference that tests compare with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from flowavenet.nets.dynamic import DynamicFilterNet
    from flowavenet.nets.framenet import FrameNet
    from flowavenet.nets.wavenet import WaveNet

TILE = 4000
"""Time steps, over the batch, that a WaveNet computes at a time on a CPU: 512 channels of them are 8 MB."""
FEW = 1000
"""Rows that in half precision are mixed faster as a matrix product than as a convolution."""


class Tiled(nn.Module):
    """A net that is computed time tile by time tile, so that what is at work fits the caches.

    Subclasses say with ``_tile`` what it gives for x (batch, in_channels, time) and cond in rows (batch, time, channels):
    rows (batch, time, out_channels).

    Args:
        dtype: of the work; what comes out is float32 or wider.
        sides: steps to the left and to the right that one step of the result depends on.

    Shapes: x (batch, in_channels, time), cond (batch, channels of a column, time * columns in a group)
    -> (batch, out_channels, time).
    """

    def __init__(self, dtype: torch.dtype, sides: tuple[int, int]):
        super().__init__()
        self.dtype, self.sides = dtype, sides

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        time, (left, right) = x.shape[-1], self.sides
        columns = cond.shape[-1] // time
        # a tile may be larger than the caches like where its context, computed again for each, would be most of it
        step = max(TILE // len(x), 4 * (left + right), 1) if x.device.type == "cpu" else time
        tiles = []
        for start in range(0, time, step):
            # with as much around the tile as it depends on; beyond the ends of the signal, zeros as ever
            begin, end = max(0, start - left), min(time, start + step + right)
            given = rows(cond[..., begin * columns : end * columns].to(self.dtype)).reshape(len(x), end - begin, -1)
            tile = self._tile(x[..., begin:end].to(self.dtype), given)
            tiles.append(tile[:, start - begin : start - begin + step])
        return _wide(torch.cat(tiles, dim=1).transpose(1, 2))


class FastWaveNet(Tiled):
    """What a :class:`~flowavenet.nets.WaveNet` computes.

    Args:
        net: whose weights are taken, as they are now.
        dtype: of the work.
        order: where the channels that the net knows lie in a group of columns of the conditioning, one column after the
            other: (cond_channels,). None: in one column, in order.
    """

    def __init__(self, net: WaveNet, dtype: torch.dtype, order: Tensor | None = None):
        super().__init__(dtype, net.reach())
        width, half = net.front.conv.out_channels, math.sqrt(0.5)
        twice = first_half_twice(net.skip[0].in_channels, net.last.weight)
        # the end of one or two channels is a product with neighbouring samples side by side
        self.front = net.front.conv.weight.flatten(1).to(dtype), net.front.conv.bias.to(dtype)
        self.dilated = [
            RowConv(conv.weight * twice[:, None, None], (conv.bias + cond.bias) * twice, conv.dilation[0], dtype)
            for conv, cond in zip((dilated.conv for dilated in net.dilated), net.conditioning, strict=True)
        ]
        order = torch.arange(net.conditioning[0].in_channels) if order is None else order
        self.conditioning = [
            RowConv((conv.weight * twice[:, None, None])[:, order.argsort()], None, 1, dtype) for conv in net.conditioning
        ]
        *inner, last = net.skip
        self.onward = [                                                # residual and skip branch, stacked
            RowConv(torch.cat([2 * half * a.weight, 2 * b.weight]), torch.cat([half * a.bias, b.bias]), 1, dtype)
            for a, b in zip(net.residual, inner, strict=True)
        ]
        self.last_skip = RowConv(2 * last.weight, last.bias, 1, dtype)
        self.post = RowConv(net.post.weight, net.post.bias, 1, dtype)
        scale = torch.exp(3 * net.scale[0])                            # (out_channels, 1)
        self.last = (net.last.weight[:, :, 0] * scale).to(dtype), (net.last.bias * scale[:, 0]).to(dtype)
        self.causal, self.width = net.front.causal, width
        self.taps, self.front_sides = net.front.conv.kernel_size[0], net.front.reach()

    def _tile(self, x: Tensor, cond: Tensor) -> Tensor:
        taps = F.pad(x, self.front_sides).unfold(2, self.taps, 1).transpose(1, 2).flatten(2)    # (batch, time, in * taps)
        h = F.linear(taps, *self.front).relu_()
        skips = []
        for dilated, conditioning, onward in zip(self.dilated, self.conditioning, [*self.onward, None], strict=True):
            gated = half_gate(dilated(h, self.causal).add_(conditioning(cond)))
            if onward is not None:
                both = onward(gated)
                h = torch.add(both[..., : self.width], h, alpha=math.sqrt(0.5))
                skips.append(both[..., self.width :])
        total = self.last_skip(gated)
        for skip in skips:
            total.add_(skip)
        return F.linear(self.post(total.relu_()).relu_(), *self.last)


class FastFrameNet(nn.Module):
    """What a :class:`~flowavenet.nets.FrameNet` computes, and its shapes."""

    def __init__(self, net: FrameNet, dtype: torch.dtype):
        super().__init__()
        twice = first_half_twice(net.last.in_channels, net.last.weight)
        both = torch.cat([net.front.weight, net.conditioning.weight], dim=1)
        self.front = RowConv(both, net.front.bias + net.conditioning.bias, 1, dtype)
        self.depthwise = [RowConv(conv.weight, conv.bias, 1, dtype, conv.groups) for conv in net.depthwise]
        self.pointwise = [
            RowConv(conv.weight * twice[:, None, None], conv.bias * twice, 1, dtype) for conv in net.pointwise
        ]
        self.residual = [RowConv(2 * conv.weight, conv.bias, 1, dtype) for conv in net.residual]
        self.last = RowConv(net.last.weight, net.last.bias, 1, dtype)
        self.dtype, self.causal = dtype, net.depthwise[0].causal

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return self.in_rows(rows(x), rows(cond)).transpose(1, 2)

    def in_rows(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (batch, time, in_channels), cond (batch, time or one more, cond_channels) -> (batch, time, out_channels)."""
        h = self.front(torch.cat([x, cond[:, : x.shape[1]].to(x.dtype)], dim=2).to(self.dtype))
        for depthwise, pointwise, residual in zip(self.depthwise, self.pointwise, self.residual, strict=True):
            h = h.add_(residual(half_gate(pointwise(depthwise(h, self.causal)))))
        return _wide(self.last(h.relu_()))


class FastDynamicFilterNet(nn.Module):
    """What a :class:`~flowavenet.nets.DynamicFilterNet` computes, and its shapes."""

    def __init__(self, net: DynamicFilterNet, dtype: torch.dtype):
        super().__init__()
        self.net = FastFrameNet(net.net, dtype)
        self.frames, self.spread, self.reads, self.sides = net.frames, net.spread, len(net.reads), net.sides

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        time, channels = x.shape[-1], x.shape[1]
        padded = F.pad(rows(x), (0, 0, *self.sides))
        around = [padded[:, i : i + time] for i in range(self.frames)]
        amounts = self.net.in_rows(torch.cat(around, dim=2), rows(cond))
        shift = amounts[..., :channels]
        if self.reads:
            # 2 tanh(w / 2) = 4 (sigmoid(w) - 1/2)
            weights = amounts[..., 2 * channels :].sigmoid_().sub_(0.5).split(channels, dim=2)
            for i, frame in enumerate(around):
                frame = F.pad(4 * frame, (self.spread, self.spread))
                for j in range(self.reads):
                    shift.addcmul_(weights[i * self.reads + j], frame[..., j : j + channels])
        return rows(amounts[..., : 2 * channels])


class RowConv:
    """A convolution over time of rows (batch, time, channels), as many rows out as in.

    Args:
        weight: (out, in / groups, taps). bias: (out,) or None.
        dilation: steps between taps. groups: as in ``torch.nn.Conv1d``.
        dtype: of the work.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dilation: int, dtype: torch.dtype, groups: int = 1):
        self.dilation, self.groups, self.span = dilation, groups, (weight.shape[2] - 1) * dilation
        self.product = self.span == 0 and dtype.itemsize == 2
        self.weight = weight[:, :, None].to(dtype, memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(dtype)

    def __call__(self, x: Tensor, causal: bool = False) -> Tensor:
        if self.product and x.shape[1] < FEW:
            return F.linear(x, self.weight[:, :, 0, 0], self.bias)
        side = self.span // 2
        if causal:
            x, side = F.pad(x, (0, 0, self.span, 0)), 0
        image = x.transpose(1, 2).unsqueeze(2)                         # to torch, channels-last: nothing moves
        image = F.conv2d(
            image, self.weight, self.bias, padding=(0, side), dilation=(1, self.dilation), groups=self.groups
        )
        return image.squeeze(2).transpose(1, 2)


def rows(x: Tensor) -> Tensor:
    """(batch, channels, time) to (batch, time, channels), and back, in memory as well."""
    return x.transpose(1, 2).contiguous()


def first_half_twice(width: int, like: Tensor) -> Tensor:
    return torch.cat([like.new_full((width,), 2.0), like.new_ones(width)])


def half_gate(both: Tensor) -> Tensor:
    filter, gate = both.sigmoid_().chunk(2, dim=2)
    return filter.sub(0.5).mul_(gate)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
