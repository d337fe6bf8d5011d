"""Share what all training has in common: the model, the crops it learns from, the optimizer."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from torch import Tensor

from flowavenet.audio import MelSpectrogram, mel_settings
from flowavenet.checkpoint import load_checkpoint
from flowavenet.losses import PCM_STEP, dequantise
from flowavenet.models import build
from flowavenet.nets import load_weights
from flowavenet.vocoder import find_checkpoint

LAST_RATE = 0.03
"""Part of the learning rate that a cosine schedule ends with."""


class VocoderTraining(pl.LightningModule):
    """Train a model on crops of recordings with their mels; subclasses say what is to become small.

    The mel is computed here, on the device, from the same crop, unless the batch has a predicted one. A model with speakers
    is told each crop's. The noise of a crop is its own, and scores are means over all crops, so that neither depends on how
    many processes share the work.

    Args:
        name: which model, an entry of ``flowavenet.models.MODELS``.
        config: fields of the model's Config that differ from its defaults.
        mel: a convention by name, or the fields of MelSettings.
        start_from: a checkpoint, by folder or name, whose weights to start from instead of random ones; of the same sizes.
        learning_rate: of AdamW.
        schedule: how the rate falls: ``steps``, by decay^(steps / decay_steps), in whole steps of decay_steps; or
            ``cosine``, along half a cosine to 3 % at the end of the run, whichever of ``trainer.max_steps`` and
            ``trainer.max_time`` comes first.
        warmup_steps: the rate rises linearly from 0 during so many steps.
        decay_steps: steps between decays.
        decay: factor of each decay.
        betas: of AdamW.
        weight_decay: of AdamW.
        clip_norm: gradients longer than this are shortened to it.
        dequantisation: width of the noise added to the samples: 2^-15 is one 16-bit step; 0 trains on the grid of
            16-bit values, as the paper did, where a likelihood is not comparable between recordings.
        max_bad_steps: stop after so many steps in a row with a loss or gradient that is not finite. Each is skipped.
        seed: of the weights and of the dequantisation noise.
    """

    def __init__(
        self,
        name: str = "flowavenet",
        config: dict[str, Any] | None = None,
        mel: str | dict[str, Any] = "hifigan",
        start_from: str | None = None,
        learning_rate: float = 1e-3,
        schedule: Literal["steps", "cosine"] = "steps",
        warmup_steps: int = 0,
        decay_steps: int = 200_000,
        decay: float = 0.5,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        clip_norm: float = 1.0,
        dequantisation: float = PCM_STEP,
        max_bad_steps: int = 20,
        seed: int = 1111,
    ):
        super().__init__()
        self.save_hyperparameters()
        self.mel_settings = mel_settings(mel)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = build(name, config or {}, self.mel_settings.n_mels, self.mel_settings.hop_length)
        if start_from:
            self._start_from(start_from)
        self.mel = MelSpectrogram(self.mel_settings)
        self.bad_steps = 0
        self.began_with: list[str] | None = None                       # speakers, if resumed
        self.sums: dict[str, Tensor] = {}                              # of this validation, each of a score and of crops

    def _start_from(self, folder: str) -> None:
        model, mel, _ = load_checkpoint(find_checkpoint(folder))
        if mel != self.mel_settings or model.config != self.model.config or type(model) is not type(self.model):
            raise ValueError(
                f"{folder}: holds {model.config} for {mel}, the recipe says {self.model.config} for {self.mel_settings}"
            )
        load_weights(self.model, model.state_dict())                   # which may have weight norm or not

    def setup(self, stage: str) -> None:
        """Check that the model can tell the speakers of the corpus apart, before anything is trained."""
        data, config = self.trainer.datamodule, self.model.config
        if not config.speaker_width:
            return
        names = data.speakers
        if data.nameless:
            raise ValueError(
                f"{data.corpus}: {data.nameless} of {data.clips} clips have no speaker, but the model tells voices apart: "
                f"put each voice in a folder of its own, or fill in the manifest's column speaker"
            )
        if len(names) > config.speakers:
            raise ValueError(
                f"{data.corpus}: has {len(names)} speakers, the model's config only speakers: {config.speakers}; make that "
                f"{len(names)} or more"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["speakers"] = self.trainer.datamodule.speakers

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.began_with = checkpoint.get("speakers")
        # The rate that was asked for counts, not that which optimizer and schedule remember.
        rate = self.hparams.learning_rate
        for schedule in checkpoint.get("lr_schedulers", ()):
            change = rate / schedule["base_lrs"][0]
            schedule["base_lrs"] = [rate] * len(schedule["base_lrs"])
            schedule["_last_lr"] = [change * last for last in schedule["_last_lr"]]
            for optimizer in checkpoint["optimizer_states"]:
                for group in optimizer["param_groups"]:
                    group["initial_lr"], group["lr"] = rate, change * group["lr"]

    def on_train_start(self) -> None:
        data = self.trainer.datamodule
        if self.model.config.speakers and self.began_with not in (None, data.speakers):
            raise ValueError(                                          # or voices would change hands
                f"{data.corpus}: has the speakers {', '.join(data.speakers)}, but the run began with "
                f"{', '.join(self.began_with)}: go on with the same ones, or begin another run"
            )

    def crops(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the waves of a batch, (batch, samples), dequantised; their mels; their speakers, if the model knows any."""
        padded = batch["padded"].to(self.dtype)
        before, _ = self.mel_settings.context
        mel = self.mel.from_padded(padded)
        if "mel" in batch:
            mel = torch.where(batch["predicted"][:, None, None], batch["mel"], mel)
        waves = padded[:, before : before + mel.shape[-1] * self.mel_settings.hop_length]
        step, numbers = self.hparams.dequantisation, batch["index"].tolist()
        wave = torch.stack([dequantise(one, step, self.generator(n)) for one, n in zip(waves, numbers, strict=True)])
        return wave, mel, batch["speaker"] if self.model.config.speakers else None

    def generator(self, index: int, purpose: int = 0) -> torch.Generator:
        """Return the generator that belongs to a crop, whatever batch or process it is in; another for each purpose."""
        # mixed, since a generator may look at the low half of its seed alone
        seed = np.random.SeedSequence([self.hparams.seed, purpose, index]).generate_state(1)[0]
        return torch.Generator(self.device).manual_seed(int(seed))

    def scores(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the scores of a validation batch, means over its crops, by name, the most telling first."""
        raise NotImplementedError

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        batch, crops = self.trainer.datamodule.valid.counted(batch)
        for name, score in self.scores(batch).items():
            self.sums[name] = self.sums.get(name, 0) + crops * torch.stack([score, torch.ones_like(score)])

    def on_validation_epoch_end(self) -> None:
        """Log the mean of each score over the crops of all processes."""
        for number, (name, sums) in enumerate(self.sums.items()):
            total, crops = self.trainer.strategy.reduce(sums, reduce_op="sum")
            self.log(f"valid/{name}", total / crops, prog_bar=number == 0, sync_dist=True)
        self.sums = {}

    def configure_optimizers(self) -> dict[str, Any]:
        hparams = self.hparams
        optimizer = torch.optim.AdamW(
            self.model.parameters(), hparams.learning_rate, tuple(hparams.betas), weight_decay=hparams.weight_decay
        )

        def factor(step: int) -> float:
            warm = min(1.0, (step + 1) / hparams.warmup_steps) if hparams.warmup_steps else 1.0
            if hparams.schedule == "cosine":
                return warm * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * self._progress())) / 2)
            return warm * hparams.decay ** (step // hparams.decay_steps)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        schedule = {"scheduler": scheduler, "interval": "step", "name": "train/learning_rate"}  # the name in the log
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _progress(self) -> float:
        """Return how much of the run is over, 0 to 1, by steps or by time, resumed parts included."""
        trainer = self.trainer
        shares = [trainer.global_step / trainer.max_steps] if trainer.max_steps > 0 else []
        for timer in (callback for callback in trainer.callbacks if isinstance(callback, Timer)):
            if (left := timer.time_remaining()) is not None:
                share = timer.time_elapsed() / max(1e-9, timer.time_elapsed() + left)
                shares.append(trainer.strategy.broadcast(share))       # clocks differ, rates must not
        if not shares:
            raise ValueError("schedule cosine must know the end of the run: add --trainer.max_time or --trainer.max_steps")
        return min(1.0, max(shares))

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient, and skip the step when it is not finite.

        Here, after the gradients of all processes are averaged, each of them sees the same and skips alike.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val or self.hparams.clip_norm)
        self.log("train/gradient_norm", norm)
        if math.isfinite(norm):
            self.bad_steps = 0
            return
        self.bad_steps += 1
        optimizer.zero_grad(set_to_none=True)                          # an optimizer leaves weights without gradient alone
        self.log("train/skipped_in_a_row", float(self.bad_steps))
        if self.bad_steps >= self.hparams.max_bad_steps:
            raise ValueError(
                f"{self.bad_steps} steps in a row had a loss or gradient that is not finite (step {self.global_step}, "
                f"learning rate {self.lr_schedulers().get_last_lr()[0]:.1e}): resume from the last checkpoint with a lower "
                f"--model.learning_rate, or set log_scale_limit in the model's config"
            )
