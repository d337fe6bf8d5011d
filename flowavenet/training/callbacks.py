"""Keep what a run leaves beside its checkpoint: the vocoder's folder at averaged weights, and how fast training goes."""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer, WeightAveraging
from torch import Tensor

from flowavenet.checkpoint import save_checkpoint
from flowavenet.models import FlowVocoder
from flowavenet.models.cost import forward_flops, matrix_product_flops, wait


class SaveVocoder(pl.Callback):
    """Keep ``<run>/vocoder``, a checkpoint folder that every verb takes, at the averaged weights.

    Written after each validation, at the end, and when the run is told to stop, with the weights (the moving average, if
    there is one) and the score of that validation.

    Args:
        dtype: of the weights in the file: ``float32``, ``bfloat16`` or ``float16``.
        facts: what else the card should say, such as the corpus and its licence.
    """

    def __init__(self, dtype: str = "float32", facts: dict[str, Any] | None = None):
        self.dtype = dtype
        self.facts = facts or {}
        self.model: FlowVocoder | None = None
        self.saved_step = -1

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # now the averaged weights are in place, and the score is not known yet; at on_validation_end it is the reverse
        self.model = None if trainer.sanity_checking or not trainer.is_global_zero else deepcopy(module.model)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.saved_step = trainer.global_step                          # by the first process, known to all
        if self.model is None:
            return
        scores = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("valid/")}
        self._save(trainer, module, {name.replace("/", "_"): round(float(value), 4) for name, value in scores.items()})

    def save_now(self, trainer: pl.Trainer, module: pl.LightningModule, swapped: bool) -> Path:
        """Save the vocoder without a score, as the run ends before the next validation does; return its folder.

        In the midst of a validation the averages are ``swapped`` into the module.
        """
        averages = next((callback for callback in trainer.callbacks if isinstance(callback, MovingAverage)), None)
        if averages and not swapped:
            module = averages.averaged
        self.model = deepcopy(module.model)
        return self._save(trainer, module, {})

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule, scores: dict[str, float]) -> Path:
        model, self.model = self.model, None
        facts = self.facts | {"steps": trainer.global_step, **scores, "dequantisation": module.hparams.dequantisation}
        if model.config.speakers:
            facts["speakers"] = trainer.datamodule.speakers
        folder = Path(trainer.default_root_dir) / "vocoder"
        save_checkpoint(folder, model, module.mel_settings, facts, dtype=getattr(torch, self.dtype))
        return folder


class MovingAverage(WeightAveraging):
    """Keep an exponential moving average of the weights, which validates and is saved as the run's vocoder.

    average += (1 - d) * (weights - average),  d = min(decay, (1 + n) / (10 + n)) at the n-th update

    The smaller decay at the start lets a short run, too, end with an average that has forgotten the first weights.
    """

    def __init__(self, decay: float = 0.9999):
        def update(averages: Any, weights: Any, updates: Tensor | int) -> None:
            n = int(updates)
            torch._foreach_lerp_(list(averages), list(weights), 1 - min(decay, (1 + n) / (10 + n)))

        # Buffers say that ActNorm is initialised; there is no average of that.
        super().__init__(use_buffers=False, multi_avg_fn=update)

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        trainer.precision_plugin.convert_module(module)                # to float64, if asked for, before a copy is made
        super().setup(trainer, module, stage)

    @property
    def averaged(self) -> pl.LightningModule:
        """Return the module at the averaged weights; in a validation, at those that are trained."""
        return self._average_model.module


class ProcessorTimer(Timer):
    """Stop training after so much processor time of this process, for comparing what equal compute gives.

    Other work on the machine does not shorten it.

    Args:
        seconds: of all threads together.
    """

    def __init__(self, seconds: float):
        super().__init__(duration={"seconds": seconds}, verbose=False)
        self.start = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.start = time.process_time()

    def time_elapsed(self, stage: str = "train") -> float:
        return time.process_time() - self.start if self.start else 0.0


class Throughput(pl.Callback):
    """Log how fast training goes: ``speed/audio_seconds_per_second``, and ``speed/share_of_peak`` of the device.

    The share counts the multiplications of a training step, three times those of its forward pass, against what one large
    matrix product in the same precision reaches on this device, measured when training starts.

    Args:
        every: steps between two entries in the log.
    """

    def __init__(self, every: int = 100):
        self.every = every

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        half = str(trainer.precision).startswith("bf16")
        self.peak = matrix_product_flops(module.device, torch.bfloat16 if half else torch.float32)
        self.flops_per_sample: float | None = None
        self.samples, self.since, self.step = 0, time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, _outputs: Any, batch: Any, _index: int
    ) -> None:
        settings = module.mel_settings
        padded = batch["padded"]
        self.samples += len(padded) * (padded.shape[1] - sum(settings.context)) * trainer.world_size
        if trainer.global_step % self.every or trainer.global_step == self.step:   # a step may take several batches
            return
        wait(module.device)
        rate = self.samples / (time.perf_counter() - self.since)
        if self.flops_per_sample is None:
            self.flops_per_sample = forward_flops(module.model, padded.device) * 3
        module.log("speed/audio_seconds_per_second", rate / settings.sample_rate)
        module.log("speed/share_of_peak", rate / trainer.world_size * self.flops_per_sample / self.peak)
        self.samples, self.since, self.step = 0, time.perf_counter(), trainer.global_step
