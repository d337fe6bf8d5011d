"""Training objectives."""

from flowavenet.losses.likelihood import PCM_STEP, bits_per_sample, dequantise, gaussian_log_prob

__all__ = ["PCM_STEP", "bits_per_sample", "dequantise", "gaussian_log_prob"]
