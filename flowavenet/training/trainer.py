"""Train at the precision that the machine computes well, and print lines of progress that say what is left."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.rank_zero import rank_zero_only

BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags in /proc/cpuinfo of processors that compute in bfloat16; others convert every number, many times slower."""


class RunTrainer(pl.Trainer):
    """Train with ``precision: auto``: bf16-mixed where the device computes in bfloat16, else 32-true.

    Args:
        precision: ``auto``, or what Lightning takes: 32-true, bf16-mixed, 64-true ...
        kwargs: of Lightning's Trainer.
    """

    def __init__(self, *, precision: int | str | None = "auto", **kwargs: Any):
        if precision == "auto":
            precision, why = best_precision(str(kwargs.get("accelerator", "auto")))
            if rank_zero_only.rank == 0:
                print(f"precision {precision}: {why}", file=sys.stderr)
        super().__init__(precision=precision, **kwargs)


def best_precision(accelerator: str = "auto") -> tuple[str, str]:
    """Return the fastest precision that training bears on this machine, and why in a few words."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        good, device = torch.cuda.is_bf16_supported(including_emulation=False), "GPU"
    elif accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        good, device = False, "GPU"
    else:
        good, device = bool(BFLOAT16 & processor_flags()), "processor"
    if good:
        return "bf16-mixed", f"this {device} computes in bfloat16"
    return "32-true", f"this {device} has no instructions for bfloat16, which would be slower"


def processor_flags(file: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return what the processor can do, as Linux names it; nothing elsewhere."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))), set())


class ProgressLines(pl.Callback):
    """Print a line a minute: step, nats, seconds per step, time left; on a terminal one line, renewed each second.

    Args:
        every: seconds between two lines where stderr is no terminal; the first comes after a sixth of that.
    """

    def __init__(self, every: float = 60.0):
        self.every = every

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        data, weights = trainer.datamodule, sum(weight.numel() for weight in module.model.parameters())
        self.terminal = sys.stderr.isatty()
        self.wait = 1.0 if self.terminal else self.every / 6
        self.since, self.step = time.perf_counter(), trainer.global_step
        self._say(trainer, (
            f"{module.hparams.name}, {weights / 1e6:.1f} M weights; {data.train_seconds / 3600:.2f} h to train on, "
            f"{len(data.valid.clips)} clips to validate on; from step {trainer.global_step}"
        ))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        spent, steps = time.perf_counter() - self.since, trainer.global_step - self.step
        if spent < self.wait or not steps:
            return
        parts = [f"step {trainer.global_step}"]
        for split in ("train", "valid"):
            for goal, unit in (("nats_per_sample", "nats"), ("kl", "nats of KL")):
                if (value := trainer.callback_metrics.get(f"{split}/{goal}")) is not None:
                    parts.append(f"{float(value):.3f} {unit}{' in validation' if split == 'valid' else ''}")
        parts.append(f"{spent / steps:.3f} s per step")
        if (left := _seconds_left(trainer, spent / steps)) is not None:
            parts.append(f"{_words(left)} left")
        self._say(trainer, ", ".join(parts), renewed=self.terminal)
        self.wait = 1.0 if self.terminal else self.every
        self.since, self.step = time.perf_counter(), trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._say(trainer, f"trained to step {trainer.global_step}")

    def _say(self, trainer: pl.Trainer, line: str, renewed: bool = False) -> None:
        if trainer.is_global_zero:
            start = "\r\x1b[K" if self.terminal else ""                # clears the line before
            print(f"{start}{line}", end="" if renewed else "\n", file=sys.stderr, flush=True)


def _seconds_left(trainer: pl.Trainer, per_step: float) -> float | None:
    """Return the seconds until the first limit of the run; None if it has none."""
    timers = [callback.time_remaining() for callback in trainer.callbacks if isinstance(callback, Timer)]
    left = [seconds for seconds in timers if seconds is not None]
    if trainer.max_steps > 0:
        left.append((trainer.max_steps - trainer.global_step) * per_step)
    return max(min(left), 0.0) if left else None


def _words(seconds: float) -> str:
    """Return a duration in two units.

    >>> _words(59.6), _words(3700), _words(90_000)
    ('1 min 0 s', '1 h 1 min', '25 h 0 min')
    """
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
