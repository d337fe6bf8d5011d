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
        return z.to(x.dtype), self.log_slope(x, z, cond)

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = self.to_noise(x, cond)
        return z.to(x.dtype), self._log_slopes(x, z, cond).to(wide(cond).dtype)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.from_noise(z, cond)
        return x.to(z.dtype), -self.log_slope(x, z, cond)

    def log_slope(self, x: Tensor, z: Tensor, cond: Tensor) -> Tensor:
        """Log-det of ``forward`` where x is the sample and z its noise: (batch,)."""
        return self._log_slopes(x, z, cond).sum(dim=(1, 2)).to(wide(cond).dtype)

    def _log_slopes(self, x: Tensor, z: Tensor, cond: Tensor) -> Tensor:
        return self.log_prob(x, cond) - log_normal(z)


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
        return log_normal(self.to_noise(x, cond)) - self.parameters_of(cond)[1]

    def to_noise(self, x: Tensor, cond: Tensor) -> Tensor:
        shift, log_scale = self.parameters_of(cond)
        return (x - shift) * torch.exp(-log_scale)

    def from_noise(self, z: Tensor, cond: Tensor) -> Tensor:
        shift, log_scale = self.parameters_of(cond)
        return z * torch.exp(log_scale) + shift

    def _log_slopes(self, x: Tensor, z: Tensor, cond: Tensor) -> Tensor:
        return -self.parameters_of(cond)[1]

    def parameters_of(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and log-scale."""
        shift, log_scale = wide(cond).chunk(2, dim=1)
        return shift, at_least(log_scale, self.least)


class Affine(Gaussian):
    """The same map, used in the other direction: what an inverse autoregressive flow does to the noise.

    z = x * exp(log_scale) + shift

    Kingma et al., "Improving variational inference with inverse autoregressive flow", 2016, arXiv:1606.04934.
    """

    def log_prob(self, x: Tensor, cond: Tensor) -> Tensor:
        return log_normal(self.to_noise(x, cond)) + self.parameters_of(cond)[1]

    def to_noise(self, x: Tensor, cond: Tensor) -> Tensor:
        return super().from_noise(x, cond)

    def from_noise(self, z: Tensor, cond: Tensor) -> Tensor:
        return super().to_noise(z, cond)

    def _log_slopes(self, x: Tensor, z: Tensor, cond: Tensor) -> Tensor:
        return self.parameters_of(cond)[1]


class LogisticNoise(Transform):
    """Gaussian noise instead of logistic noise, sample by sample: what lies under a flow that was made for logistic noise.

    z = Phi^-1(sigmoid(x));  log_det = sum(log sigmoid(x) + log sigmoid(-x) - log N(z; 0, 1))
    """

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = self._to_noise(x)
        return z.to(x.dtype), self._log_slopes(x, z).sum(dim=(1, 2)).to(wide(x).dtype)

    def localised(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = self._to_noise(x)
        return z.to(x.dtype), self._log_slopes(x, z).to(wide(x).dtype)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = torch.special.log_ndtr(wide(z)) - torch.special.log_ndtr(-wide(z))
        return x.to(z.dtype), -self._log_slopes(x, z).sum(dim=(1, 2)).to(wide(x).dtype)

    @staticmethod
    def _to_noise(x: Tensor) -> Tensor:
        return normal_quantile(F.logsigmoid(x.double()), F.logsigmoid(-x.double()))

    @staticmethod
    def _log_slopes(x: Tensor, z: Tensor) -> Tensor:
        return F.logsigmoid(x.double()) + F.logsigmoid(-x.double()) - log_normal(z.double())


def at_least(log_scale: Tensor, least: float | None) -> Tensor:
    """The log-scale, raised to ``least`` where it is below; None: as it is."""
    return log_scale if least is None else log_scale.clamp(min=least)


def normal_quantile(log_below: Tensor, log_above: Tensor) -> Tensor:
    """Phi^-1 of a probability given as the logarithms, in float64, of itself and of what is left."""
    tail = torch.minimum(log_below, log_above).clamp(min=LOG_SMALLEST)
    return torch.special.ndtri(torch.exp(tail)) * torch.where(log_below < log_above, 1.0, -1.0)


def log_normal(z: Tensor) -> Tensor:
    """Log-density of standard Gaussian noise, element by element."""
    return -0.5 * (z.square() + math.log(2 * math.pi))
