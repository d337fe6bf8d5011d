"""The net inside a WaveFlow: convolutions over a picture of the waveform that read only the rows above."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from flowavenet.nets.fastrow import FastRowNet


class RowNet(nn.Module):
    """Predict something about every row of a picture from the rows above it, and from the conditioning down to it.

    Folded by ``rows``, a signal is a picture: its columns are groups of ``rows`` samples that follow each other, its rows
    their phases. Convolutions look 3 columns wide, either side, and 3 rows high, upwards only.

    h = front(x), a row lower;  then for each layer
        filter, gate = split(dilated(h) + conditioning(cond));   g = tanh(filter) * sigmoid(gate)
        residual, skip = split(onward(g));   h = h + residual;   skips += skip
    out = last(skips)

    The last convolution starts at zero, so that a flow starts as the identity. The last layer has no residual branch:
    nothing would read it.

    Args:
        rows: of the picture.
        cond_channels: channels of the conditioning before it was folded.
        layers: gated layers; layer ``i`` has dilation ``2 ** i`` over columns, and over rows that of :func:`row_dilations`.
        width: channels inside.

    Shapes: x (batch, rows, columns), cond (batch, cond_channels * rows, columns), channel-major
    -> shift and log-scale of all rows but the first: (batch, 2 * (rows - 1), columns).
    Ping, Peng, Zhao, Song, "WaveFlow: a compact flow-based model for raw audio", ICML 2020, arXiv:1912.01219.
    """

    def __init__(self, rows: int, cond_channels: int, *, layers: int = 8, width: int = 64):
        super().__init__()
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

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return self.steps(cond)(x[:, :-1])

    def steps(self, cond: Tensor) -> RowSteps:
        """The same, for rows that come one after the other, or some at a time."""
        return RowSteps(self, cond)

    def fast(self, dtype: torch.dtype) -> FastRowNet:
        """The same net, laid out for synthesis."""
        return FastRowNet(self, dtype)

    def reach(self) -> tuple[int, int]:
        """Columns to the left and to the right that one step of the result depends on."""
        side = 2 ** len(self.dilated) - 1
        return side, side


class RowSteps:
    """What a :class:`RowNet` computes, for rows that are only known down to now. Gradients pass.

    Called with the next rows (batch, n, columns), it returns the amounts of as many rows, those a row further down:
    (batch, 2 * n, columns). Each layer keeps as many of its last rows as its convolution still reads.
    """

    def __init__(self, net: RowNet, cond: Tensor):
        self.net = net
        self.cond = cond.unflatten(1, (-1, net.rows))                  # (batch, cond_channels, rows, columns)
        self.past: list[Tensor | None] = [None] * len(net.dilated)
        self.row = 1                                                   # the next to be predicted

    def __call__(self, x: Tensor) -> Tensor:
        net, count = self.net, x.shape[1]
        cond = self.cond[:, :, self.row : self.row + count]
        self.row += count
        h = net.front(x.unsqueeze(1))                                  # (batch, width, n, columns)
        skips = 0
        for i, (dilated, conditioning, onward) in enumerate(
            zip(net.dilated, net.conditioning, net.onward, strict=True)
        ):
            span = 2 * dilated.dilation[0]
            window = F.pad(h, (0, 0, span, 0)) if self.past[i] is None else torch.cat([self.past[i], h], dim=2)
            self.past[i] = window[:, :, -span:]
            filter, gate = (dilated(window) + conditioning(cond)).chunk(2, dim=1)
            both = onward(torch.tanh(filter) * torch.sigmoid(gate))
            skips = skips + both[:, -h.shape[1] :]
            h = h + both[:, : h.shape[1]]                              # of the last layer, nobody reads it
        return net.last(skips).flatten(1, 2)


def row_dilations(rows: int, layers: int) -> list[int]:
    """Rows between the taps of each layer, such that the last row sees the first: 1, or a cycle of powers of 2.

    >>> row_dilations(16, 8), row_dilations(32, 8), row_dilations(64, 8), row_dilations(128, 8)
    ([1, 1, 1, 1, 1, 1, 1, 1], [1, 2, 4, 1, 2, 4, 1, 2], [1, 2, 4, 8, 16, 1, 2, 4], [1, 2, 4, 8, 16, 32, 64, 1])
    """
    cycle = max(1, 2 * rows.bit_length() - 9)                          # as published for 8 ... 128 rows
    return [2 ** (i % cycle) for i in range(layers)]
