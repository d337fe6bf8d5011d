"""The net inside a WaveFlow: convolutions over a picture of the waveform that read only the rows above."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from flowavenet.nets.base import Net, wide
from flowavenet.nets.conv import channels_last, gate


class RowNet(Net):
    """Predict something about every row of a picture from the rows above it, and from the conditioning down to it.

    Squeezed by ``rows``, a signal is a picture: its columns are groups of ``rows`` samples that follow each other, its rows
    their phases. Convolutions look 3 columns wide, either side, and 3 rows high, upwards only.

    h = front(x), a row lower;  then for each layer
        filter, gate = split(dilated(h) + conditioning(cond));   g = tanh(filter) * sigmoid(gate)
        residual, skip = split(onward(g));   h = h + residual;   skips += skip
    out = last(skips)

    The last convolution starts at zero, so that a flow starts as the identity. The last layer has no residual branch:
    nothing would read it.

    Args:
        rows: of the picture.
        cond_channels: channels of the conditioning before it was squeezed.
        layers: gated layers; layer ``i`` has dilation ``2 ** i`` over columns, and over rows that of :func:`row_dilations`.
        width: channels inside.

    Shapes: x (batch, columns, rows), cond (batch, columns, rows * cond_channels), row-major
    -> shifts of all rows but the first, then their log-scales: (batch, columns, 2 * (rows - 1)).
    Ping, Peng, Zhao, Song, "WaveFlow: a compact flow-based model for raw audio", ICML 2020, arXiv:1912.01219.
    """

    def __init__(self, rows: int, cond_channels: int, *, layers: int = 8, width: int = 64):
        side = 2**layers - 1
        super().__init__((side, side), width=rows)
        self.rows = rows
        self.front = weight_norm(nn.Conv2d(1, width, 1))
        self.dilated = nn.ModuleList(
            weight_norm(nn.Conv2d(width, 2 * width, 3, dilation=(down, 2**i), padding=(0, 2**i)))
            for i, down in enumerate(row_dilations(rows, layers))
        )
        self.conditioning = nn.ModuleList(weight_norm(nn.Conv2d(cond_channels, 2 * width, 1)) for _ in range(layers))
        self.onward = nn.ModuleList(
            weight_norm(nn.Conv2d(width, (1 if i == layers - 1 else 2) * width, 1)) for i in range(layers)
        )
        self.last = nn.Conv2d(width, 2, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def tile(self, x: Tensor, cond: Tensor) -> Tensor:
        # the conditioning is a picture (batch, channels, columns, rows), channels last, as it comes: columns are its height
        dtype = self.last.bias.dtype
        cond = cond.unflatten(2, (self.rows, -1))[:, :, 1:].to(dtype).contiguous().permute(0, 3, 1, 2)
        h, skips = self.front(x[:, :, :-1].to(dtype).unsqueeze(1)), None
        width = h.shape[1]
        for dilated, conditioning, onward in zip(self.dilated, self.conditioning, self.onward, strict=True):
            down, along = dilated.dilation
            both = F.conv2d(
                F.pad(h, (2 * down, 0)), dilated.weight.transpose(2, 3), dilated.bias, padding=(along, 0),
                dilation=(along, down),
            )
            both = onward(gate(both.add_(conditioning(cond))))
            skip = both[:, -width:]
            skips = skip if skips is None else skips + skip
            if both.shape[1] > width:
                h = h + both[:, :width]
        return self.last(skips).transpose(1, 2).flatten(2)

    def steps(self, cond: Tensor) -> RowSteps:
        """Return the same net, evaluated one row after the other, given ``cond`` as in :meth:`forward`."""
        return RowSteps(self, cond)


class RowSteps:
    """Compute what a :class:`RowNet` does, for rows that come one after the other. Gradients pass.

    Called with row after row (batch, columns, 1), it returns shift and log-scale of the row below: (batch, columns, 2).
    Each layer keeps the rows that its convolution still reads. From a gate to the result all is linear, so that the skip
    branch and the last convolution are one product.

    Args:
        net: as it is now.
        cond: (batch, columns, rows * cond_channels).
    """

    def __init__(self, net: RowNet, cond: Tensor):
        self.cond, self.row = cond.unflatten(2, (net.rows, -1)), 0
        self.front, width = (net.front.weight.flatten(), net.front.bias), net.front.out_channels
        self.layers, self.bias, last = [], net.last.bias, net.last.weight[:, :, 0, 0]
        for dilated, conditioning, onward in zip(net.dilated, net.conditioning, net.onward, strict=True):
            split = [onward.out_channels - width, width]
            (residual, skip), (residual_bias, skip_bias) = onward.weight.split(split), onward.bias.split(split)
            self.bias = self.bias + last @ skip_bias
            self.layers.append((
                dilated.dilation, channels_last(dilated.weight), dilated.bias + conditioning.bias,
                conditioning.weight.clone(), residual, residual_bias, last @ skip[:, :, 0, 0],
            ))
        self.past: list[list[Tensor]] = [[] for _ in self.layers]

    def __call__(self, x: Tensor) -> Tensor:
        weight, bias = self.front
        self.row += 1
        cond = self.cond[:, :, self.row].to(weight.dtype).contiguous().transpose(1, 2).unsqueeze(2)
        # a picture of one row: (batch, width, 1, columns)
        h = torch.addcmul(bias, x.to(weight.dtype), weight).transpose(1, 2).unsqueeze(2)
        total = self.bias
        for past, layer in zip(self.past, self.layers, strict=True):
            (down, along), taps, bias, conditioning, residual, residual_bias, skip = layer
            past.append(h)
            read = past[-1 - 2 * down :: down] if len(past) > 2 * down else past[(len(past) - 1) % down :: down]
            del past[: -2 * down]                                      # what no later row reads
            window = torch.cat(read, dim=2)                            # 1 to 3 rows: nothing is above the first ones
            both = F.conv2d(window, taps[:, :, -len(read) :], bias, padding=(0, along), dilation=(1, along))
            gated = gate(both.add_(F.conv2d(cond, conditioning)))
            if len(residual):                                          # the last layer has none
                h = F.conv2d(gated, residual, residual_bias).add_(h)
            total = total + F.linear(gated.squeeze(2).transpose(1, 2), skip)
        return wide(total)


def row_dilations(rows: int, layers: int) -> list[int]:
    """Return the rows between the taps of each layer, such that the last row sees the first: 1, or a cycle of powers of 2.

    >>> row_dilations(16, 8), row_dilations(32, 8), row_dilations(64, 8), row_dilations(128, 8)
    ([1, 1, 1, 1, 1, 1, 1, 1], [1, 2, 4, 1, 2, 4, 1, 2], [1, 2, 4, 8, 16, 1, 2, 4], [1, 2, 4, 8, 16, 32, 64, 1])
    """
    cycle = max(1, 2 * rows.bit_length() - 9)                          # as published for 8 ... 128 rows
    return [2 ** (i % cycle) for i in range(layers)]
