"""What a model costs in arithmetic, and what a device has to offer."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from flowavenet.models.base import FlowVocoder


def forward_flops(model: FlowVocoder, device: torch.device | str = "cpu", frames: int = 16) -> float:
    """Floating-point operations per sample of audio of one pass of the model, forward or inverse: two per multiplication."""
    frames = model.whole_frames(frames)                                # then the length makes no difference
    dtype = next(model.parameters()).dtype
    wave = torch.zeros(1, frames * model.hop_length, device=device, dtype=dtype)
    mel = torch.zeros(1, model.n_mels, frames, device=device, dtype=dtype)
    voice = any_voice(model, device)
    training, counter = model.training, FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        run = model.decode if model.sequential == "encode" else model
        model.eval()
        run(wave, mel, voice)
    model.train(training)
    return counter.get_total_flops() / wave.shape[1]


def any_voice(model: FlowVocoder, device: torch.device | str = "cpu") -> Tensor | None:
    """A voice for the model, if it wants one: the work does not depend on whose."""
    width = model.config.speaker_width
    return torch.zeros(1, width, device=device) if width else None


def matrix_product_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """Floating-point operations per second that a large square matrix product reaches on a device: its practical peak."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    return _best([lambda: a @ a], 2 * size**3, device, seconds)


def convolution_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """As :func:`matrix_product_flops`, of a convolution such as vocoders are made of: 256 to 512 channels, three taps,
    over some thousand steps of time. The better one of two layouts: time steps side by side, or channels (channels last)."""
    batch, time, taps = 64 if device.type == "cuda" else 1, 4000, 3
    x = torch.randn(batch, 256, time, device=device).to(dtype)
    weight = torch.randn(512, 256, taps, device=device).to(dtype)
    rows, kernel = (a.unsqueeze(2).contiguous(memory_format=torch.channels_last) for a in (x, weight))
    layouts = [lambda: F.conv1d(x, weight, padding=1), lambda: F.conv2d(rows, kernel, padding=(0, 1))]
    return _best(layouts, 2 * batch * time * taps * 256 * 512, device, seconds)


def _best(ways: list[Callable[[], Tensor]], operations: float, device: torch.device, seconds: float) -> float:
    """Operations per second at the best run of the best way, each tried for its share of the time given."""
    best = 0.0
    for way in ways:
        with torch.no_grad():
            way()                                                      # a first run may look for an algorithm
            end = time.perf_counter() + seconds / len(ways)
            while True:
                wait(device)
                start = time.perf_counter()
                way()
                wait(device)
                best = max(best, operations / (time.perf_counter() - start))
                if time.perf_counter() > end:
                    break
    return best


def wait(device: torch.device) -> None:
    """Until the device has done all it was told: before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
