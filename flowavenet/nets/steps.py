"""A causal WaveNet, one time step after the other: what autoregressive sampling needs.

Recomputing the whole receptive field for every sample costs thousands of times as much as the sample itself needs: each
layer's past is the same as it was a step ago. So each layer keeps the past that its taps still read, in a queue.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from flowavenet.nets.wavenet import WaveNet

BLOCK = 1024
"""Time steps whose conditioning is brought through all layers at a time, before they are taken."""


class WaveNetSteps:
    """What a causal :class:`~flowavenet.nets.WaveNet` computes, for a signal that is only known up to now.

    Told the conditioning of the steps to come, and called with step after step (batch, in_channels), it returns what the
    net gives at that step: (batch, out_channels). Weight norms and the factors sqrt(1/2) are folded into weights that lie
    as products read them. Gradients pass.

    Args:
        net: as it is now.

    Paine et al., "Fast WaveNet generation algorithm", 2016, arXiv:1611.09482.
    """

    def __init__(self, net: WaveNet):
        if not net.front.causal:
            raise ValueError("a centred net reads samples that are not there yet: build it with causal = True")
        front = net.front.conv
        self.front = front.weight.permute(2, 1, 0).flatten(0, 1), front.bias       # (taps * in, width)
        self.front_queue = Queue(net.front.span, 1)
        # h of layer i is kept sqrt(2)^i times as large, so that nothing need be scaled on the way
        grown = [math.sqrt(2) ** i for i in range(len(net.dilated))]
        convs = [dilated.conv for dilated in net.dilated]
        self.queues = [Queue(dilated.span, dilated.conv.dilation[0]) for dilated in net.dilated]
        self.dilated = [(conv.weight / by).permute(2, 1, 0).flatten(0, 1) for conv, by in zip(convs, grown, strict=True)]
        *inner, last = net.skip
        self.onward = [
            (torch.cat([a.weight * by, b.weight])[:, :, 0].t().contiguous(), torch.cat([a.bias * by, b.bias]))
            for a, b, by in zip(net.residual, inner, grown, strict=False)
        ]
        self.last_skip = last.weight[:, :, 0].t().contiguous(), last.bias
        self.post = net.post.weight[:, :, 0].t().contiguous(), net.post.bias
        scale = torch.exp(3 * net.scale[0, :, 0])
        self.last = (net.last.weight[:, :, 0].t() * scale).contiguous(), net.last.bias * scale
        self.conditioning = (
            torch.cat([conv.weight[:, :, 0] for conv in net.conditioning]).t().contiguous(),
            torch.cat([conv.bias + dilated.bias for conv, dilated in zip(net.conditioning, convs, strict=True)]),
        )
        self.width, self.skip_width = front.out_channels, net.post.in_channels

    def condition(self, cond: Tensor) -> None:
        """Take the conditioning of the next steps: (batch, cond_channels, time)."""
        self.cond, self.time = cond, 0
        self.skips = cond.new_zeros(len(cond), self.skip_width)
        self._block: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        h = torch.relu(torch.addmm(self.front[1], self.front_queue(x), self.front[0]))
        both, given = torch.cat([h, self.skips], dim=1), self._conditioning()
        for i, (queue, dilated) in enumerate(zip(self.queues, self.dilated, strict=True)):
            filter, gate = torch.addmm(given[i], queue(both[:, : self.width]), dilated).chunk(2, dim=1)
            gated = torch.tanh(filter) * torch.sigmoid(gate)
            if i < len(self.onward):
                both = both + torch.addmm(self.onward[i][1], gated, self.onward[i][0])
        skips = both[:, self.width :] + torch.addmm(self.last_skip[1], gated, self.last_skip[0])
        h = torch.relu(torch.addmm(self.post[1], torch.relu(skips), self.post[0]))
        return torch.addmm(self.last[1], h, self.last[0])

    def _conditioning(self) -> list[Tensor]:
        """Of this step, for each layer: (batch, 2 * gate width)."""
        start = self.time % BLOCK
        if start == 0:
            weight, bias = self.conditioning
            rows = self.cond[..., self.time : self.time + BLOCK].permute(2, 0, 1)  # (time, batch, channels)
            of_layers = (rows @ weight + bias).unflatten(2, (len(self.queues), -1))
            self._block = [step.unbind(1) for step in of_layers.unbind(0)]
        self.time += 1
        return self._block[start]


class Queue:
    """The last steps of a signal, and those of them that a dilated convolution reads: now, ``dilation`` ago, and so on.

    Before the first step there were zeros.

    Args:
        span: steps between the first tap and the last.
        dilation: steps between neighbouring taps.
    """

    def __init__(self, span: int, dilation: int):
        self.past: list[Tensor | None] = [None] * (span + 1)
        self.dilation, self.now = dilation, 0

    def __call__(self, x: Tensor) -> Tensor:
        """Take one more step; (batch, taps * channels), the oldest tap first."""
        if self.past[0] is None:
            self.past = [torch.zeros_like(x)] * len(self.past)
        self.past[self.now] = x
        self.now = (self.now + 1) % len(self.past)
        taps = range(self.now, self.now + len(self.past), self.dilation)
        return torch.cat([self.past[i % len(self.past)] for i in taps], dim=1)
