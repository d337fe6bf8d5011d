"""Choose how a trained vocoder is used, by how recordings that it was not trained on come out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flowavenet.evaluation.metrics import METRICS, score
from flowavenet.vocoder import Speaker, Vocoder

CRITERIA = {"pesq_wb": -1, "stoi": -1, "mr_stft_log_magnitude": 1, "spectral_convergence": 1, "log_mel_l1": 1}
"""The metrics that decide, and whether more is better (-1) or worse (1)."""

Row = dict[str, Any]


def temperatures(
    vocoder: Vocoder, waves: Sequence[Tensor], candidates: Sequence[float], match: int | None = None,
    progress: Callable[[int, int], None] | None = None, speaker: Speaker | None = None,
) -> list[Row]:
    """Copy-synthesise recordings at several temperatures.

    Args:
        waves: recordings (1, samples), at the vocoder's sample rate and level.
        candidates: temperatures.
        match: rounds of mel matching; None: the checkpoint's.
        progress: called with the numbers of syntheses done and of all.
        speaker: whose voice, as for :meth:`Vocoder.forward`.

    Returns:
        A row per temperature: ``temperature``, the mean of every metric, and ``rank``: the mean, over :data:`CRITERIA`, of
        its place among the candidates. The lowest rank is the best; no single metric decides, as each has its blind spot.
    """
    rows: list[Row] = []
    for temperature in candidates:
        scores = []
        for wave in waves:
            made = vocoder(vocoder.mel(wave), temperature, seed=0, match=match, speaker=speaker).cpu()
            scores.append(score(wave[0], made[0], vocoder.sample_rate))
            if progress:
                progress(len(rows) * len(waves) + len(scores), len(candidates) * len(waves))
        rows.append({"temperature": temperature} | {name: _mean(one[name] for one in scores) for name in METRICS})
    for row in rows:
        known = {name: sign for name, sign in CRITERIA.items() if not math.isnan(row[name])}
        row["rank"] = statistics.fmean(
            1 + sum(sign * other[name] < sign * row[name] for other in rows) for name, sign in known.items()
        )
    return rows


def _mean(values: Any) -> float:
    return float(torch.tensor(list(values), dtype=torch.float64).nanmean())


def table(rows: Sequence[Row]) -> str:
    """What :func:`temperatures` gives, a line each."""
    lines = ["  ".join(["temperature", "rank", *METRICS])]
    for row in rows:
        cells = [f"{row['temperature']:11.2f}", f"{row['rank']:4.1f}"]
        lines.append("  ".join(cells + [f"{row[name]:{len(name)}.3f}" for name in METRICS]))
    return "\n".join(lines)
