"""Folders of vocoded speech against a folder of recordings: one row per file, one line per folder."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flowavenet.audio import audio_info, list_audio, load_audio
from flowavenet.evaluation.metrics import METRICS, score

Row = dict[str, Any]


def evaluate_folders(
    reference: Path, folders: Sequence[Path], progress: Callable[[int, int], None] | None = None
) -> list[Row]:
    """Score every file of the folders against the recording of the same name (without suffix), at the recording's rate.

    Args:
        reference: folder of recordings.
        folders: folders of vocoded audio.
        progress: called with the numbers of files done and of all.

    Returns:
        Rows with ``folder``, ``file`` and every metric of :data:`~flowavenet.evaluation.metrics.METRICS`.

    Raises ValueError, in one line, if a folder and the recordings have no name in common.
    """
    recordings = {path.stem: path for path in list_audio(reference)}
    pairs = []
    for folder in folders:
        made = {path.stem: path for path in list_audio(folder)}
        common = sorted(made.keys() & recordings.keys())
        if not common:
            raise ValueError(
                f"{folder}: none of its {len(made)} audio files has the name of one of the {len(recordings)} in {reference}"
            )
        pairs += [(folder, recordings[stem], made[stem]) for stem in common]
    rows = []
    for folder, recording, made in pairs:
        rate = audio_info(recording).sample_rate
        scores = score(load_audio(recording, rate)[0], load_audio(made, rate)[0], rate)
        rows.append({"folder": str(folder), "file": made.stem, **scores})
        if progress:
            progress(len(rows), len(pairs))
    return rows


def summary(rows: Sequence[Row]) -> list[Row]:
    """One row per folder: the number of files, and of each metric the median over those that have it."""
    medians = []
    for folder in dict.fromkeys(row["folder"] for row in rows):
        own = [row for row in rows if row["folder"] == folder]
        medians.append({"folder": folder, "files": len(own)} | {name: _median(row[name] for row in own) for name in METRICS})
    return medians


def table(medians: Sequence[Row]) -> str:
    """The summary as text, a line per folder."""
    header = ["folder", "files", *METRICS]
    lines = [header] + [
        [str(row["folder"]), str(row["files"]), *("-" if math.isnan(row[m]) else f"{row[m]:.3f}" for m in METRICS)]
        for row in medians
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def _median(values: Any) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan
