"""Put Lightning's command line around our modules and our data: ``flowavenet fit`` and ``distil``."""

from __future__ import annotations

import argparse
import logging
import os
import re
import warnings
from pathlib import Path
from textwrap import shorten
from typing import Any

import pytorch_lightning as pl
from jsonargparse import ArgumentError
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger

from flowavenet.files import read_yaml, ready_folder, short
from flowavenet.training.base import VocoderTraining
from flowavenet.training.callbacks import MovingAverage, SaveVocoder, Throughput
from flowavenet.training.data import SpeechData
from flowavenet.training.distillation import DistillationTraining
from flowavenet.training.ending import SaveAtEnd, WholeCheckpoints
from flowavenet.training.likelihood import LikelihoodTraining
from flowavenet.training.monitor.showcase import Showcase
from flowavenet.training.processes import check_strategy, end_with_launcher, explained
from flowavenet.training.resuming import check_folder, resumed
from flowavenet.training.trainer import ProgressLines, RunTrainer


class FitCLI(LightningCLI):
    """Take settings from YAML and flags, and keep a run in ``--trainer.default_root_dir``.

    There it keeps ``checkpoints/last.ckpt`` (all that resuming needs), ``vocoder/`` (a checkpoint folder at the
    averaged weights) and TensorBoard's event files.
    """

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"fit": LightningCLI.subcommands()["fit"]}              # not validate, test and predict, which take a second

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(SaveVocoder, "vocoder")
        parser.add_lightning_class_args(Showcase, "showcase")
        parser.add_lightning_class_args(Throughput, "throughput")
        parser.add_lightning_class_args(ProgressLines, "progress")
        # after those two: it takes the averaged weights away again when a validation ends
        parser.add_lightning_class_args(MovingAverage, "ema")
        parser.set_defaults(
            {
                # One name, rewritten atomically: there is always one whole checkpoint.
                "checkpoint.filename": "last", "checkpoint.enable_version_counter": False,
                "checkpoint.every_n_train_steps": 1000, "checkpoint.save_on_train_epoch_end": False,
                # Crops are shared out among processes by crops.py.
                "trainer.use_distributed_sampler": False,
                # ProgressLines says what these would, in words.
                "trainer.enable_progress_bar": False, "trainer.enable_model_summary": False,
            }
        )
        parser.link_arguments("model.mel", "data.mel")

    def _parse_ckpt_path(self) -> None:
        """Leave settings to the recipe and the flags; a checkpoint that goes on has no say in them."""

    def fit(self, **arguments: Any) -> None:
        """Train; what goes wrong between reading a checkpoint and going on from it is the checkpoint's fault."""
        with resumed(self.trainer):
            self.trainer.fit(**arguments)

    def before_fit(self) -> None:
        """Refuse what would overwrite a run or turn it into another, before anything is written."""
        settings = self.config["fit"].as_dict()
        check_folder(self._run, settings["ckpt_path"], settings)

    @property
    def _run(self) -> Path:
        return Path(self.trainer.default_root_dir)

    def after_fit(self) -> None:
        """Validate and save the vocoder once more, if the run ended between two validations."""
        if self.trainer.strategy.checkpoint_io.step == self.trainer.global_step and (self._run / "vocoder").is_dir():
            return                                                     # nothing was trained
        saver = next(callback for callback in self.trainer.callbacks if isinstance(callback, SaveVocoder))
        if self.trainer.limit_val_batches and saver.saved_step < self.trainer.global_step:
            self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)

    def before_instantiate_classes(self) -> None:
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")  # it is: see crops.py
        warnings.filterwarnings("ignore", message=".*does not have many workers.*|.*treespec.*|Checkpoint directory")
        notices = logging.getLogger("pytorch_lightning.utilities.rank_zero")
        needless = re.compile("Tip:|TPU available|`weights_only`|Found current_model_state")
        notices.addFilter(lambda record: not needless.search(record.getMessage()))

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        settings = self._get(self.config_init, "trainer")
        root = settings.get("default_root_dir") or "runs/default"
        ready_folder(root)
        kwargs["default_root_dir"] = root
        trainer = super().instantiate_trainer(**kwargs)
        check_strategy(trainer)
        trainer.strategy.checkpoint_io = WholeCheckpoints()
        if settings.get("logger") is None:
            trainer.logger = TensorBoardLogger(root, name="", version="", default_hp_metric=False)
        trainer.checkpoint_callback.dirpath = trainer.checkpoint_callback.dirpath or f"{root}/checkpoints"
        if trainer.loggers:
            trainer.callbacks.append(LearningRateMonitor(logging_interval="step"))
        trainer.callbacks.append(SaveAtEnd())
        return trainer


def fit(arguments: list[str]) -> pl.Trainer:
    """Train by likelihood as ``arguments`` say, the words after ``flowavenet fit``; the trainer is returned, finished."""
    return _run("fit", LikelihoodTraining, arguments)


def distil(arguments: list[str]) -> pl.Trainer:
    """Train a student as ``arguments`` say, the words after ``flowavenet distil``; the trainer is returned, finished."""
    return _run("distil", DistillationTraining, arguments)


def _run(verb: str, training: type[VocoderTraining], arguments: list[str]) -> pl.Trainer:
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")  # these are from the command line
    end_with_launcher()
    parser, recipes = {"exit_on_error": False}, _recipes(arguments)
    try:
        with explained():
            cli = FitCLI(
                training, SpeechData, trainer_class=RunTrainer, args=["fit", *arguments],
                save_config_kwargs={"overwrite": True},
                seed_everything_default=1111, parser_kwargs=parser | {"fit": parser | {"prog": f"flowavenet {verb}"}},
            )
    except ArgumentError as error:
        where = f"correct it in {' or '.join(recipes)}, or among the flags; " if recipes else ""
        what = shorten(error.message, 400)
        raise ValueError(f"{what}; {where}flowavenet {verb} --help lists all settings") from error
    return cli.trainer


def _recipes(arguments: list[str]) -> list[str]:
    """Return the recipes among the arguments; each must be YAML with sections, as jsonargparse would unfold any other."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", nargs="?", default=[])
    recipes = [recipe for recipe in parser.parse_known_args(arguments)[0].config if recipe and os.path.isfile(recipe)]
    for recipe in recipes:
        if not isinstance(content := read_yaml(Path(recipe)), dict):
            raise ValueError(f"{recipe}: is {short(content)}, not a recipe; see those in recipes/")
    return recipes
