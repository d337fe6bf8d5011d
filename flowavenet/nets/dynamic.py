"""Predict a frame of coefficients from the frames around it, by filters that depend on what is there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet.nets.base import Net, wide
from flowavenet.nets.framenet import FrameNet


class DynamicFilterNet(Net):
    """Predict the frame between two others: by a net, and by short filters over both that the net chooses.

    (s, log_scale, w) = net([x[t], x[t+1]], cond)[t]
    shift[t, k] = s[t, k] + sum_{i, j} 2 tanh(w[t, i, j, k] / 2) x[t+i, k+j]

    A tone that goes on turns its phase from frame to frame by an angle that depends on its pitch. Adding something to
    the neighbours cannot turn them; weights that depend on the conditioning, and so on the pitch, can. They are bounded, so
    that the shift of a signal unlike any speech grows with it, not with its square.

    Args:
        channels: bands of a frame.
        cond_channels: of ``cond``.
        frames: neighbours in time that are filtered, even: half of them before and half after the predicted frame.
        causal: all of them before it, and the net looks only backwards in time.
        spread: neighbours in frequency, either side; None: no filters, shift = s.
        layers, width, kernel_size: of the net, a :class:`FrameNet`.

    Shapes: x (batch, time, channels), cond (batch, time or more, cond_channels) -> shift and log-scale of the frames
    between ``x[t]`` and ``x[t+1]``, side by side: (batch, time, 2 * channels). Beyond the ends there are zeros.

    De Brabandere, Jia, Tuytelaars, Van Gool, "Dynamic filter networks", NIPS 2016, arXiv:1605.09673.
    """

    def __init__(
        self, channels: int, cond_channels: int, *, frames: int = 2, spread: int | None = 2, layers: int, width: int,
        kernel_size: int, causal: bool = False,
    ):
        if frames < 2 or frames % 2:
            raise ValueError(f"frames is {frames}; as many before as after a frame make an even number, 2 or more")
        reads = 0 if spread is None else 2 * spread + 1
        net = FrameNet(
            channels * frames, channels * (2 + frames * reads), cond_channels, layers=layers, width=width,
            kernel_size=kernel_size, causal=causal,
        )
        later = 0 if causal else frames // 2
        (left, right), sides = net.receptive_field, (frames - 1 - later, later)
        super().__init__((left + sides[0], right + sides[1]))
        self.frames, self.spread, self.reads, self.sides = frames, spread, reads, sides
        self.net = net

    def tile(self, x: Tensor, cond: Tensor) -> Tensor:
        time, channels = x.shape[1:]
        padded = F.pad(x, (0, 0, *self.sides))
        around = [padded[:, i : i + time] for i in range(self.frames)]
        out = wide(self.net.tile(torch.cat(around, dim=2), cond))      # products with the signal are exact
        if not self.reads:
            return out
        shift, log_scale, weights = out.split([channels, channels, out.shape[2] - 2 * channels], dim=2)
        # 2 tanh(w / 2) = 4 (sigmoid(w) - 1/2)
        weights = (weights.sigmoid() - 0.5).split(channels, dim=2)
        for i, frame in enumerate(around):
            frame = F.pad(4 * frame, (self.spread, self.spread))
            for j in range(self.reads):
                shift = torch.addcmul(shift, weights[i * self.reads + j], frame[..., j : j + channels])
        return torch.cat([shift, log_scale], dim=2)
