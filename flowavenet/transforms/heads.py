"""Heads: the distribution of a sample, given parameters, used as a map between the sample and Gaussian noise.

A sample x and its noise z are quantiles of each other, F the distribution function of the head and Phi the normal one:

    z = Phi^-1(F(x));   x = F^-1(Phi(z));   dz/dx = p(x) / N(z; 0, 1)

So a WaveNet is a flow, whether it predicts a Gaussian, a mixture, or a histogram.

Shapes: signals and noise (batch, time); parameters (batch, time, size); nats (batch, time).
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet.transforms.base import State, Transform, wide

LOG_SMALLEST = -700.0
"""The logarithm of the smallest probability told from zero in float64: 37 standard deviations out."""


class Head(nn.Module):
    """Describe the distribution of a sample by ``size`` parameters."""

    size: int
    """Number of parameters of one sample."""
    channels = 1
    """Number of channels that :meth:`read` makes of one sample."""

    def start(self) -> Tensor:
        """Return parameters that a net had best start with: (size,)."""
        return torch.zeros(self.size)

    def read(self, x: Tensor) -> Tensor:
        """Return a signal as the net that predicts it reads it: (batch, time, channels)."""
        return x.unsqueeze(-1)

    @abstractmethod
    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Return the log-density of each sample: (batch, time), nats."""

    @abstractmethod
    def to_noise(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Return Phi^-1(F(x)), (batch, time)."""

    @abstractmethod
    def from_noise(self, z: Tensor, parameters: Tensor) -> Tensor:
        """Return F^-1(Phi(z)), (batch, time)."""

    def log_slope(self, x: Tensor, z: Tensor, parameters: Tensor) -> Tensor:
        """Return log dz/dx where x is the sample and z its noise: (batch, time), nats."""
        return (self.log_prob(x, parameters) - log_normal(z)).to(wide(parameters).dtype)


class Gaussian(Head):
    """Describe a Gaussian: its noise is the standardised sample.

    z = (x - shift) * exp(-log_scale)

    Args:
        least: log-scales below this are raised to it; None: none is. Where audio is silent a Gaussian grows as narrow as
            it is let.
        start: of the log-scale.

    Ping, Peng, Chen, "ClariNet: parallel wave generation in end-to-end text-to-speech", 2018, arXiv:1807.07281.
    """

    size = 2

    def __init__(self, least: float | None = None, start: float = 0.0):
        super().__init__()
        self.least = least
        self.start_scale = start

    def start(self) -> Tensor:
        return torch.tensor([0.0, self.start_scale])

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        return log_normal(self.to_noise(x, parameters)) + self.log_slope(x, x, parameters)

    def to_noise(self, x: Tensor, parameters: Tensor) -> Tensor:
        shift, log_scale = self.shift_and_log_scale(parameters)
        return (x - shift) * torch.exp(-log_scale)

    def from_noise(self, z: Tensor, parameters: Tensor) -> Tensor:
        shift, log_scale = self.shift_and_log_scale(parameters)
        return z * torch.exp(log_scale) + shift

    def log_slope(self, x: Tensor, z: Tensor, parameters: Tensor) -> Tensor:
        return -self.shift_and_log_scale(parameters)[1]

    def shift_and_log_scale(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two parameters of each sample, (batch, time) each."""
        shift, log_scale = wide(parameters).unbind(-1)
        return shift, at_least(log_scale, self.least)


class Affine(Gaussian):
    """Use the same map in the other direction, as an inverse autoregressive flow does with noise.

    z = x * exp(log_scale) + shift

    Kingma et al., "Improving variational inference with inverse autoregressive flow", 2016, arXiv:1606.04934.
    """

    def to_noise(self, x: Tensor, parameters: Tensor) -> Tensor:
        return super().from_noise(x, parameters)

    def from_noise(self, z: Tensor, parameters: Tensor) -> Tensor:
        return super().to_noise(z, parameters)

    def log_slope(self, x: Tensor, z: Tensor, parameters: Tensor) -> Tensor:
        return self.shift_and_log_scale(parameters)[1]


class LogisticMixture(Head):
    """Describe a mixture of logistic distributions: a density of any shape that is easy to integrate.

    F(x) = sum_k w_k sigmoid((x - mean_k) / exp(log_scale_k)),  w = softmax(logits)

    The published heads round to 16 bits and sum over a rounding step; here audio has the step filled with noise, and the
    density is that of the continuous mixture, which compares with those of flows.

    Args:
        mixtures: how many.
        least: log-scales below this are raised to it; None: none is.
        start: of the log-scales, about.

    Salimans et al., "PixelCNN++", 2017, arXiv:1701.05517; van den Oord et al., "Parallel WaveNet", 2017, arXiv:1711.10433.
    """

    def __init__(self, mixtures: int = 10, least: float | None = None, start: float = 0.0):
        super().__init__()
        self.mixtures = mixtures
        self.size = 3 * mixtures
        self.least = least
        self.start_scale = start

    def start(self) -> Tensor:
        """Return components from narrow to wide, all at zero: alike, they would stay alike."""
        widths = self.start_scale + torch.linspace(-3.0, 1.0, self.mixtures)
        return torch.cat([torch.zeros(2 * self.mixtures), widths])

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        log_weights, means, log_scales = self.mixture(parameters)
        y = (x.unsqueeze(-1) - means) * torch.exp(-log_scales)
        return torch.logsumexp(log_weights + F.logsigmoid(y) + F.logsigmoid(-y) - log_scales, dim=-1)

    def to_noise(self, x: Tensor, parameters: Tensor) -> Tensor:
        return self._noise(x.double(), *self.mixture(parameters.double()))

    @staticmethod
    def _noise(x: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
        y = (x.unsqueeze(-1) - means) * torch.exp(-log_scales)
        below = torch.logsumexp(log_weights + F.logsigmoid(y), dim=-1)
        above = torch.logsumexp(log_weights + F.logsigmoid(-y), dim=-1)
        return normal_quantile(below, above)

    def from_noise(self, z: Tensor, parameters: Tensor) -> Tensor:
        z, mixture = z.double(), self.mixture(parameters.double())
        with torch.no_grad():
            x = self._solve(z.detach(), *(one.detach() for one in mixture))
        if not torch.is_grad_enabled():
            return x
        # one more step of Newton's method, which moves nothing but gives the gradient of what was solved
        slope = torch.exp(self.log_prob(x, parameters.detach().double()) - log_normal(z.detach()))
        return x + (z - self._noise(x, *mixture)) / slope

    def _solve(self, z: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
        """Return F^-1(Phi(z)), which lies between the smallest and the largest of the components' quantiles."""
        # mirrored where z > 0, so that F is below 1/2, where nothing is rounded away
        z = z.unsqueeze(-1)
        side = torch.where(z > 0, -1.0, 1.0).to(z.dtype)
        weights, means, scales = log_weights.exp(), side * means, log_scales.exp()
        below, above = torch.special.log_ndtr(-z.abs()), torch.special.log_ndtr(z.abs())
        wanted, quantiles = below.exp(), means + scales * (below - above)
        low, high = quantiles.amin(dim=-1, keepdim=True), quantiles.amax(dim=-1, keepdim=True)
        part = torch.linspace(0, 1, 129, dtype=z.dtype, device=z.device)
        columns = [one.unsqueeze(-2) for one in (weights, means, 1 / scales)]           # (batch, time, 1, mixtures)
        for _ in range(4):                                             # 7 bits each
            grid = low + (high - low) * part                           # (batch, time, 129)
            share = (columns[0] * torch.sigmoid((grid.unsqueeze(-1) - columns[1]) * columns[2])).sum(dim=-1)
            left = (share < wanted).sum(dim=-1, keepdim=True).clamp(1, 128)
            low, high = grid.gather(-1, left - 1), grid.gather(-1, left)
        x = (low + high) / 2
        for _ in range(2):                                             # Newton's method doubles them
            share = torch.sigmoid((x - means) / scales)
            slope = (weights * share * (1 - share) / scales).sum(dim=-1, keepdim=True)
            x = x - ((weights * share).sum(dim=-1, keepdim=True) - wanted) / slope
        return (side * x).squeeze(-1)

    def mixture(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-weights, means and log-scales, (batch, time, mixtures) each."""
        logits, means, log_scales = wide(parameters).chunk(3, dim=-1)
        return torch.log_softmax(logits, dim=-1), means, at_least(log_scales, self.least)


class MuLaw(Head):
    """Describe a histogram over the steps of 8-bit mu-law audio: even within a step, with exponential tails beyond -1 and 1.

    p(x) = softmax(logits)_k / width_k for x in step k

    Args:
        steps: of the histogram, even.

    van den Oord et al., "WaveNet", 2016, arXiv:1609.03499, section 2.2.
    """

    def __init__(self, steps: int = 256):
        super().__init__()
        self.size = self.channels = steps
        mu = steps - 1
        edges = torch.linspace(-1, 1, steps + 1, dtype=torch.float64)
        edges = edges.sign() * (torch.exp(edges.abs() * math.log1p(mu)) - 1) / mu
        self.register_buffer("edges", edges.float(), persistent=False)

    def read(self, x: Tensor) -> Tensor:
        """Return the step that each sample lies in, one-hot."""
        return F.one_hot(self._step(x), self.channels).to(x.dtype)

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        step = self._step(x)
        log_mass = _at(torch.log_softmax(wide(parameters), dim=-1), step)
        low, width = self._place(step)
        beyond = torch.where(step == 0, low + width - x, torch.where(step == self.channels - 1, x - low, 0.0))
        return log_mass - torch.log(width) - beyond / width

    def to_noise(self, x: Tensor, parameters: Tensor) -> Tensor:
        step, mass = self._step(x), torch.softmax(parameters.double(), dim=-1)
        low, width = self._place(step)
        inside = ((x - low) / width).double()
        # an exponential tail instead of an even step at both ends: how much of the mass lies further out
        first, last = step == 0, step == self.channels - 1
        part = torch.where(first, torch.exp(torch.where(first, inside - 1, 0.0)), inside)
        rest = torch.where(last, torch.exp(torch.where(last, -inside, 0.0)), 1 - part)
        part = torch.where(last, 1 - rest, part)
        at = _at(mass, step)
        below = _at(mass.cumsum(-1) - mass, step) + at * part
        above = _at(mass.flip(-1).cumsum(-1).flip(-1) - mass, step) + at * rest
        return normal_quantile(below.log(), above.log())

    def from_noise(self, z: Tensor, parameters: Tensor) -> Tensor:
        mass, upper = torch.softmax(parameters.double(), dim=-1), z >= 0
        # from the nearer end, where small probabilities are not rounded away
        mass = torch.where(upper.unsqueeze(-1), mass.flip(-1), mass)
        wanted = torch.special.log_ndtr(-z.double().abs()).exp()        # ndtr gives 0 from 8 standard deviations on
        total = mass.cumsum(-1)
        step = (total < wanted.unsqueeze(-1)).sum(dim=-1).clamp(max=self.channels - 1)
        part = (wanted - _at(total - mass, step)) / _at(mass, step)
        tiny, last = torch.finfo(part.dtype).tiny, self.channels - 1
        # the tail of this end, and that of the other one, where most of the mass may lie
        inside = torch.where(step == last, -(1 - part).clamp(min=tiny).log(), part)
        part = torch.where(step == 0, 1 + part.clamp(min=tiny).log(), inside)
        step, part = torch.where(upper, last - step, step), torch.where(upper, 1 - part, part)
        low, width = self._place(step)
        return low + width * part

    def _step(self, x: Tensor) -> Tensor:
        inner = self.edges[1:-1].to(x.dtype)
        return torch.bucketize(x.contiguous(), inner, right=True)

    def _place(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Return where a step begins, and its width."""
        return self.edges[step], self.edges[step + 1] - self.edges[step]


def _at(values: Tensor, step: Tensor) -> Tensor:
    """Take one of the values (batch, time, steps) at each time: (batch, time)."""
    return values.gather(-1, step.unsqueeze(-1)).squeeze(-1)


class LogisticNoise(Transform):
    """Map logistic noise to Gaussian noise, sample by sample: what lies under a flow that was made for logistic noise.

    z = Phi^-1(sigmoid(x));  log_det = log sigmoid(x) + log sigmoid(-x) - log N(z; 0, 1), of a signal of one channel
    """

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = normal_quantile(F.logsigmoid(x.double()), F.logsigmoid(-x.double()))
        return z.to(x.dtype), self._log_slope(x, z)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        x = torch.special.log_ndtr(wide(z)) - torch.special.log_ndtr(-wide(z))
        return x.to(z.dtype), -self._log_slope(x, z)

    @staticmethod
    def _log_slope(x: Tensor, z: Tensor) -> Tensor:
        nats = F.logsigmoid(x.double()) + F.logsigmoid(-x.double()) - log_normal(z.double())
        return nats.sum(dim=1).to(wide(x).dtype)


def at_least(log_scale: Tensor, least: float | None) -> Tensor:
    """Raise the log-scale to ``least`` where it is below; None: leave it as it is."""
    return log_scale if least is None else log_scale.clamp(min=least)


def normal_quantile(log_below: Tensor, log_above: Tensor) -> Tensor:
    """Return Phi^-1 of a probability given as the logarithms, in float64, of itself and of what is left."""
    tail = torch.minimum(log_below, log_above).clamp(min=LOG_SMALLEST)
    return torch.special.ndtri(torch.exp(tail)) * torch.where(log_below < log_above, 1.0, -1.0)


def log_normal(z: Tensor) -> Tensor:
    """Return the log-density of standard Gaussian noise, element by element."""
    return -0.5 * (z.square() + math.log(2 * math.pi))
