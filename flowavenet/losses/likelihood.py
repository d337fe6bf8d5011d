"""Exact likelihood: the one loss of a flow, and the units it is told in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flowavenet.losses.precision import wide

PCM_STEP = 1 / 32768
"""One step of 16-bit audio on the scale where full level is 1."""


def gaussian_log_prob(noise: Tensor) -> Tensor:
    """Log-density of standard Gaussian noise, summed over everything but the batch: (batch, ...) to (batch,), nats.

    log N(z; 0, 1) = -(z^2 + log 2 pi) / 2
    """
    z = wide(noise.flatten(1))
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)


def dequantise(wave: Tensor, step: float = PCM_STEP, generator: torch.Generator | None = None) -> Tensor:
    """Spread every sample evenly over the rounding step it came from.

    x + u,  u uniform in [-step / 2, step / 2)

    Audio of 16 bits is a grid of points, and a density can be made as large as one likes on a grid. With the step
    filled, ``E[log density] + log(1 / step)`` is a lower bound of the log-probability of the 16-bit file.

    Args:
        wave: any shape, samples in [-1, 1].
        step: width of the noise; 0 leaves the wave as it is.

    Theis et al., "A note on the evaluation of generative models", 2016, arXiv:1511.01844, section 3.1.
    """
    if step == 0:
        return wave
    noise = torch.rand(wave.shape, generator=generator, dtype=wave.dtype, device=wave.device)
    return wave + step * (noise - 0.5)


def bits_per_sample(nats_per_sample: float | Tensor, step: float = PCM_STEP) -> float | Tensor:
    """Bits that a perfect coder with this model would need per sample of step-sized audio, from nats of density.

    bits = -(nats + log step) / log 2

    >>> round(bits_per_sample(0.0), 6)
    15.0
    """
    return -(nats_per_sample + math.log(step)) / math.log(2)
