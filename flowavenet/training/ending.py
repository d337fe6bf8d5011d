"""End a run so that it can go on: a whole checkpoint is there, whether it was done, was told to stop, or failed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from flowavenet.files import once, one_line, short_of_memory, write_atomically
from flowavenet.training.callbacks import SaveVocoder
from flowavenet.training.processes import GOES_ON

ANOTHER = "name another checkpoint, or begin another run"


class SaveAtEnd(pl.Callback):
    """Save the run's checkpoint also when it ends between two regular ones: by ``max_steps``, by ``max_time``, or as told.

    Ctrl-C and SIGTERM let the step under way end first, and then renew the run's vocoder, too; the second one ends the run
    at once. In a validation, whose weights are averages, no checkpoint is saved; nor is anything by several processes, which
    would not end in the same step.

    Last among the callbacks, so that the moving average and the timer have seen the step.
    """

    def __init__(self) -> None:
        self.told = 0
        self.saved_as_told = False

    def on_sanity_check_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.strategy.checkpoint_io.loaded = None                   # what it held has found its place

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.strategy.checkpoint_io.loaded = None
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):             # the trainer puts back what was there before
                signal.signal(number, self._listen)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        saver = trainer.checkpoint_callback
        ends = self.told or trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if ends and saver is not None:
            trainer.save_checkpoint(Path(saver.dirpath) / "last.ckpt")
        self.saved_as_told = bool(self.told)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """End at the next step, as this one is logged only after its end."""
        if self.saved_as_told:
            self._end(trainer, module, f"stopped at step {trainer.global_step}")

    on_validation_start = on_train_end = on_train_batch_start

    def on_validation_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if self.told:
            self._end(trainer, module, "stopped during a validation", swapped=True)

    def _listen(self, number: int, _: Any) -> None:
        self.told = number
        signal.signal(number, lambda *_: os._exit(128 + number))

    def _end(self, trainer: pl.Trainer, module: pl.LightningModule, where: str, swapped: bool = False) -> None:
        for saver in (callback for callback in trainer.callbacks if isinstance(callback, SaveVocoder)):
            where += f", the vocoder is {saver.save_now(trainer, module, swapped)}"
        for logger in trainer.loggers:
            logger.finalize("interrupted")                             # writes what it has
        print(f"{where}; {GOES_ON}", file=sys.stderr)
        sys.exit(128 + self.told)


class WholeCheckpoints(TorchCheckpointIO):
    """Write Lightning's checkpoints beside their place and rename them, so that a full disk costs none that is there.

    (Lightning's own way is a file in the system's temporary folder, which is then copied over the old one.)
    """

    loaded: str | None = None
    """The checkpoint that the run goes on from, until it does."""
    step: int | None = None
    """The step of that checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: str | os.PathLike, *args: Any, **options: Any) -> dict[str, Any]:
        """Load plain values and tensors alone, wherever the checkpoint is from: nothing in it is run."""
        try:
            content = super().load_checkpoint(path, *args, **options | {"weights_only": True})
        except FileNotFoundError:
            raise
        except Exception as error:                                     # of pickle, of torch, of zip files
            told = isinstance(error, OSError) or short_of_memory(error)
            what = one_line(error) if told else "broken, or holds more than plain values and tensors"
            raise ValueError(f"{once(path, what)}; {ANOTHER}") from error
        if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
            raise ValueError(f"{path}: not the checkpoint of a run, which has its last.ckpt; {ANOTHER}")
        self.loaded, self.step = str(path), content.get("global_step")
        return content

