"""Choose the temperature of a trained vocoder by how recordings that it was not trained on come out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from flowavenet.evaluation.hoarseness import hoarseness
from flowavenet.evaluation.metrics import METRICS, score
from flowavenet.vocoder import Speaker, Vocoder

CRITERIA = {"dnsmos": -1, "hnr_gap_db": 1, "pesq_wb": -1, "mr_stft_log_magnitude": 1}
"""What decides, and whether more is better (-1) or worse (1): one figure of each kind, since each has its blind spot. DNSMOS
is an opinion; HNR hears hoarseness, and is compared with the recording's, as colder draws repeat more and more; PESQ is a
distance as heard; the log-magnitude is a distance in every cell, which punishes what is too smooth."""
TITLES = {"dnsmos": "DNSMOS", "hnr_gap_db": "HNR off, dB", "pesq_wb": "PESQ-wb", "mr_stft_log_magnitude": "log-magnitude"}

Row = dict[str, Any]


def temperatures(
    vocoder: Vocoder, waves: Sequence[Tensor], candidates: Sequence[float], match: int | None = None,
    progress: Callable[[int, int], None] | None = None, speaker: Speaker | None = None,
) -> list[Row]:
    """Score copy syntheses of recordings at several temperatures, and rank these.

    Args:
        waves: recordings (1, samples), at the vocoder's sample rate and level.
        candidates: temperatures.
        match: rounds of mel matching; None: the checkpoint's.
        progress: called with the numbers of syntheses done and of all.
        speaker: whose voice, as for :meth:`Vocoder.forward`.

    Returns:
        A row per temperature: ``temperature``; the mean of every metric; ``hnr_gap_db``, the mean of
        abs(HNR of the copy - HNR of the recording); and ``rank``, the mean over :data:`CRITERIA` of its place among the
        candidates. The lowest rank is the best. Criteria whose libraries are not installed do not count.
    """
    own = [_hnr(wave[0], vocoder.sample_rate) for wave in waves]
    rows: list[Row] = []
    for temperature in candidates:
        scores = []
        for wave in waves:
            made = vocoder(vocoder.mel(wave), temperature, seed=0, match=match, speaker=speaker).cpu()
            scores.append(score(wave[0], made[0], vocoder.sample_rate))
            if progress:
                progress(len(rows) * len(waves) + len(scores), len(candidates) * len(waves))
        gap = _mean(abs(one["hnr_db"] - ratio) for one, ratio in zip(scores, own, strict=True))
        means = {name: _mean(one[name] for one in scores) for name in METRICS}
        rows.append({"temperature": temperature} | means | {"hnr_gap_db": gap})
    for row in rows:
        known = {name: sign for name, sign in CRITERIA.items() if not math.isnan(row[name])}
        row["rank"] = statistics.fmean(
            1 + sum(sign * other[name] < sign * row[name] for other in rows) for name, sign in known.items()
        )
    return rows


def _hnr(wave: Tensor, sample_rate: int) -> float:
    """Return the harmonics-to-noise ratio of a recording (samples,), dB; NaN if Praat is not installed."""
    try:
        return hoarseness(wave, wave, sample_rate)[0]
    except ModuleNotFoundError:
        return math.nan


def _mean(values: Iterable[float]) -> float:
    """Return the mean of what is known; NaN if nothing is."""
    return float(torch.tensor(list(values), dtype=torch.float64).nanmean())


def table(rows: Sequence[Row]) -> str:
    """Return what decides in the rows of :func:`temperatures`, a line each."""
    lines = ["  ".join(["temperature", "rank", *TITLES.values()])]
    for row in rows:
        cells = [f"{row['temperature']:11.2f}", f"{row['rank']:4.1f}"]
        lines.append("  ".join(cells + [f"{row[name]:{len(title)}.3f}" for name, title in TITLES.items()]))
    return "\n".join(lines)
