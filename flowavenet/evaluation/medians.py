"""What many files say together: medians with their uncertainty, of each system and of what two systems differ by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from flowavenet.evaluation.metrics import METRICS

FEWEST = 6
"""Files for an interval: all of 5 lie on one side of the true median in 6 % of cases, so that none would be sure to 95 %."""
RESAMPLES = 2000

Row = dict[str, Any]


class Median(NamedTuple):
    """A median, and the ends of its 95 % interval; what is not known is NaN."""

    median: float
    low: float
    high: float
    files: int

    @property
    def differs(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0 or self.high < 0


def median(values: Iterable[float], seed: int = 0) -> Median:
    """The median of all values that are not NaN, with an interval by the bootstrap.

    The interval holds 95 % of the medians of 2000 draws, with replacement, of as many values; NaN for fewer than 6.

    >>> median([1.0, 2.0, 4.0, math.nan])
    Median(median=2.0, low=nan, high=nan, files=3)

    Efron, "Bootstrap methods: another look at the jackknife", 1979.
    """
    known = np.array([value for value in values if not math.isnan(value)])
    if len(known) < FEWEST:
        return Median(float(np.median(known)) if len(known) else math.nan, math.nan, math.nan, len(known))
    draws = np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))
    low, high = np.quantile(np.median(known[draws], axis=1), [0.025, 0.975])
    return Median(float(np.median(known)), float(low), float(high), len(known))


def by_system(rows: Sequence[Row]) -> dict[str, dict[str, Median]]:
    """The median of every metric, over the files that have it: system -> metric -> median."""
    return {
        system: {name: median(row[name] for row in rows if row["system"] == system) for name in METRICS}
        for system in dict.fromkeys(row["system"] for row in rows)
    }


def differences(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Median]]:
    """By how much the second of two systems exceeds the first, file by file: (first, second) -> metric -> median.

    Files differ more than systems do, so this tells systems apart that the medians of each leave open. Only files that both
    have count.
    """
    scores = {(row["system"], row["file"]): row for row in rows}
    found = {}
    for first, second in combinations(dict.fromkeys(row["system"] for row in rows), 2):
        shared = [row["file"] for row in rows if row["system"] == first and (second, row["file"]) in scores]
        found[first, second] = {
            name: median(scores[second, file][name] - scores[first, file][name] for file in shared) for name in METRICS
        }
    return found
