"""Predict a frame of coefficients from the frames around it, by filters that depend on what is there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet.nets.fast import FastDynamicFilterNet
from flowavenet.nets.framenet import FrameNet


class DynamicFilterNet(nn.Module):
    """Predict the frame between two others: by a net, and by short filters over both that the net chooses.

    (s, log_scale, w) = net([x[t], x[t+1]], cond)[t]
    shift[k, t] = s[k, t] + sum_{i, j} 2 tanh(w[i, j, k, t] / 2) x[k+j, t+i]

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

    Shapes: x (batch, channels, time), cond (batch, cond_channels, time or one more) -> shift and log-scale of the frames
    between ``x[t]`` and ``x[t+1]``, stacked: (batch, 2 * channels, time). Beyond the ends there are zeros.

    De Brabandere, Jia, Tuytelaars, Van Gool, "Dynamic filter networks", NIPS 2016, arXiv:1605.09673.
    """

    def __init__(
        self, channels: int, cond_channels: int, *, frames: int = 2, spread: int | None = 2, layers: int, width: int,
        kernel_size: int, causal: bool = False,
    ):
        super().__init__()
        if frames < 2 or frames % 2:
            raise ValueError(f"frames is {frames}; as many before as after a frame make an even number, 2 or more")
        self.frames = frames
        self.spread = spread
        self.reads = range(0) if spread is None else range(2 * spread + 1)
        amounts = channels * (2 + frames * len(self.reads))
        self.net = FrameNet(
            channels * frames, amounts, cond_channels, layers=layers, width=width, kernel_size=kernel_size, causal=causal
        )
        later = 0 if causal else frames // 2
        self.sides = frames - 1 - later, later

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        channels, time = x.shape[1:]
        padded = F.pad(x, self.sides)
        around = [padded[..., i : i + time] for i in range(self.frames)]
        amounts = self.net(torch.cat(around, dim=1), cond)
        amounts = amounts.to(torch.promote_types(amounts.dtype, torch.float32))   # products with the signal are exact
        shift, log_scale, weights = amounts.split([channels, channels, amounts.shape[1] - 2 * channels], dim=1)
        weights = (2 * torch.tanh(weights / 2)).split(channels, dim=1)
        for i, frame in enumerate(around if self.reads else []):
            frame = F.pad(frame, (0, 0, self.spread, self.spread))
            for j in self.reads:
                shift = torch.addcmul(shift, weights[i * len(self.reads) + j], frame[:, j : j + channels])
        return torch.cat([shift, log_scale], dim=1)

    def fast(self, dtype: torch.dtype) -> FastDynamicFilterNet:
        """The same net, laid out for synthesis."""
        return FastDynamicFilterNet(self, dtype)

    def reach(self) -> tuple[int, int]:
        """Frames to the left and to the right that one frame of the result depends on."""
        left, right = self.net.reach()
        return left + self.sides[0], right + self.sides[1]
