"""A mixture of logistic distributions as a head: see :mod:`~flowavenet.transforms.heads`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet.transforms.base import wide
from flowavenet.transforms.heads import Head, at_least, log_normal, normal_quantile


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
        return normal_quantile(below, above)

    def from_noise(self, z: Tensor, cond: Tensor) -> Tensor:
        z, parameters = z.double(), self.parameters_of(cond.double())
        with torch.no_grad():
            x = self._solve(z.detach(), *(p.detach() for p in parameters))
        if not torch.is_grad_enabled():
            return x
        # one more step of Newton's method, which moves nothing but gives the gradient of what was solved
        slope = torch.exp(self.log_prob(x, cond.detach().double()) - log_normal(z.detach()))
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
        return torch.log_softmax(logits, dim=1), means, at_least(log_scales, self.least)
