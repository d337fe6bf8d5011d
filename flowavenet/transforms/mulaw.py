"""A histogram of mu-law steps as a head: see :mod:`~flowavenet.transforms.heads`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet.transforms.base import wide
from flowavenet.transforms.heads import Head, normal_quantile


class MuLaw(Head):
    """A histogram over the steps of 8-bit mu-law audio: even within a step, with an exponential tail beyond full scale.

    p(x) = softmax(logits)_k / width_k for x in step k

    Args:
        steps: of the histogram, even.

    van den Oord et al., "WaveNet", 2016, arXiv:1609.03499, section 2.2.
    """

    def __init__(self, steps: int = 256):
        super().__init__()
        self.amounts = self.channels = steps
        mu = steps - 1
        edges = torch.linspace(-1, 1, steps + 1, dtype=torch.float64)
        edges = edges.sign() * (torch.exp(edges.abs() * math.log1p(mu)) - 1) / mu
        self.register_buffer("edges", edges.float(), persistent=False)

    def read(self, x: Tensor) -> Tensor:
        """The step that each sample lies in, one-hot."""
        return F.one_hot(self._step(x)[:, 0], self.channels).transpose(1, 2).to(x.dtype)

    def log_prob(self, x: Tensor, cond: Tensor) -> Tensor:
        step = self._step(x)
        log_mass = torch.log_softmax(wide(cond), dim=1).gather(1, step)
        low, width = self._place(step)
        beyond = torch.where(step == 0, low + width - x, torch.where(step == self.channels - 1, x - low, 0.0))
        return log_mass - torch.log(width) - beyond / width

    def to_noise(self, x: Tensor, cond: Tensor) -> Tensor:
        step, mass = self._step(x), torch.softmax(cond.double(), dim=1)
        low, width = self._place(step)
        inside = ((x - low) / width).double()
        # an exponential tail instead of an even step at both ends: how much of the mass lies further out
        first, last = step == 0, step == self.channels - 1
        part = torch.where(first, torch.exp(torch.where(first, inside - 1, 0.0)), inside)
        rest = torch.where(last, torch.exp(torch.where(last, -inside, 0.0)), 1 - part)
        part = torch.where(last, 1 - rest, part)
        at = mass.gather(1, step)
        below = (mass.cumsum(1) - mass).gather(1, step) + at * part
        above = (mass.flip(1).cumsum(1).flip(1) - mass).gather(1, step) + at * rest
        return normal_quantile(below.log(), above.log())

    def from_noise(self, z: Tensor, cond: Tensor) -> Tensor:
        mass, upper = torch.softmax(cond.double(), dim=1), z >= 0
        # from the nearer end, where small probabilities are not rounded away
        mass = torch.where(upper, mass.flip(1), mass)
        wanted = torch.special.log_ndtr(-z.double().abs()).exp()        # ndtr gives 0 from 8 standard deviations on
        total = mass.cumsum(1)
        step = (total < wanted).sum(dim=1, keepdim=True).clamp(max=self.channels - 1)
        part = (wanted - (total - mass).gather(1, step)) / mass.gather(1, step)
        part = torch.where(step == 0, 1 + part.clamp(min=torch.finfo(part.dtype).tiny).log(), part)
        step, part = torch.where(upper, self.channels - 1 - step, step), torch.where(upper, 1 - part, part)
        low, width = self._place(step)
        return low + width * part

    def _step(self, x: Tensor) -> Tensor:
        inner = self.edges[1:-1].to(x.dtype)
        return torch.bucketize(x.contiguous(), inner, right=True)

    def _place(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Where a step begins, and its width."""
        return self.edges[step], self.edges[step + 1] - self.edges[step]
