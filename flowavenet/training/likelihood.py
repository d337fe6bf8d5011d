"""Train by exact likelihood: one loss, for every flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from flowavenet.losses import bits_per_sample
from flowavenet.training.base import VocoderTraining


class LikelihoodTraining(VocoderTraining):
    """Make recordings likely, given their mels.

    loss = - log p(wave + u | mel) / samples,  nats per sample,  u uniform over one 16-bit step

    Args:
        init_crops: random crops that ActNorm is initialised from, before the first step, shared out among the processes.
            A training batch may be too few: its scales move slowly, and a quiet one would mark the whole run.
        constant_memory: compute activations again on the way back instead of keeping them: memory hardly grows with the
            model or the batch, a step takes about half as long again.
        compile: compile the model with ``torch.compile`` before the first step: minutes once, then faster on a GPU.
        kwargs: see :class:`~flowavenet.training.base.VocoderTraining`.
    """

    def __init__(self, *, init_crops: int = 32, constant_memory: bool = False, compile: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.model.constant_memory = constant_memory
        self.density = (self.model,)                                   # a tuple, so that weights are not registered twice

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Initialise ActNorm. Weights that are loaded have it initialised: then one crop, so that they notice that."""
        super().on_train_start()
        data, rank, processes = self.trainer.datamodule, self.trainer.global_rank, self.trainer.world_size
        count = max(processes, self.hparams.init_crops if self.trainer.global_step == 0 else 1)
        share = range(count * rank // processes, count * (rank + 1) // processes)
        batch = default_collate([data.train[crop] for crop in share])
        batch = {key: value.to(self.device) for key, value in batch.items()}
        self.nats_per_sample(data.on_after_batch_transfer(batch, 0))
        if self.hparams.compile:                                       # now that no step branches on ActNorm any more
            self.density = (torch.compile(self.model),)

    def nats_per_sample(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the log-density of each crop of the batch per sample: (batch,)."""
        wave, mel, speaker = self.crops(batch)
        return self.density[0](wave, mel, speaker) / wave.shape[1]

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        loss = -self.nats_per_sample(batch).mean()
        self.log("train/nats_per_sample", -loss.detach(), prog_bar=True, sync_dist=True)
        return loss

    def scores(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        nats = self.nats_per_sample(batch).mean()
        scores = {"nats_per_sample": nats}
        if "mel" in batch:
            own = batch | {"predicted": torch.zeros_like(batch["predicted"])}
            scores["nats_per_sample_own_mels"] = self.nats_per_sample(own).mean()
        if self.hparams.dequantisation:
            scores["bits_per_sample"] = bits_per_sample(nats, self.hparams.dequantisation)
        return scores
