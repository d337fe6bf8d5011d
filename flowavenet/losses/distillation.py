"""Distillation: a fast student learns to give every sample the distribution that a slow teacher gives it.

The student draws a waveform and knows the distribution of each sample of it given the noise before; the teacher, run once
over that waveform, knows the distribution of each sample given the samples before. The losses here are divergences between
the two, sample by sample: in closed form between Gaussians, by Monte Carlo between a logistic and anything.

Shapes: means, log-scales and results are (batch, time), nats, float32 or wider. A log-scale is the natural logarithm of a
Gaussian's standard deviation or of a logistic's scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from flowavenet.losses.precision import wide

LOG_SCALE_FLOOR = -40.0
"""Narrower logistics are taken to be this wide in their density: a float32 sample times exp(40) is still finite."""


def gaussian_kl(
    mean_q: Tensor,
    log_scale_q: Tensor,
    mean_p: Tensor,
    log_scale_p: Tensor,
    clamp: float = -6.0,
    regularisation: float = 4.0,
) -> Tensor:
    """How far the Gaussian q of the student is from the Gaussian p of the teacher, at every sample.

    KL(q || p) = log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2
    loss = KL(q || p) + regularisation * (log s_q - log s_p)^2

    Both distributions are so narrow that the KL alone is ill-conditioned: its log-scales are kept above ``clamp``, and the
    second term, of log-scales as they are, draws the widths together below it too. For KL(p || q) exchange q and p.

    Args:
        mean_q, log_scale_q, mean_p, log_scale_p: (batch, time).
        clamp: least log-scale in the KL; -inf for none.
        regularisation: weight of the second term; 0 for the KL alone.

    Ping, Peng, Chen, "ClariNet: parallel wave generation in end-to-end text-to-speech", 2018, arXiv:1807.07281, section 3.
    """
    mean_q, log_scale_q, mean_p, log_scale_p = map(wide, (mean_q, log_scale_q, mean_p, log_scale_p))
    kept_p = log_scale_p.clamp(min=clamp)
    log_ratio = log_scale_q.clamp(min=clamp) - kept_p
    distance = (mean_q - mean_p) * torch.exp(-kept_p)
    # expm1, for two widths that nearly agree
    kl = 0.5 * (torch.expm1(2 * log_ratio) + distance.square()) - log_ratio
    return kl + regularisation * (log_scale_q - log_scale_p).square()


def logistic_entropy(log_scale: Tensor) -> Tensor:
    """Entropy of a logistic distribution: log s + 2, nats, in the shape of ``log_scale``."""
    return wide(log_scale) + 2


def logistic_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-density of a logistic distribution, at every sample.

    log p(x) = -log s + log sigmoid(u) + log sigmoid(-u),  u = (x - m) / s

    Args:
        x: any shape that broadcasts with ``mean`` and ``log_scale``, as (samples, batch, time) with (batch, time).
    """
    x, mean, log_scale = wide(x), wide(mean), wide(log_scale).clamp(min=LOG_SCALE_FLOOR)
    u = (x - mean) * torch.exp(-log_scale)
    return F.logsigmoid(u) + F.logsigmoid(-u) - log_scale


def logistic_sample(mean: Tensor, log_scale: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
    """Several draws of every sample from its logistic, through which gradients flow to its mean and width.

    x = m + s log(u / (1 - u)),  u uniform

    Returns:
        (samples, batch, time).
    """
    mean, log_scale = wide(mean), wide(log_scale)
    u = torch.rand((samples, *mean.shape), generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + torch.exp(log_scale) * torch.logit(u, eps=torch.finfo(u.dtype).eps)


def mixture_log_prob(x: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Log-density of a mixture of logistics, at every sample.

    log p(x) = log sum_k softmax(logits)_k logistic(x; m_k, s_k)

    Args:
        x: (..., batch, time); axes before the batch are several draws.
        logits, means, log_scales: (batch, time, mixtures).

    Returns:
        (..., batch, time).

    Salimans et al., "PixelCNN++", 2017, arXiv:1701.05517, here of continuous samples.
    """
    log_weights = wide(logits).log_softmax(dim=-1)
    return torch.logsumexp(log_weights + logistic_log_prob(x.unsqueeze(-1), means, log_scales), dim=-1)


def probability_density_distillation(
    mean: Tensor,
    log_scale: Tensor,
    teacher_log_prob: Callable[[Tensor], Tensor],
    samples: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """How far the logistic of the student is from whatever the teacher has, at every sample.

    KL(student || teacher) = H(student, teacher) - H(student)
    H(student, teacher) = -mean of log p_teacher(x) over draws x of the student;  H(student) = log s + 2

    An unbiased estimate, so it may fall below 0. The teacher's distributions are those of one waveform of the student;
    only the sample that they judge is drawn again and again, which costs no run of the teacher.

    Args:
        mean, log_scale: the student's logistic, (batch, time).
        teacher_log_prob: log-density of draws (samples, batch, time), in the same shape, as by :func:`mixture_log_prob` or
            ``torch.distributions.Normal(mean, scale).log_prob``.
        samples: draws per sample. Memory grows with it, times the mixtures of the teacher.

    Van den Oord et al., "Parallel WaveNet: fast high-fidelity speech synthesis", 2017, arXiv:1711.10433, section 4.
    """
    draws = logistic_sample(mean, log_scale, samples, generator)
    return -teacher_log_prob(draws).mean(dim=0) - logistic_entropy(log_scale)


def contrastive(kl_matched: Tensor, kl_mismatched: Tensor, weight: float = 0.3) -> Tensor:
    """Reward a student that the teacher would not take for one with another conditioning.

    KL(student(c) || teacher(c)) - weight * KL(student(c) || teacher(c')),  c' of another utterance

    Args:
        kl_matched, kl_mismatched: divergences from the teacher under the student's own conditioning and under that of
            :func:`mismatched`, any one shape.

    Van den Oord et al., arXiv:1711.10433, section 4, "contrastive loss".
    """
    return kl_matched - weight * kl_mismatched


def mismatched(cond: Tensor) -> Tensor:
    """Every item of a batch with another item's conditioning: (batch, ...), rolled by one.

    Raises:
        ValueError: for a batch of one, which has no other item.
    """
    if len(cond) < 2:
        raise ValueError(f"batch of {len(cond)} has no other item to take the conditioning from: use 2 or more")
    return cond.roll(1, dims=0)
