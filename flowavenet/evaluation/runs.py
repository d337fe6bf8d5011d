"""What a training run logged: TensorBoard's event files, or a CSV, put together to one history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowavenet.evaluation.advice import Curve
from flowavenet.files import read_table

EVENTS = "events.out.tfevents.*"
NOTHING = Curve(*(np.zeros(0),) * 3)


class Session(NamedTuple):
    """A process that trained: from and to which step its log counts, and how long that took, hours."""

    first: int
    last: int
    hours: float


@dataclass(frozen=True)
class Run:
    """A training run: its curves by tag, its sounds (WAV) by tag and step, and the processes it took, in order."""

    folder: Path
    curves: dict[str, Curve]
    sounds: dict[str, dict[int, bytes]] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)

    def curve(self, *tags: str) -> Curve:
        """The first of these curves that there is; else an empty one."""
        return next((self.curves[tag] for tag in tags if tag in self.curves), NOTHING)

    def under(self, prefix: str) -> dict[str, Curve]:
        """All curves whose tags begin so, by the rest of the tag."""
        return {tag.removeprefix(prefix): curve for tag, curve in self.curves.items() if tag.startswith(prefix)}


def read_run(folder: Path) -> Run:
    """Read the log of a run, from TensorBoard's event files in the folder or below, or from Lightning's ``metrics.csv``.

    A run that was resumed has a file for each process. One that was killed had logged steps that the next one, which began
    at the last checkpoint, took again: what was logged before of steps beyond the one where a process begins does not count.
    Hours are those of processes at work, without what was taken again, and without the time between.

    Raises ValueError or FileNotFoundError, in one line, where there is no run, or more than one.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; name that of a run, --trainer.default_root_dir")
    files = sorted(folder.rglob(EVENTS)) or sorted(folder.rglob("metrics.csv"))
    runs = sorted({file.parent for file in files})
    if not files:
        raise FileNotFoundError(f"{folder}: neither {EVENTS} nor metrics.csv here; name a run's --trainer.default_root_dir")
    if len(runs) > 1 and folder not in runs:
        raise ValueError(f"{folder}: holds {len(runs)} runs, {runs[0].name} to {runs[-1].name}; name one of them")
    files = [file for file in files if file.parent == (folder if folder in runs else runs[0])]
    run = _from_csv(folder, files[-1]) if files[-1].suffix == ".csv" else _from_events(folder, files)
    if not run.curves:
        raise ValueError(f"{folder}: {len(files)} log files, but nothing in them yet; look again after the first steps")
    return run


def _from_events(folder: Path, files: list[Path]) -> Run:
    logs = [log for log in map(_accumulator(), files) if log.Tags()["scalars"]]
    logs.sort(key=lambda log: log.FirstEventTimestamp())
    scalars = [{tag: log.Scalars(tag) for tag in log.Tags()["scalars"]} for log in logs]
    begins = [min(events[0].step for events in by_tag.values()) for by_tag in scalars] + [np.inf]
    rows: dict[str, list[tuple]] = defaultdict(list)
    sounds: dict[str, dict[int, bytes]] = defaultdict(dict)
    sessions: list[Session] = []
    hours = 0.0
    for number, (log, by_tag) in enumerate(zip(logs, scalars, strict=True)):
        end, start, before = min(begins[number + 1 :]), log.FirstEventTimestamp(), hours
        for tag, events in by_tag.items():
            kept = [event for event in events if event.step <= end]
            rows[tag] += [(event.step, before + (event.wall_time - start) / 3600, event.value) for event in kept]
            if kept:
                hours = max(hours, rows[tag][-1][1])
        if begins[number] < end:
            last = max(events[-1].step for events in by_tag.values())
            sessions.append(Session(int(begins[number]), int(min(last, end - 1)), hours - before))
        for tag in log.Tags()["audio"]:
            sounds[tag] |= {event.step: event.encoded_audio_string for event in log.Audio(tag) if event.step <= end}
    curves = {tag: Curve(*np.array(points, float).T) for tag, points in rows.items() if points}
    return Run(folder, {tag: _in_order(curve) for tag, curve in curves.items()}, dict(sounds), sessions)


def _accumulator() -> Callable[[Path], Any]:
    """What reads an event file, all of its scalars and sounds."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"event files need {error.name}: pip install 'flowavenet[train]'") from None
    sizes = {"scalars": 0, "audio": 0, "images": 1, "tensors": 1, "histograms": 1}  # 0: all
    return lambda file: EventAccumulator(str(file), sizes, purge_orphaned_data=False).Reload()


def _in_order(curve: Curve) -> Curve:
    """Sorted by step; of a step that was logged twice, the later one."""
    steps, last = np.unique(curve.steps[::-1], return_index=True)
    return Curve(steps, *(column[::-1][last] for column in curve[1:]))


def _from_csv(folder: Path, file: Path) -> Run:
    """The log that Lightning's CSVLogger writes: a column for each tag, blank where it was not logged, and no clock."""
    rows: dict[str, list[tuple]] = defaultdict(list)
    columns, lines = read_table(file)
    if "step" not in columns:
        raise ValueError(f"{file}: has no column step; this wants what Lightning's CSVLogger writes")
    for number, row in lines:
        try:
            found = {tag: float(text) for tag, text in row.items() if text}
            for tag in found.keys() - {"step"}:
                rows[tag].append((found["step"], np.nan, found[tag]))
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"{file}: line {number} is not numbers, with a step ({error})") from None
    return Run(folder, {tag: _in_order(Curve(*np.array(points, float).T)) for tag, points in rows.items()})
