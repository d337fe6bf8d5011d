"""How fast a vocoder is on this machine: wall-clock time of synthesis against the duration of what it makes."""

from __future__ import annotations

import platform
import resource
import statistics
import sys
import time
from typing import Any

import torch

from flowavenet.models.cost import forward_flops, wait
from flowavenet.vocoder import Vocoder


def benchmark(
    vocoder: Vocoder, seconds: float = 5.0, repeats: int = 5, batch: int = 1, match: int | None = None
) -> dict[str, Any]:
    """Time ``vocoder(mel)`` on mels of the given duration, after one run that warms up.

    Args:
        vocoder: on the device to measure.
        seconds: of audio to make per item.
        repeats: runs; the median, the fastest and the slowest are reported.
        batch: items at once.
        match: rounds of mel matching; None: the checkpoint's.

    Returns:
        ``rtf``: median seconds of work per second of audio, lower is better; ``rtf_min``, ``rtf_max``; ``khz``: thousand
        samples made per second; ``gmac_per_second``: thousand million multiplications of the flow per second of audio;
        ``peak_rss_mb``: most memory this process ever held; and what was measured on what.
    """
    if seconds <= 0 or repeats < 1 or batch < 1:
        raise ValueError(f"seconds {seconds}, repeats {repeats} and batch {batch} must all be above 0")
    frames = max(1, round(seconds * vocoder.sample_rate / vocoder.settings.hop_length))
    # A mel of noise at speech level: the work does not depend on the values.
    noise = 0.1 * torch.randn(batch, frames * vocoder.settings.hop_length, generator=torch.Generator().manual_seed(0))
    mel = vocoder.mel(noise)
    made = batch * frames * vocoder.settings.hop_length / vocoder.sample_rate
    vocoder(mel, seed=0, match=match)
    times = []
    for _ in range(repeats):
        wait(vocoder.device)
        start = time.perf_counter()
        vocoder(mel, seed=0, match=match)
        wait(vocoder.device)
        times.append((time.perf_counter() - start) / made)
    rtf = statistics.median(times)
    # Linux counts in KiB, macOS in bytes
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {
        "rtf": rtf, "rtf_min": min(times), "rtf_max": max(times), "khz": vocoder.sample_rate / rtf / 1000,
        "gmac_per_second": forward_flops(vocoder.model, vocoder.device) * vocoder.sample_rate / 2e9,
        "seconds": made / batch, "batch": batch, "repeats": repeats, "precision": vocoder.precision,
        "match": vocoder.rounds(match), "peak_rss_mb": rss,
        "weights_m": sum(weight.numel() for weight in vocoder.model.parameters()) / 1e6,
        "device": _device_name(vocoder.device), "threads": torch.get_num_threads(), "torch": torch.__version__,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"
