"""Folders of vocoded speech against a folder of recordings: what belongs together, and the scores of every file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowavenet.audio import audio_info, list_audio, load_audio
from flowavenet.evaluation.alignment import decibels, find_lag, level_gain, without_lag
from flowavenet.evaluation.metrics import describe, score
from flowavenet.files import Failures, end_with_parent

SHORTEST_SECONDS = 0.3
UNEQUAL_SECONDS = 0.1
"""A difference in length that deserves a note; a last hop or frame does not."""

Row = dict[str, Any]
Keep = Callable[[str, dict[str | None, Tensor], int], None]
"""What to do with an utterance: its name, the audio of every system, as scored, and of the recording (None); sample rate."""


@dataclass(frozen=True)
class Utterance:
    """A recording and its copies."""

    name: str
    recording: Path
    copies: dict[str, Path | None]
    """File of every system, in order; None where there is none."""

    @property
    def files(self) -> int:
        """How many there are, the recording included."""
        return 1 + sum(path is not None for path in self.copies.values())


def utterances(reference: Path, folders: Sequence[Path]) -> list[Utterance]:
    """Pair every recording with the files of the same name, without suffix, in the folders, or folders below them.

    A system is called as its folder is, or by the whole path if two have one name.

    Raises ValueError, in one line, if a folder and the recordings have no name in common, or a folder has a name twice.
    """
    if len(set(folders)) < len(folders):
        raise ValueError(f"{next(folder for folder in folders if folders.count(folder) > 1)}: is given twice")
    recordings, copies = _by_stem(reference), {}
    names = [folder.resolve().name for folder in folders]
    for folder, name in zip(folders, names, strict=True):
        made = _by_stem(folder)
        if not made.keys() & recordings.keys():
            raise ValueError(
                f"{folder}: none of its {len(made)} audio files has the name of one of the {len(recordings)} in {reference}"
            )
        copies[name if names.count(name) == 1 else str(folder)] = made
    return [
        Utterance(stem, recording, {system: made.get(stem) for system, made in copies.items()})
        for stem, recording in recordings.items()
        if any(stem in made for made in copies.values())
    ]


def compare(recording: Tensor, path: Path, sample_rate: int) -> tuple[Row, Tensor]:
    """Score a copy against its recording, (samples,), after its rate, lag and level are matched.

    Returns:
        what was done to it and its scores; and the copy itself, on the recording's time axis and at its level.

    Raises ValueError, in one line, if they have too little in common to be compared.
    """
    info = audio_info(path)
    copy = load_audio(path, sample_rate)[0]
    lag = find_lag(recording, copy, sample_rate)
    reference, wave = without_lag(recording, copy, lag)
    seconds = len(reference) / sample_rate
    if seconds < SHORTEST_SECONDS:
        raise ValueError(
            f"{path}: {seconds:.2f} s in common with its recording, less than the {SHORTEST_SECONDS} s that metrics need; "
            "leave it out"
        )
    notes = [f"resampled from {info.sample_rate} to {sample_rate} Hz"] if info.sample_rate != sample_rate else []
    longer = info.seconds - len(recording) / sample_rate
    if abs(longer) > UNEQUAL_SECONDS:
        notes.append(f"{abs(longer):.2f} s {'longer' if longer > 0 else 'shorter'} than the recording")
    gain = level_gain(reference, wave)
    facts = {"seconds": seconds, "lag_ms": 1000 * lag / sample_rate, "gain_db": decibels(gain), "note": "; ".join(notes)}
    return facts | score(reference, wave, sample_rate), torch.cat([torch.zeros(max(-lag, 0)), gain * wave])


def judge(utterance: Utterance, keep: Keep | None = None) -> tuple[list[Row], list[str]]:
    """Score each copy of a recording at the recording's sample rate, past bad files: rows, and what went wrong.

    If any copy could be scored, the first row, of system None, has what the recording itself has.
    """
    rows, waves, failures = [], {}, Failures()
    with failures.noted(utterance.recording):
        rate = audio_info(utterance.recording).sample_rate
        recording = load_audio(utterance.recording, rate)[0]
        for system, path in utterance.copies.items():
            if path is not None:
                with failures.noted(path):
                    row, waves[system] = compare(recording, path, rate)
                    rows.append({"system": system, "file": utterance.name} | row)
    if rows:
        facts = {"seconds": len(recording) / rate, "lag_ms": 0.0, "gain_db": 0.0, "note": ""}
        rows.insert(0, {"system": None, "file": utterance.name} | facts | describe(recording, rate))
    if keep and rows:
        keep(utterance.name, {None: recording, **waves}, rate)
    return rows, list(failures.values())


def score_all(
    pairs: Sequence[Utterance], workers: int = 1, keep: Keep | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Row], list[str]]:
    """Score all copies of all recordings.

    Args:
        pairs: as :func:`utterances` finds them.
        workers: processes that share the work, each of them with a copy of Python and torch (which takes seconds to start).
            With more than one, a script that calls this must guard it by ``if __name__ == "__main__"``.
        keep: does something with the audio of each utterance, in the worker; can be pickled, if there are several.
        progress: called with the numbers of recordings done and of all.

    Returns:
        Rows, system by system: ``system``, ``file``, ``seconds`` compared, ``lag_ms`` of the copy (positive: late),
        ``gain_db`` it was raised by, a ``note``, and every metric of :data:`~flowavenet.evaluation.metrics.METRICS`;
        system None, first, is the recordings, with the metrics that they have by themselves; and what went wrong, a line
        for each bad file.
    """
    rows, failed = [], []
    for done, (own, wrong) in enumerate(_each(partial(judge, keep=keep), pairs, workers), start=1):
        rows += own
        failed += wrong
        progress(done, len(pairs))
    order = {None: -1} | {system: i for pair in pairs for i, system in enumerate(pair.copies)}
    return sorted(rows, key=lambda row: order[row["system"]]), failed


def _each(work: Callable[[Utterance], Any], pairs: Sequence[Utterance], workers: int) -> Iterator[Any]:
    if workers <= 1:
        yield from map(work, pairs)
        return
    context = get_context("spawn")                                     # a forked torch may hang
    try:
        with ProcessPoolExecutor(workers, context, _begin) as pool:
            yield from pool.map(work, pairs)
    except BrokenProcessPool:
        raise ValueError("a worker process was killed, perhaps for want of memory; try --workers 1") from None


def _begin() -> None:
    """What a worker does first."""
    torch.set_num_threads(1)
    end_with_parent()


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in list_audio(folder):
        if path.stem in files:
            raise ValueError(f"{path}: has the name of {files[path.stem]}, but files are paired by name; rename one of them")
        files[path.stem] = path
    return files
