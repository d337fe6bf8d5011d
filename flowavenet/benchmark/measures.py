"""What one case takes, measured in this process: wall-clock time, memory, and the arithmetic that was to be done."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowavenet.models.cost import any_voice, convolution_flops, forward_flops, matrix_product_flops, wait
from flowavenet.streaming import PRECISIONS
from flowavenet.vocoder import Vocoder

PATIENCE = 5.0
"""Seconds after which work is not repeated any more, once it was timed twice."""
CROP = 0.72
"""Seconds of audio in each item of a training batch: the 15,872 samples of the FloWaveNet paper at 22,050 Hz."""


def benchmark(
    vocoder: Vocoder, seconds: float = 5.0, repeats: int = 5, batch: int = 1, match: int | None = None
) -> dict[str, Any]:
    """Time ``vocoder(mel)`` on mels of the given duration, after one run that warms up.

    Args:
        vocoder: on the device to measure.
        seconds: of audio to make per item.
        repeats: runs, fewer if they are long; the median, the fastest and the slowest are reported.
        batch: items at once.
        match: rounds of mel matching; None: the checkpoint's.

    Returns:
        ``rtf``: median seconds of work per second of audio, lower is better; ``rtf_min``, ``rtf_max``; ``khz``: thousand
        samples made per second; ``flow_rtf``: of the flow alone, without matching; ``gmac_per_second``: thousand million
        multiplications of the flow per second of audio; ``gflops``: thousand million operations per second that the flow
        alone reaches, two per multiplication; ``peak_mb``: most memory held meanwhile, ``work_mb``: on top of the loaded
        model (MB of 10^6 bytes); and what was measured.
    """
    if seconds <= 0 or repeats < 1 or batch < 1:
        raise ValueError(f"seconds {seconds}, repeats {repeats} and batch {batch} must all be above 0")
    hop, match = vocoder.settings.hop_length, _rounds(vocoder, match)
    mel = _mel(vocoder, max(1, round(seconds * vocoder.sample_rate / hop)), batch)
    made = batch * mel.shape[-1] * hop / vocoder.sample_rate
    memory = Memory(vocoder.device)
    voice = any_voice(vocoder.model, vocoder.device)
    runs = [partial(vocoder, mel, seed=0, match=rounds, speaker=voice) for rounds in dict.fromkeys((match, 0))]
    runs[0]()
    held = memory.figures()
    # in turns, so that what slows the machine down meanwhile slows both of them down
    timings = _timed(vocoder.device, repeats, *runs)
    times, alone = timings[0], timings[-1]                             # the same without matching
    rtf, flow_rtf = (statistics.median(taken) / made for taken in (times, alone))
    flops = forward_flops(vocoder.model, vocoder.device) * vocoder.sample_rate
    return {
        "rtf": rtf, "rtf_min": min(times) / made, "rtf_max": max(times) / made, "khz": vocoder.sample_rate / rtf / 1000,
        "flow_rtf": flow_rtf, "gmac_per_second": flops / 2e9,
        "gflops": flops / flow_rtf / 1e9, **held,
        "seconds": made / batch, "batch": batch, "repeats": len(times), "match": match,
        "context_frames": list(vocoder.receptive_field(match)), "flow_context_frames": list(vocoder.receptive_field(0)),
        **_about(vocoder),
    }


def stream(
    vocoder: Vocoder, chunk_frames: int = 32, seconds: float = 5.0, repeats: int = 5, match: int | None = None
) -> dict[str, Any]:
    """Time ``vocoder.stream``: its first chunk, and one far from the beginning, with all the context that it computes again.

    Args:
        vocoder, repeats, match: as for :func:`benchmark`.
        chunk_frames: frames per chunk.
        seconds: of audio to make as a whole, to compare with.

    Returns:
        ``first_ms``: from the call to the first chunk, when the mel is there already; ``chunk_ms``: what a chunk lasts;
        ``look_ahead_ms``: how much more mel than its own a chunk needs; ``delay_ms``: the three together, from the first
        frame of a mel that comes in real time to the first audio; ``rtf``: seconds of work per second of audio, for a
        chunk that has its whole context; ``overhead``: that over the ``rtf_whole`` of the work done at once; memory as
        :func:`benchmark`.
    """
    if chunk_frames < 1 or seconds <= 0 or repeats < 1:
        raise ValueError(f"chunk_frames {chunk_frames}, seconds {seconds} and repeats {repeats} must all be above 0")
    frame = vocoder.settings.hop_length / vocoder.sample_rate
    before, after = vocoder.receptive_field(match)
    early = -(-before // chunk_frames)                                 # chunks with less context than the later ones
    mel = _mel(vocoder, (early + 1 + repeats) * chunk_frames + after)
    memory, voice = Memory(vocoder.device), any_voice(vocoder.model, vocoder.device)

    def start() -> Any:
        return vocoder.stream(mel, chunk_frames, seed=0, match=match, speaker=voice)

    first = statistics.median(_timed(vocoder.device, repeats, lambda: next(start()))[0])
    running = start()
    for _ in range(early):
        next(running)
    later = statistics.median(_timed(vocoder.device, repeats, lambda: next(running))[0]) / (chunk_frames * frame)
    held = memory.figures()
    all_of_it = _mel(vocoder, max(1, round(seconds / frame)))
    times = _timed(vocoder.device, repeats, partial(vocoder, all_of_it, seed=0, match=match, speaker=voice))[0]
    whole = statistics.median(times) / (all_of_it.shape[-1] * frame)
    chunk_ms, look_ahead_ms, first_ms = 1000 * chunk_frames * frame, 1000 * after * frame, 1000 * first
    return {
        "chunk_frames": chunk_frames, "chunk_ms": chunk_ms, "look_ahead_ms": look_ahead_ms, "first_ms": first_ms,
        "delay_ms": chunk_ms + look_ahead_ms + first_ms, "rtf": later, "rtf_whole": whole, "overhead": later / whole,
        "context_frames": [before, after], **held, "match": _rounds(vocoder, match), **_about(vocoder),
    }


def train(vocoder: Vocoder, batch: int = 1, repeats: int = 5, constant_memory: bool = False) -> dict[str, Any]:
    """Time a step of training by likelihood: forward, backward, gradient clipping and AdamW.

    Args:
        vocoder: its model takes the steps, in its precision; at a rate of 0, so that the weights stay as they are. Only an
            ActNorm that has seen no data yet is initialised.
        batch: crops of 0.72 s at once.
        repeats: steps, after a first one.
        constant_memory: whether activations are computed again instead of kept.

    Returns:
        ``step_seconds``: the median, and ``step_min``, ``step_max``; ``khz``: thousand samples trained on per second;
        ``gflops``: as for :func:`benchmark`, counting three forward passes for a step, however it is done; ``kept_mb``:
        weights, gradients and the optimizer's averages; ``peak_mb``; ``work_mb``: of it, on top of what is kept.
    """
    if batch < 1 or repeats < 1:
        raise ValueError(f"batch {batch} and repeats {repeats} must both be above 0")
    model, device, half = vocoder.model, vocoder.device, PRECISIONS[vocoder.precision]
    hop, was = vocoder.settings.hop_length, (model.training, model.constant_memory)
    frames = model.whole_frames(round(CROP * vocoder.sample_rate / hop))
    wave = 0.1 * torch.randn(batch, frames * hop, generator=torch.Generator().manual_seed(0)).to(device)
    mel, voice = vocoder.mel(wave), any_voice(vocoder.model, vocoder.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model.train().constant_memory = constant_memory

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, half, enabled=half is not None):
            loss = -(model(wave, mel, voice) / wave.shape[1]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    memory = Memory(device)
    times = _timed(device, repeats, step)[0]
    held = memory.figures()
    weights = _megabytes(model.parameters())
    grown = sum(_megabytes(state.values()) for state in optimizer.state.values())
    grown += _megabytes(p.grad for p in model.parameters() if p.grad is not None)
    optimizer.zero_grad()
    model.train(was[0]).constant_memory = was[1]
    took = statistics.median(times)
    flops = 3 * forward_flops(model, device) * wave.numel()
    return {
        "step_seconds": took, "step_min": min(times), "step_max": max(times), "khz": wave.numel() / took / 1000,
        "gflops": flops / took / 1e9, "kept_mb": weights + grown, "peak_mb": held["peak_mb"],
        "work_mb": max(0.0, held["work_mb"] - grown), "batch": batch, "seconds": wave.shape[1] / vocoder.sample_rate,
        "constant_memory": constant_memory, "repeats": len(times), **_about(vocoder),
    }


def _rounds(vocoder: Vocoder, match: int | None) -> int:
    return vocoder.synthesis["match"] if match is None else match


def ceiling(device: str | torch.device = "cpu", precision: str = "float32", seconds: float = 0.5) -> dict[str, float]:
    """What the device can do at best, in thousand million operations per second: large matrix products, and convolutions."""
    device, dtype = torch.device(device), PRECISIONS[precision] or torch.float32
    return {
        "matrix_gflops": matrix_product_flops(device, dtype, seconds) / 1e9,
        "convolution_gflops": convolution_flops(device, dtype, seconds) / 1e9,
    }


def machine() -> dict[str, Any]:
    """What is measured on, and when."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "malloc": {key: value for key, value in os.environ.items() if key.startswith("MALLOC_")} or "default",
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
        "torch": torch.__version__, "date": datetime.now(timezone.utc).date().isoformat(),
    }


class Memory:
    """The most memory held since this was made: on a GPU of what torch has there, elsewhere of the whole process.

    Not of ``getrusage``, if it can be helped: that never forgets, and on Linux even what the parent had when this process
    was started.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with contextlib.suppress(OSError):                             # Linux forgets the peak so far if asked to
            Path("/proc/self/clear_refs").write_text("5")
        self.before = self._now_and_peak()[0]

    def figures(self) -> dict[str, float]:
        """``peak_mb``, and ``work_mb``, how much of it came on top of what was held before."""
        peak = self._now_and_peak()[1]
        return {"peak_mb": peak, "work_mb": max(0.0, peak - self.before)}

    def _now_and_peak(self) -> tuple[float, float]:
        if self.device.type == "cuda":
            now, peak = torch.cuda.memory_allocated(self.device), torch.cuda.max_memory_allocated(self.device)
            return now / 1e6, peak / 1e6
        status = Path("/proc/self/status")
        if status.exists():
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            now, peak = (int(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
            return now, peak
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
        return peak, peak


def _timed(device: torch.device, repeats: int, *works: Callable[[], Any]) -> list[list[float]]:
    """Seconds that each run takes, of each work, in turns: whatever else slows the machine down slows all of them down.

    The first work runs once before, to warm up.
    """
    works[0]()
    times: list[list[float]] = [[] for _ in works]
    spent = 0.0
    for turn in range(repeats):
        if turn >= 2 and spent > PATIENCE:
            break
        for work, taken in zip(works, times, strict=True):
            wait(device)
            start = time.perf_counter()
            work()
            wait(device)
            taken.append(time.perf_counter() - start)
            spent += taken[-1]
    return times


def _mel(vocoder: Vocoder, frames: int, batch: int = 1) -> Tensor:
    """A mel of noise at speech level, over and over: the work does not depend on the values, nor memory on making them."""
    noise = 0.1 * torch.randn(batch, 64 * vocoder.settings.hop_length, generator=torch.Generator().manual_seed(0))
    mel = vocoder.mel(noise)
    return mel.repeat(1, 1, -(-frames // mel.shape[-1]))[..., :frames]


def _about(vocoder: Vocoder) -> dict[str, Any]:
    return {
        "weights_m": sum(weight.numel() for weight in vocoder.model.parameters()) / 1e6, "precision": vocoder.precision,
        "sample_rate": vocoder.sample_rate, "hop_length": vocoder.settings.hop_length, "threads": torch.get_num_threads(),
    }


def _megabytes(tensors: Any) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6
