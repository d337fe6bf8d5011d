"""Heads: one number is made noise by a distribution whose parameters are given, and the other way round.

Whatever the distribution p with cumulative distribution F, the number becomes standard Gaussian noise by

    z = Phi^-1(F(x)),  log dz/dx = log p(x) - log N(z; 0, 1)

so that a WaveNet is a flow, whether it predicts a Gaussian, a mixture, or a histogram. The parameters take the place of
the conditioning: (batch, amounts, time), for a signal of one channel.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet.transforms.base import Transform, wide

LOG_SMALLEST = -700.0
"""The logarithm of the smallest probability told from zero in float64: 37 standard deviations out."""


class Head(Transform):
    """A distribution of one sample, as a transform."""

    amounts: int
    """Parameters of one sample."""
    channels = 1
    """What :meth:`read` gives for one sample."""

    def start(self) -> Tensor:
        """Parameters that a net had best start with: (amounts,)."""
        return torch.zeros(self.amounts)

    def read(self, x: Tensor) -> Tensor:
        """A signal (batch, 1, time) as the net that predicts it reads it: (batch, channels, time)."""
        return x

    @abstractmethod
    def log_prob(self, x: Tensor, cond: Tensor) -> Tensor:
        """Log-density of each sample: (batch, 1, time), nats."""

    @abstractmethod
    def to_noise(self, x: Tensor, cond: Tensor) -> Tensor:
        """Phi^-1(F(x))."""

    @abstractmethod
    def from_noise(self, z: Tensor, cond: Tensor) -> Tensor:
        """F^-1(Phi(z))."""

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = self.to_noise(x, cond)
        return z.to(x.dtype), self._log_slope(x, z, cond).sum(dim=(1, 2)).to(wide(x).dtype)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.from_noise(z, cond)
        return x.to(z.dtype), -self._log_slope(x, z, cond).sum(dim=(1, 2)).to(wide(z).dtype)

    def _log_slope(self, x: Tensor, z: Tensor, cond: Tensor) -> Tensor:
        return self.log_prob(x, cond) - _log_normal(z)


class Gaussian(Head):
    """A Gaussian: its noise is the sample, standardised.

    z = (x - shift) * exp(-log_scale)

    Args:
        least: log-scales below this are raised to it; None: none is. Where audio is silent a Gaussian grows as narrow as
            it is let.
        start: of the log-scale.

    Ping, Peng, Chen, "ClariNet: parallel wave generation in end-to-end text-to-speech", 2018, arXiv:1807.07281.
    """

    amounts = 2

    def __init__(self, least: float | None = None, start: float = 0.0):
        super().__init__()
        self.least = least
        self.start_scale = start

    def start(self) -> Tensor:
        return torch.tensor([0.0, self.start_scale])

    def log_prob(self, x: Tensor, cond: Tensor) -> Tensor:
        return _log_normal(self.to_noise(x, cond)) - self.parameters_of(cond)[1]

    def to_noise(self, x: Tensor, cond: Tensor) -> Tensor:
        shift, log_scale = self.parameters_of(cond)
        return (x - shift) * torch.exp(-log_scale)

    def from_noise(self, z: Tensor, cond: Tensor) -> Tensor:
        shift, log_scale = self.parameters_of(cond)
        return z * torch.exp(log_scale) + shift

    def _log_slope(self, x: Tensor, z: Tensor, cond: Tensor) -> Tensor:
        return -self.parameters_of(cond)[1]

    def parameters_of(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and log-scale."""
        shift, log_scale = wide(cond).chunk(2, dim=1)
        return shift, _at_least(log_scale, self.least)


class Affine(Gaussian):
    """The same map, used in the other direction: what an inverse autoregressive flow does to the noise.

    z = x * exp(log_scale) + shift

    Kingma et al., "Improving variational inference with inverse autoregressive flow", 2016, arXiv:1606.04934.
    """

    def log_prob(self, x: Tensor, cond: Tensor) -> Tensor:
        return _log_normal(self.to_noise(x, cond)) + self.parameters_of(cond)[1]

    def to_noise(self, x: Tensor, cond: Tensor) -> Tensor:
        return super().from_noise(x, cond)

    def from_noise(self, z: Tensor, cond: Tensor) -> Tensor:
        return super().to_noise(z, cond)

    def _log_slope(self, x: Tensor, z: Tensor, cond: Tensor) -> Tensor:
        return self.parameters_of(cond)[1]


class LogisticMixture(Head):
    """A mixture of logistic distributions: a density that is easy to integrate, of any shape.

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
        self.amounts = 3 * mixtures
        self.least = least
        self.start_scale = start

    def start(self) -> Tensor:
        """Alike, they would stay alike: they begin from narrow to wide, all at zero."""
        widths = self.start_scale + torch.linspace(-3.0, 1.0, self.mixtures)
        return torch.cat([torch.zeros(2 * self.mixtures), widths])

    def log_prob(self, x: Tensor, cond: Tensor) -> Tensor:
        log_weights, means, log_scales = self.parameters_of(cond)
        y = (x - means) * torch.exp(-log_scales)
        return torch.logsumexp(log_weights + F.logsigmoid(y) + F.logsigmoid(-y) - log_scales, dim=1, keepdim=True)

    def to_noise(self, x: Tensor, cond: Tensor) -> Tensor:
        return self._noise(x.double(), *self.parameters_of(cond.double()))

    @staticmethod
    def _noise(x: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
        y = (x - means) * torch.exp(-log_scales)
        below = torch.logsumexp(log_weights + F.logsigmoid(y), dim=1, keepdim=True)
        above = torch.logsumexp(log_weights + F.logsigmoid(-y), dim=1, keepdim=True)
        return _normal_quantile(below, above)

    def from_noise(self, z: Tensor, cond: Tensor) -> Tensor:
        z, parameters = z.double(), self.parameters_of(cond.double())
        with torch.no_grad():
            x = self._solve(z.detach(), *(p.detach() for p in parameters))
        if not torch.is_grad_enabled():
            return x
        # one more step of Newton's method, which moves nothing but gives the gradient of what was solved
        slope = torch.exp(self.log_prob(x, cond.detach().double()) - _log_normal(z.detach()))
        return x + (z - self._noise(x, *parameters)) / slope

    def _solve(self, z: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
        """F^-1(Phi(z)), which lies between the smallest and the largest of the components' quantiles."""
        # mirrored where z > 0, so that F is below 1/2, where nothing is rounded away
        side = torch.where(z > 0, -1.0, 1.0).to(z.dtype)
        weights, means, scales = log_weights.exp(), side * means, log_scales.exp()
        below, above = torch.special.log_ndtr(-z.abs()), torch.special.log_ndtr(z.abs())
        wanted, quantiles = below.exp(), means + scales * (below - above)
        low, high = quantiles.amin(dim=1, keepdim=True), quantiles.amax(dim=1, keepdim=True)
        part = torch.linspace(0, 1, 129, dtype=z.dtype, device=z.device)
        columns = [p.unsqueeze(-1) for p in (weights, means, 1 / scales)]
        for _ in range(4):                                             # 7 bits each
            grid = low.unsqueeze(-1) + (high - low).unsqueeze(-1) * part
            share = (columns[0] * torch.sigmoid((grid - columns[1]) * columns[2])).sum(dim=1, keepdim=True)
            left = (share < wanted.unsqueeze(-1)).sum(dim=-1, keepdim=True).clamp(1, 128)
            low, high = grid.gather(-1, left - 1)[..., 0], grid.gather(-1, left)[..., 0]
        x = (low + high) / 2
        for _ in range(2):                                             # Newton's method doubles them
            share = torch.sigmoid((x - means) / scales)
            slope = (weights * share * (1 - share) / scales).sum(dim=1, keepdim=True)
            x = x - ((weights * share).sum(dim=1, keepdim=True) - wanted) / slope
        return side * x

    def parameters_of(self, cond: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales, (batch, mixtures, time) each."""
        logits, means, log_scales = wide(cond).chunk(3, dim=1)
        return torch.log_softmax(logits, dim=1), means, _at_least(log_scales, self.least)


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
        return _normal_quantile(below.log(), above.log())

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


class LogisticNoise(Transform):
    """Gaussian noise instead of logistic noise, sample by sample: what lies under a flow that was made for logistic noise.

    z = Phi^-1(sigmoid(x));  log_det = sum(log sigmoid(x) + log sigmoid(-x) - log N(z; 0, 1))
    """

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = _normal_quantile(F.logsigmoid(x.double()), F.logsigmoid(-x.double()))
        return z.to(x.dtype), self._log_slope(x, z)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = torch.special.log_ndtr(wide(z)) - torch.special.log_ndtr(-wide(z))
        return x.to(z.dtype), -self._log_slope(x, z)

    @staticmethod
    def _log_slope(x: Tensor, z: Tensor) -> Tensor:
        log_slope = F.logsigmoid(x.double()) + F.logsigmoid(-x.double()) - _log_normal(z.double())
        return log_slope.sum(dim=(1, 2)).to(wide(x).dtype)


def _at_least(log_scale: Tensor, least: float | None) -> Tensor:
    return log_scale if least is None else log_scale.clamp(min=least)


def _normal_quantile(log_below: Tensor, log_above: Tensor) -> Tensor:
    """Phi^-1 of a probability given as the logarithms, in float64, of itself and of what is left."""
    tail = torch.minimum(log_below, log_above).clamp(min=LOG_SMALLEST)
    return torch.special.ndtri(torch.exp(tail)) * torch.where(log_below < log_above, 1.0, -1.0)


def _log_normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square() + math.log(2 * math.pi))
