"""Training objectives."""

from flowavenet.losses.distillation import (
    contrastive,
    gaussian_kl,
    logistic_entropy,
    logistic_log_prob,
    logistic_sample,
    mismatched,
    mixture_log_prob,
    probability_density_distillation,
)
from flowavenet.losses.likelihood import PCM_STEP, bits_per_sample, dequantise, gaussian_log_prob
from flowavenet.losses.spectral import (
    feature_loss,
    log_stft_loss,
    multi_resolution_stft_loss,
    power_loss,
    spectral_convergence,
    stft_loss,
    stft_magnitude,
    style_loss,
)

__all__ = [
    "PCM_STEP",
    "bits_per_sample",
    "contrastive",
    "dequantise",
    "feature_loss",
    "gaussian_kl",
    "gaussian_log_prob",
    "log_stft_loss",
    "logistic_entropy",
    "logistic_log_prob",
    "logistic_sample",
    "mismatched",
    "mixture_log_prob",
    "multi_resolution_stft_loss",
    "power_loss",
    "probability_density_distillation",
    "spectral_convergence",
    "stft_loss",
    "stft_magnitude",
    "style_loss",
]
