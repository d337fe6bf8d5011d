"""The radial stretch: make the length of small groups of coefficients Gaussian, whatever tails it has."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowavenet.transforms.base import State, Transform, wide

SMALLEST = -10.0
"""Log-radius below which the map is linear, so that a radius of zero is mapped, and mapped back, exactly."""


class RadialStretch(Transform):
    """Stretch the radius of groups of neighbouring channels; keep their direction.

        z = x r^(beta - 1) e^(-s),   r = sqrt(mean of x^2 over the group)
        log_det = n ((beta - 1) log r - s) + log beta for a group of n

    In the direction of the radius the map is r -> r^beta e^(-s), with the slope beta r^(beta - 1) e^(-s); in the other n - 1
    directions it is a scaling. A power below 1 models heavy tails: groups whose loudness the conditioning does not tell. A
    power above 1 models loudnesses that the conditioning pins down. Below a tiny radius, r = e^-10, the power of r is that
    of the tiny radius, and the map is linear.

    Args:
        net: maps ``cond`` to (batch, time or longer, 2 * groups): first what gives beta, then what gives s.
        size: channels of a group.

    Shape: (batch, groups * size, time).
    Lyu, Simoncelli, "Nonlinear extraction of independent components of natural images using radial Gaussianization", Neural
    Computation, 2009; the power law, with its closed form in both directions, is ours.
    """

    def __init__(self, net: nn.Module, size: int):
        super().__init__()
        self.net = net
        self.size = size

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        groups, log_radius = self._groups(x)
        power, log_scale = self.power_and_log_scale(x, cond)
        log_radius = log_radius.clamp(min=SMALLEST)
        log_factor = (power - 1) * log_radius - log_scale
        return self._scaled(groups, log_factor), self._log_det(log_factor, log_radius, power)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        groups, log_radius = self._groups(z)
        power, log_scale = self.power_and_log_scale(z, cond)
        log_radius = ((log_radius + log_scale) / power).clamp(min=SMALLEST)   # that of x
        log_factor = (power - 1) * log_radius - log_scale
        return self._scaled(groups, -log_factor), -self._log_det(log_factor, log_radius, power)

    def power_and_log_scale(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return beta, above 0.3 and 1 where the net says 0, and s, within +-2: (batch, groups, time) each."""
        power, log_scale = wide(self.net(cond))[:, : x.shape[-1]].transpose(1, 2).chunk(2, dim=1)
        return 0.3 + nn.functional.softplus(power + 0.0133), 2 * torch.tanh(log_scale / 2)

    def _groups(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x as (batch, groups, size, time), and the logarithm of each group's radius, (batch, groups, time)."""
        groups = x.unflatten(1, (-1, self.size))
        return groups, 0.5 * torch.log(wide(groups).square().mean(dim=2).clamp(min=1e-30))

    def _scaled(self, groups: Tensor, log_factor: Tensor) -> Tensor:
        return (groups * torch.exp(log_factor).unsqueeze(2)).to(groups.dtype).flatten(1, 2)

    def _log_det(self, log_factor: Tensor, log_radius: Tensor, power: Tensor) -> Tensor:
        slope = torch.where(log_radius > SMALLEST, torch.log(power), 0.0)
        return (self.size * log_factor + slope).sum(dim=1)
