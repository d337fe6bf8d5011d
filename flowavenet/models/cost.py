"""What a model costs in arithmetic, and what a device has to offer."""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from flowavenet.models.base import FlowVocoder


def forward_flops(model: FlowVocoder, device: torch.device | str = "cpu", frames: int = 64) -> float:
    """Floating-point operations per sample of audio of one pass of the model, forward or inverse: two per multiplication."""
    wave = torch.zeros(1, frames * model.hop_length, device=device)
    mel = torch.zeros(1, model.n_mels, frames, device=device)
    training, counter = model.training, FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(wave, mel)
    model.train(training)
    return counter.get_total_flops() / wave.shape[1]


def matrix_product_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """Floating-point operations per second that a large square matrix product reaches on a device: its practical peak."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end or not best:
        wait(device)
        start = time.perf_counter()
        a @ a
        wait(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def wait(device: torch.device) -> None:
    """Until the device has done all it was told: before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
