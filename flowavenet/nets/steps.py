"""A causal WaveNet, one time step after the other: what autoregressive sampling needs.

Recomputing the whole receptive field for every sample costs thousands of times as much as the sample itself needs: each
layer's past is the same as it was a step ago. So the past that taps still read is kept. What it contributes to a step is
known before the step: one product for all layers, so that only the newest tap waits for the layer before.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 1024
"""Time steps whose conditioning is brought through all layers at a time, before they are taken."""


class WaveNetSteps:
    """Compute what a causal :class:`~flowavenet.nets.WaveNet` does, for a signal that is only known up to now.

    Told the conditioning of the steps to come, and called with step after step (batch, in_channels), it returns what the
    net gives at that step: (batch, out_channels). A step is many small operations, each of which costs as much as its
    numbers do; there are as few of them as can be. Weight norms, the factors sqrt(1/2) and the biases of residual
    branches are folded into weights that lie as products read them. Gradients pass.

    Args:
        net: as it is now.

    Paine et al., "Fast WaveNet generation algorithm", 2016, arXiv:1611.09482.
    """

    def __init__(self, net: nn.Module):
        if not net.causal:
            raise ValueError("a centred net reads samples that are not there yet: build it with causal = True")
        front, convs = net.front.conv, [dilated.conv for dilated in net.dilated]
        self.width, layers, taps = front.out_channels, len(convs), convs[0].kernel_size[0]
        self.front = front.weight.permute(2, 1, 0).flatten(0, 1).contiguous(), front.bias   # (taps * in, width)
        self.before = [front.weight.new_zeros(1, front.in_channels)] * front.kernel_size[0]
        # h of layer i is kept sqrt(2)^i times as large, so that nothing need be scaled on the way, and less what the
        # biases of the residual branches have added to it, so that they need not be added
        grown = [math.sqrt(2) ** i for i in range(layers)]
        added = [torch.zeros_like(front.bias)]
        for residual, by in zip(net.residual, grown, strict=False):
            added.append(added[-1] + residual.bias * by)
        dilated = [(conv.weight / by).permute(2, 1, 0) for conv, by in zip(convs, grown, strict=True)]   # (taps, in, out)
        self.past = torch.stack([weight[:-1].flatten(0, 1) for weight in dilated])
        self.newest = [weight[-1].contiguous() for weight in dilated]
        biases = [
            conv.bias + given.bias + offset @ weight.sum(0)
            for conv, given, offset, weight in zip(convs, net.conditioning, added, dilated, strict=True)
        ]
        self.conditioning = (
            torch.cat([conv.weight[:, :, 0] for conv in net.conditioning]).t().contiguous(), torch.cat(biases),
        )
        branches = [
            torch.cat([residual.weight * by, skip.weight])
            for residual, skip, by in zip(net.residual, net.skip, grown, strict=False)
        ]
        self.onward = [weight[:, :, 0].t().contiguous() for weight in branches]    # residual and skip branch, stacked
        self.last_skip = net.skip[-1].weight[:, :, 0].t().contiguous()
        self.post = net.post.weight[:, :, 0].t().contiguous(), net.post.bias
        scale = torch.exp(3 * net.scale[0, :, 0])
        self.last = (net.last.weight[:, :, 0].t() * scale).contiguous(), net.last.bias * scale
        self.skips = torch.stack([skip.bias for skip in net.skip]).sum(0)[None]
        # the past of all layers goes round in one ring; which of it a step reads, by where in the ring the step is
        self.size = 1 + max(conv.dilation[0] for conv in convs) * (taps - 1)
        ago = torch.tensor([[conv.dilation[0] * tap for tap in range(taps - 1, 0, -1)] for conv in convs])
        places = (torch.arange(self.size)[:, None, None] - ago) % self.size        # (ring, layers, taps - 1)
        self.reads = (places * layers + torch.arange(layers)[:, None]).flatten(1).to(front.weight.device)
        self.ring, self.now = -torch.stack(added[:layers])[None, :, None].expand(self.size, -1, -1, -1), 0

    def condition(self, cond: Tensor) -> None:
        """Take the conditioning of the next steps: (batch, time, cond_channels)."""
        self.cond, self.time = cond, 0
        if self.ring.shape[2] != len(cond):                                        # at first
            self.ring = self.ring.expand(-1, -1, len(cond), -1).clone()
            self.before = [x.expand(len(cond), -1) for x in self.before]
            self.skips = self.skips.expand(len(cond), -1)
        elif self.ring.stride(0) == 0:
            self.ring = self.ring.clone()

    def __call__(self, x: Tensor) -> Tensor:
        self.before = [*self.before[1:], x]
        h = torch.relu(torch.addmm(self.front[1], torch.cat(self.before, dim=1), self.front[0]))
        known, both, seen = self._known(), torch.cat([h, self.skips], dim=1), []
        for i, newest in enumerate(self.newest):
            seen.append(both[:, : self.width])
            gates = torch.addmm(known[i], seen[-1], newest)
            gates[:, : gates.shape[1] // 2].tanh_()
            gated = F.glu(gates, dim=1)
            if i < len(self.onward):
                both = torch.addmm(both, gated, self.onward[i])
        self._keep(torch.stack(seen))
        skips = torch.addmm(both[:, self.width :], gated, self.last_skip)
        h = torch.relu(torch.addmm(self.post[1], torch.relu(skips), self.post[0]))
        return torch.addmm(self.last[1], h, self.last[0])

    def _known(self) -> tuple[Tensor, ...]:
        """Return what is known of each layer's gates before the step: (batch, 2 * gate width) each."""
        start = self.time % BLOCK
        if start == 0:
            weight, bias = self.conditioning
            rows = self.cond[:, self.time : self.time + BLOCK].transpose(0, 1)     # (time, batch, channels)
            self._given = (rows @ weight + bias).unflatten(2, (len(self.newest), -1)).transpose(1, 2).unbind(0)
        self.time += 1
        past = self.ring.flatten(0, 1).index_select(0, self.reads[self.now])       # (layers * (taps - 1), batch, width)
        past = past.unflatten(0, (len(self.newest), -1)).transpose(1, 2).flatten(2)
        return torch.baddbmm(self._given[start], past, self.past).unbind(0)

    def _keep(self, seen: Tensor) -> None:
        """Put the newest step of all layers, (layers, batch, width), where the oldest is."""
        if torch.is_grad_enabled():
            place = torch.tensor([self.now], device=seen.device)
            self.ring = self.ring.index_copy(0, place, seen[None])
        else:
            self.ring[self.now] = seen
        self.now = (self.now + 1) % self.size
