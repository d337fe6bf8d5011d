"""Begin a run only where there is none, and go on with one only by the settings that it began with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer

from flowavenet.audio import mel_settings
from flowavenet.files import one_line, read_yaml, short_of_memory
from flowavenet.models import MODELS
from flowavenet.training.ending import ANOTHER

LAST, SETTINGS = Path("checkpoints", "last.ckpt"), "config.yaml"
"""Where a run keeps its state, and its settings."""
KEPT = {
    "model": ("name", "config", "mel", "dequantisation"),
    "data": ("corpus", "segment_frames", "predicted_share", "valid_fraction", "silence_db", "seed"),
}
"""Settings that a run keeps: with others it would be another model, or its curve that of something else."""


def check_folder(run: Path, resume: str | None, now: Mapping[str, Any]) -> None:
    """Refuse to begin a run where there is one, and to go on with one by other settings of model, mel and data.

    Args:
        run: the folder of the run.
        resume: what --ckpt_path says: None, ``last``, or a checkpoint by path or address.
        now: the settings that were asked for, section by section.

    Raises FileExistsError or ValueError, in one line; nothing has been written by then.
    """
    if resume is None:
        if (run / LAST).is_file():
            raise FileExistsError(
                f"{run}: holds a run; go on with it by the same command with --ckpt_path last, or begin another by "
                f"--trainer.default_root_dir ANOTHER_FOLDER"
            )
        return
    began = run if resume == "last" else Path(resume).parents[1] if len(Path(resume).parents) > 1 else Path(resume).parent
    if not (began / SETTINGS).is_file() or not isinstance(then := read_yaml(began / SETTINGS), dict):
        return
    if changes := list(_changes(then, now)):
        more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        raise ValueError(
            f"{began / SETTINGS}: the run began with {changes[0]}{more}; go on with the settings that it has, or begin "
            f"another by --trainer.default_root_dir ANOTHER_FOLDER"
        )


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield each setting that is kept and differs, as text."""
    for section, names in KEPT.items():
        old, new = then.get(section), now[section]
        for name in names if isinstance(old, dict) else ():
            if name not in old or name not in new or _same(old[name], new[name]):
                continue
            before, after = ({name: settings[name]} for settings in (old, new))
            if name == "mel" and not isinstance(old[name], str) & isinstance(new[name], str):
                before, after = ({f"mel.{key}": value for key, value in asdict(mel_settings(one)).items()}
                                 for one in (old[name], new[name]))
            elif name == "config" and isinstance(old[name], dict) and old.get("name") == new["name"] in MODELS:
                before, after = (_fields(new["name"], one) for one in (old[name], new[name]))
            elif name == "corpus" and (_same(*map(os.path.abspath, map(str, (old[name], new[name]))))
                                       or not os.path.exists(str(old[name]))):
                continue                                               # the same, or one that has been moved
            for key in before:
                if not _same(before[key], after.get(key)):
                    yield f"{section}.{key} {short_text(before[key])}, now it is {short_text(after.get(key))}"


def _fields(name: str, config: Any) -> dict[str, Any]:
    """Return all fields of a model's config, defaults included."""
    defaults = {key: field.default for key, field in MODELS[name].Config.__dataclass_fields__.items()}
    return {f"config.{key}": value for key, value in (defaults | (config or {})).items()}


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def short_text(value: Any) -> str:
    """Return a value in few words."""
    return shorten(str(value), 60)


@contextmanager
def resumed(trainer: pl.Trainer) -> Iterator[None]:
    """Say in one line what a checkpoint holds that the run cannot go on from, or that the run is at its end already."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        checkpoint = trainer.strategy.checkpoint_io.loaded
        if checkpoint is None or short_of_memory(error):
            raise
        reason = shorten(one_line(error), 300)
        raise ValueError(f"{checkpoint}: this run cannot go on from it ({reason}); {ANOTHER}") from error
    if trainer.strategy.checkpoint_io.step == trainer.global_step and trainer.is_global_zero:
        print(f"note: {trainer.default_root_dir}: {_spent(trainer)}; nothing was trained", file=sys.stderr)


def _spent(trainer: pl.Trainer) -> str:
    """Say which limit a run had come to before it went on."""
    for timer in (callback for callback in trainer.callbacks if isinstance(callback, Timer)):
        left = timer.time_remaining()
        if left is not None and left <= 0:
            spent = timer.time_elapsed()
            return f"its time is spent, {spent:.0f} s of {spent + left:.0f} s; to go on, give a larger --trainer.max_time"
    return f"it is at step {trainer.global_step} of {trainer.max_steps}; to go on, give a larger --trainer.max_steps"
