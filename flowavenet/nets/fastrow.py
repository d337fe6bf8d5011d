"""A :class:`~flowavenet.nets.RowNet` laid out for synthesis, as in :mod:`flowavenet.nets.fast`: row by row, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet.nets.fast import rows as in_rows

if TYPE_CHECKING:
    from flowavenet.nets.rownet import RowNet


class FastRowNet(nn.Module):
    """What a :class:`~flowavenet.nets.RowNet` computes step by step, up to rounding.

    Channels lie side by side in memory, and each layer keeps its last three rows in a ring: a new one takes the place of
    the oldest, and the weights are turned instead. Between the gates and the amounts all is linear, so that skip branches
    and the last convolution are one product of two columns.

    Args:
        net: whose weights are taken, as they are now.
        dtype: of the work.
    """

    def __init__(self, net: RowNet, dtype: torch.dtype):
        super().__init__()
        self.rows, self.dtype, self.sides = net.rows, dtype, net.reach()
        self.cond_channels, width = net.conditioning[0].in_channels, net.front.out_channels
        self.front = net.front.weight.flatten().to(dtype), net.front.bias.to(dtype)
        last, bias = net.last.weight[:, :, 0, 0], net.last.bias
        self.layers = []
        for dilated, conditioning, onward in zip(net.dilated, net.conditioning, net.onward, strict=True):
            # half a gate is (sigmoid(2 filter) - 1/2) * sigmoid(gate)
            twice = torch.cat([last.new_full((width,), 2.0), last.new_ones(width)])
            down, along = dilated.dilation
            taps = dilated.weight * twice[:, None, None, None]
            onward_weight, skip_weight = (2 * onward.weight).split([onward.out_channels - width, width])
            onward_bias, skip_bias = onward.bias.split([onward.out_channels - width, width])
            bias = bias + last @ skip_bias
            self.layers.append(Layer(
                # the newest row being in slot s, the taps from top to bottom belong to slots s + 1, s + 2 and s
                [_laid(taps[:, :, [(slot - s - 1) % 3 for slot in range(3)]], dtype) for s in range(3)],
                ((dilated.bias + conditioning.bias) * twice).to(dtype), down, along,
                _laid(conditioning.weight * twice[:, None, None, None], dtype),
                _laid(onward_weight, dtype), onward_bias.to(dtype), (last @ skip_weight[:, :, 0, 0]).to(dtype),
            ))
        self.bias = bias.to(dtype)

    def steps(self, cond: Tensor) -> FastRowSteps:
        """As of the net. The conditioning may as well come as it was before it was folded."""
        cond = cond.to(self.dtype)
        if cond.shape[1] == self.cond_channels:
            return FastRowSteps(self, in_rows(cond).unflatten(1, (-1, self.rows)))
        return FastRowSteps(self, cond.unflatten(1, (-1, self.rows)).permute(0, 3, 2, 1))

    def reach(self) -> tuple[int, int]:
        return self.sides


class Layer(NamedTuple):
    """The weights of a layer: see :class:`FastRowNet`."""

    taps: list[Tensor]
    bias: Tensor
    down: int
    along: int
    conditioning: Tensor
    onward: Tensor
    onward_bias: Tensor
    skip: Tensor


class FastRowSteps:
    """Called with row after row (batch, 1, columns), it returns the amounts of the next: (batch, 2, columns).

    Args:
        net: whose weights to use.
        cond: (batch, columns, rows, cond_channels).
    """

    def __init__(self, net: FastRowNet, cond: Tensor):
        batch, columns, width = *cond.shape[:2], len(net.front[0])
        self.net, self.cond, self.row = net, cond, 0
        # rows that a layer reads together are `down` rows apart: so many rings take turns
        self.rings = [
            [cond.new_empty(batch, 3, columns, width).permute(0, 3, 1, 2) for _ in range(layer.down)] for layer in net.layers
        ]

    def __call__(self, x: Tensor) -> Tensor:
        net, row = self.net, self.row
        self.row += 1
        cond = self.cond[:, :, self.row].contiguous().transpose(1, 2).unsqueeze(2)      # (batch, channels, 1, columns)
        weight, bias = net.front
        h = torch.addcmul(bias[:, None], x.to(net.dtype), weight[:, None])              # (batch, width, columns)
        total = None
        for rings, layer in zip(self.rings, net.layers, strict=True):
            ring, turn = rings[row % layer.down], row // layer.down
            ring[:, :, turn % 3] = h
            there = min(turn + 1, 3)                                                    # nothing is above the first rows
            taps = layer.taps[turn % 3][:, :, :there]
            both = F.conv2d(ring[:, :, :there], taps, layer.bias, padding=(0, layer.along), dilation=(1, layer.along))
            filter, gate = both.add_(F.conv2d(cond, layer.conditioning)).sigmoid_().chunk(2, dim=1)
            gated = filter.sub(0.5).mul_(gate)
            if len(layer.onward):                                                       # the last layer has none
                h = F.conv2d(gated, layer.onward, layer.onward_bias).squeeze(2).add_(h)
            part = F.linear(gated.squeeze(2).transpose(1, 2), layer.skip, net.bias if total is None else None)
            total = part if total is None else total.add_(part)
        return total.transpose(1, 2)


def _laid(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype, memory_format=torch.channels_last)
