"""Read what a training run logged: TensorBoard's event files, put together to one history."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray as Array

EVENTS = "events.out.tfevents.*"


class Curve(NamedTuple):
    """Hold values over a run: steps (n,), increasing, and values (n,)."""

    steps: Array
    values: Array

    def since(self, step: float) -> Curve:
        """Return what came at that step or later."""
        return Curve(self.steps[self.steps >= step], self.values[self.steps >= step])

    def finite(self) -> Curve:
        """Return the curve without values that are not finite."""
        return Curve(self.steps[np.isfinite(self.values)], self.values[np.isfinite(self.values)])

    def smooth(self, parts: int = 60) -> Curve:
        """Return medians of so many consecutive parts of equal size, or fewer."""
        known = self.finite()
        groups = np.array_split(np.arange(len(known.steps)), min(parts, len(known.steps)) or 1)
        medians = [(known.steps[group[len(group) // 2]], np.median(known.values[group])) for group in groups if len(group)]
        return Curve(*np.array(medians, float).reshape(-1, 2).T)


NOTHING = Curve(np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class Run:
    """Hold the log of a run: curves by tag, sounds (WAV) by tag and step, the last picture (PNG) of each tag."""

    folder: Path
    curves: dict[str, Curve]
    sounds: dict[str, dict[int, bytes]] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def curve(self, tag: str) -> Curve:
        """Return the curve of that tag; an empty one if there is none."""
        return self.curves.get(tag, NOTHING)

    def under(self, prefix: str) -> dict[str, Curve]:
        """Return all curves whose tags begin so, by the rest of the tag."""
        return {tag.removeprefix(prefix): curve for tag, curve in self.curves.items() if tag.startswith(prefix)}


def read_run(folder: Path) -> Run:
    """Read the log of a run from TensorBoard's event files in the folder or below.

    A run that was resumed has a file for each process. One that was killed had logged steps that the next one, which began
    at the last checkpoint, took again: what was logged before of steps beyond the one where a process begins does not count.

    Raises ValueError or FileNotFoundError, in one line, where there is no run, or more than one.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; name that of a run, --trainer.default_root_dir")
    files = sorted(folder.rglob(EVENTS))
    runs = sorted({file.parent for file in files})
    if not files:
        raise FileNotFoundError(f"{folder}: no {EVENTS} here; name a run's --trainer.default_root_dir")
    if len(runs) > 1 and folder not in runs:
        raise ValueError(f"{folder}: holds {len(runs)} runs, {runs[0].name} to {runs[-1].name}; name one of them")
    files = [file for file in files if file.parent == (folder if folder in runs else runs[0])]
    logs = sorted((log for log in map(_log, files) if log.Tags()["scalars"]), key=lambda log: log.FirstEventTimestamp())
    if not logs:
        raise ValueError(f"{folder}: {len(files)} log files, but nothing in them yet; look again after the first steps")
    begins = [min(log.Scalars(tag)[0].step for tag in log.Tags()["scalars"]) for log in logs] + [np.inf]
    rows: dict[str, dict[int, float]] = defaultdict(dict)
    sounds: dict[str, dict[int, bytes]] = defaultdict(dict)
    pictures: dict[str, bytes] = {}
    for number, log in enumerate(logs):
        end = min(begins[number + 1 :])
        for tag in log.Tags()["scalars"]:
            rows[tag] |= {event.step: event.value for event in log.Scalars(tag) if event.step <= end}
        for tag in log.Tags()["audio"]:
            sounds[tag] |= {event.step: event.encoded_audio_string for event in log.Audio(tag) if event.step <= end}
        pictures |= {tag: log.Images(tag)[-1].encoded_image_string for tag in log.Tags()["images"]}
    curves = {tag: Curve(*np.array(sorted(points.items()), float).T) for tag, points in rows.items() if points}
    return Run(folder, curves, dict(sounds), pictures)


def _log(file: Path) -> Any:
    """Read an event file: all of its scalars and sounds, the last of its pictures."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"event files need {error.name}: pip install 'flowavenet[train]'") from None
    sizes = {"scalars": 0, "audio": 0, "images": 1, "tensors": 1, "histograms": 1}  # 0: all
    return EventAccumulator(str(file), sizes, purge_orphaned_data=False).Reload()

