"""The figures of an evaluation, as text to read and as files to go on with."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from flowavenet.evaluation.alignment import POLICY
from flowavenet.evaluation.medians import Median, Row, by_system, differences
from flowavenet.evaluation.metrics import METRICS
from flowavenet.files import write_atomically

RECORDINGS = "recordings"
FACTS = {"lag_ms": "lag undone, ms", "gain_db": "gain given, dB"}
"""Of each file, besides the metrics."""


@dataclass(frozen=True)
class Report:
    """Scores of systems, and what they say together.

    Args:
        rows: as :func:`~flowavenet.evaluation.folders.score_all` returns them.
        failed: files that could not be scored, a line each.
        hints: what to install for columns that are blank, a line each.
    """

    rows: Sequence[Row]
    failed: Sequence[str] = field(default_factory=list)
    hints: Sequence[str] = field(default_factory=list)

    @cached_property
    def copies(self) -> list[Row]:
        """Return the rows of systems, without those of the recordings."""
        return [row for row in self.rows if row["system"] is not None]

    @cached_property
    def recordings(self) -> dict[str, Median] | None:
        """Return the medians of what the recordings have by themselves; None if their rows are not given."""
        return by_system([row for row in self.rows if row["system"] is None]).get(None)

    @property
    def columns(self) -> dict[str, dict[str, Median]]:
        """Return the medians of the recordings, if known, and of the systems, each under its title."""
        own = {} if self.recordings is None else {RECORDINGS: self.recordings}
        return own | {(f"{system}/" if system == RECORDINGS else system): found for system, found in self.systems.items()}

    @cached_property
    def systems(self) -> dict[str, dict[str, Median]]:
        """System -> metric -> median."""
        return by_system(self.copies)

    @cached_property
    def differences(self) -> dict[tuple[str, str], dict[str, Median]]:
        """(first, second) -> metric -> median of second less first, file by file."""
        return differences(self.copies)

    def of(self, system: str | None, key: str) -> list[Any]:
        """One column of the rows of a system."""
        return [row[key] for row in self.rows if row["system"] == system]

    def text(self) -> str:
        """Return all medians, a line per metric and a column per system; and by how much the others exceed the first."""
        parts = [f"# median [95 % interval] over files; {POLICY}", *(f"# {hint}" for hint in self.hints)]
        table = [["", "best", *self.columns], *self._lines(self.columns)]
        blank = [""] * (len(self.columns) - len(self.systems))        # the recordings have not been brought to anything
        table.append(["files", "", *blank, *(str(len(self.of(system, "file"))) for system in self.systems)])
        for key, title in FACTS.items():
            table.append([title, "", *blank, *(span(self.of(system, key)) for system in self.systems)])
        parts.append(_aligned(table))
        first, *others = self.systems
        if others:
            parts.append(f"# less {first}, file by file: median [95 % interval]; *: the interval is on one side of 0")
            columns = {other: self.differences[first, other] for other in others}
            parts.append(_aligned([["", "best", *others], *self._lines(columns, mark="*")]))
        return "\n".join(parts)

    def _lines(self, columns: dict[str, dict[str, Median]], mark: str = "") -> list[list[str]]:
        lines = []
        for name, metric in METRICS.items():
            values = [column[name] for column in columns.values()]
            cells = [shown(value, metric.digits, bool(mark)) + (mark if mark and value.differs else "") for value in values]
            lines.append([metric.title, metric.best, *cells])
        return lines

    def write(self, out: Path) -> None:
        """Write ``scores.csv``, a line per file, and ``scores.json``, everything, into a folder."""
        with write_atomically(out / "scores.csv") as temporary, temporary.open("w", newline="") as file:
            table = csv.DictWriter(file, list(self.copies[0]))
            table.writeheader()
            table.writerows({key: "" if _unknown(value) else value for key, value in row.items()} for row in self.copies)
        content = {
            "policy": POLICY,
            "recordings": _plain(self.recordings or {}),
            "systems": {system: _plain(medians) for system, medians in self.systems.items()},
            "differences": [
                {"first": first, "second": second, "second_less_first": _plain(medians)}
                for (first, second), medians in self.differences.items()
            ],
            "files": [{key: None if _unknown(value) else value for key, value in row.items()} for row in self.copies],
            "failed": list(self.failed),
            "hints": list(self.hints),
        }
        with write_atomically(out / "scores.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def number(value: float, digits: int, signed: bool = False) -> str:
    """A figure as it is shown; "-" if it is not known.

    >>> number(-0.0001, 2), number(3.14159, 2, signed=True), number(math.nan, 2)
    ('0.00', '+3.14', '-')
    """
    if math.isnan(value):
        return "-"
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"  # + 0.0: no "-0.00"


def shown(value: Median, digits: int, signed: bool = False) -> str:
    """A median and its interval, if there is one."""
    middle = number(value.median, digits, signed)
    if math.isnan(value.low):
        return middle
    return f"{middle} [{number(value.low, digits, signed)}, {number(value.high, digits, signed)}]"


def span(values: Sequence[float], digits: int = 1) -> str:
    """The smallest and the largest value, or the one that all have."""
    ends = [number(end, digits) for end in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _plain(medians: dict[str, Median]) -> dict[str, dict[str, Any]]:
    return {
        name: {key: None if _unknown(value) else value for key, value in median._asdict().items()}
        for name, median in medians.items()
    }


def _unknown(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
