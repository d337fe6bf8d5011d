"""Autoregression: change every sample by amounts read off the samples before it.

In one direction all samples are changed at once, since all that is read is there; in the other they come one after the
other. A WaveNet goes from audio to noise at once and samples slowly; :class:`~flowavenet.transforms.Inverse` of the same
transform, an inverse autoregressive flow, samples at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowavenet.transforms.base import Reach, Transform
from flowavenet.transforms.heads import Head


class Autoregressive(Transform):
    """Make each sample noise by what is expected of it, given the samples before it.

    z_t = head(x_t; amounts_t),  amounts_t = net(x_0 ... x_{t-1}, cond_0 ... cond_{t-1});  log_det = sum of the head's

    Nothing comes before the first sample: its amounts are learned.

    Args:
        net: a causal net that maps (batch, head.channels, time) and ``cond``, on the time grid of ``x``, to
            (batch, head.amounts, time). Its ``steps()`` give the same step by step, as those of
            :class:`~flowavenet.nets.WaveNet` do.
        head: what is done to a sample, given its amounts.

    Shape: x (batch, 1, time).
    van den Oord et al., "WaveNet", 2016, arXiv:1609.03499; Papamakarios, Pavlakou, Murray, "Masked autoregressive flow for
    density estimation", 2017, arXiv:1705.07057.
    """

    def __init__(self, net: nn.Module, head: Head):
        super().__init__()
        self.net = net
        self.head = head
        self.first = nn.Parameter(head.start()[None, :, None])

    def amounts(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """What the head is given for every sample: (batch, head.amounts, time)."""
        after = self.net(self.head.read(x), cond)[..., :-1]
        first = self.first.to(after.dtype).expand(x.shape[0], -1, 1)   # len() would fix the batch in a graph
        return torch.cat([first, after], dim=2)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.head(x, self.amounts(x, cond))

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.head.localised(x, self.amounts(x, cond))

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = Generation(self)(z, cond)
        return x, -self.head.log_slope(x, z, self.amounts(x, cond))    # at once, now that all that is read is there

    def reach(self) -> Reach:
        return Reach(math.inf, 0)                                      # what is drawn is read for the next

    def forward_reach(self) -> Reach:
        return Reach(self.net.reach()[0] + 1, 0)


class Generation:
    """The inverse of an autoregressive transform, sample after sample, in as many pieces as one likes: each call goes on
    where the last one ended.

    Args:
        transform: as it is now.
    """

    def __init__(self, transform: Autoregressive):
        self.transform, self.steps, self.amounts = transform, transform.net.steps(), transform.first

    def __call__(self, z: Tensor, cond: Tensor) -> Tensor:
        """The next piece of the signal, from its noise z (batch, 1, time) and its conditioning."""
        head, samples = self.transform.head, []
        self.steps.condition(cond)
        amounts = self.amounts.to(z.dtype).expand(len(z), -1, 1)
        for noise in z.split(1, dim=-1):
            samples.append(head.from_noise(noise, amounts).to(z.dtype))
            amounts = self.steps(head.read(samples[-1])[..., 0])[..., None]
        self.amounts = amounts
        return torch.cat(samples, dim=-1)
