"""Log what to follow a run by, for TensorBoard: clips as the model renders them, and statistics of its flow."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import default_collate

from flowavenet.plots import spectrogram_figure
from flowavenet.training.monitor.statistics import flow_statistics

LAYOUT = {
    "Is it learning?": {
        "nats per sample": ["Multiline", ["train/nats_per_sample", "valid/nats_per_sample.*"]],
        "gradient norm": ["Multiline", ["train/gradient_norm"]],
        "learning rate": ["Multiline", ["train/learning_rate"]],
        "seconds of audio per second": ["Multiline", ["speed/audio_seconds_per_second"]],
    },
    "Is the noise Gaussian? Mean 0, variance 1, kurtosis 3": {
        name: ["Multiline", [f"flow/noise_{name}/.*"]] for name in ("mean", "variance", "kurtosis")
    },
    "Who does the work?": {
        "log-det of each block, nats per sample": ["Multiline", ["flow/log_det/.*"]],
        "log-scales, mean": ["Multiline", ["flow/log_scale_mean/.*"]],
        "log-scales, spread": ["Multiline", ["flow/log_scale_spread/.*"]],
    },
}
"""TensorBoard's page "custom scalars": charts that show curves together."""


class Showcase(pl.Callback):
    """Log, at each validation, the beginnings of a few validation clips as the model renders them, and statistics.

    Always of the same clips, from the same noise, so that what is heard to change is the model. Under ``clip<n>``:
    ``vocoded`` and, once, ``recorded``, and both their mels as a picture; under ``flow``: what
    :func:`~flowavenet.training.monitor.statistics.flow_statistics` finds in some validation crops, at the averaged weights.

    Args:
        clips: how many; 0 also leaves out the statistics.
        seconds: of each, at most.
        temperature: standard deviation of the noise.
        crops: validation crops, spread evenly, that the statistics are of.
    """

    def __init__(self, clips: int = 3, seconds: float = 3.0, temperature: float = 0.8, crops: int = 4):
        self.clips = clips
        self.seconds = seconds
        self.temperature = temperature
        self.crops = crops
        self.first = True                                              # of this process: also log the recordings

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        board = getattr(trainer.logger, "experiment", None)
        if trainer.sanity_checking or not trainer.is_global_zero or not hasattr(board, "add_audio") or not self.clips:
            return
        if self.first:
            board.add_custom_scalars(LAYOUT)
        for clip in range(min(self.clips, len(trainer.datamodule.valid.clips))):
            self._show(clip, board, trainer, module)
        data = trainer.datamodule.valid
        batch = default_collate([data[index] for index in range(0, len(data), -(-len(data) // self.crops))])
        wave, mel, speaker = module.crops(_moved(batch | {"padded": data.gather(batch["start"])}, module.device))
        for name, value in flow_statistics(module.model, wave, mel, speaker).items():
            board.add_scalar(f"flow/{name}", value, trainer.global_step)
        self.first = False

    def _show(self, clip: int, board: Any, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        step, rate = trainer.global_step, module.mel_settings.sample_rate
        opening = default_collate([trainer.datamodule.valid.opening(clip, self.seconds)])
        recorded, mel, speaker = module.crops(_moved(opening, module.device))
        noise = torch.Generator(module.device).manual_seed(0)
        wave = module.model.sample(mel, self.temperature, noise, speaker).clamp(-1, 1)
        board.add_audio(f"clip{clip}/vocoded", wave[0].cpu(), step, rate)
        if self.first:
            board.add_audio(f"clip{clip}/recorded", recorded[0].cpu(), step, rate)
        figure = spectrogram_figure([("given", mel[0]), ("vocoded", module.mel(wave)[0])], module.mel_settings)
        board.add_figure(f"clip{clip}/mel", figure, step)


def _moved(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {key: value.to(device) for key, value in batch.items()}
