"""Compare a vocoded copy with its recording: the columns of the table, and how one pair is scored.

No single metric tells the truth. PESQ, STOI and the mel distances forgive what Griffin-Lim does to phases; the full-band
log-magnitude does not, but all four forgive hoarseness. HNR, one-period correlation and DNSMOS hear it. Read them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from flowavenet.evaluation.alignment import level_gain
from flowavenet.evaluation.artefacts import tonal_lines, tremble
from flowavenet.evaluation.hoarseness import hoarseness
from flowavenet.evaluation.opinion import opinions
from flowavenet.evaluation.perceptual import pesq_wb, stoi
from flowavenet.evaluation.pitch import voice
from flowavenet.evaluation.spectral import mel_distances, mr_stft

PRAAT, OPINION = ("parselmouth",), ("speechmos", "onnxruntime")


class Metric(NamedTuple):
    """Say how a metric is shown, and what it needs."""

    title: str
    best: Literal["low", "high", "0"]
    digits: int = 3
    needs: tuple[str, ...] = ()
    """Modules of libraries that may be missing."""
    alone: bool = False
    """It describes one wave, not a distance: a recording has it as well, which says what a copy can reach."""


METRICS: dict[str, Metric] = {
    "mr_stft_log_magnitude": Metric("MR-STFT log-magnitude", "low"),
    "spectral_convergence": Metric("spectral convergence", "low"),
    "pesq_wb": Metric("PESQ-wb", "high", 2, ("pesq",)),
    "stoi": Metric("STOI", "high", 3, ("pystoi",)),
    "log_mel_l1": Metric("log-mel L1", "low"),
    "mcd_db": Metric("MCD, dB", "low", 2),
    "hnr_db": Metric("HNR, dB", "high", 1, PRAAT, alone=True),
    "period_correlation_low": Metric("p1, 80-1000 Hz", "high", 3, PRAAT, alone=True),
    "period_correlation_mid": Metric("p2, 1000-3000 Hz", "high", 3, PRAAT, alone=True),
    "period_correlation_high": Metric("p3, 3000-6000 Hz", "high", 3, PRAAT, alone=True),
    "dnsmos": Metric("DNSMOS", "high", 2, OPINION, alone=True),
    "dnsmos_p808": Metric("DNSMOS P.808", "high", 2, OPINION, alone=True),
    "plcmos": Metric("PLCMOS", "high", 2, OPINION, alone=True),
    "f0_rmse_cents": Metric("F0 RMSE, cents", "low", 1, PRAAT),
    "voicing_error": Metric("voicing error", "low", 3, PRAAT),
    "voicing_f1": Metric("voicing F1", "high", 3, PRAAT),
    "periodicity_rmse": Metric("periodicity RMSE", "low", 3, PRAAT),
    "tonal_lines_db": Metric("tonal lines, dB", "0", 2),
    "tremble_db": Metric("tremble, dB", "0", 2),
}

MEASURES: dict[tuple[str, ...], Callable[[Tensor, Tensor, int], float | tuple[float, ...]]] = {
    ("mr_stft_log_magnitude", "spectral_convergence"): mr_stft,
    ("pesq_wb",): pesq_wb,
    ("stoi",): stoi,
    ("log_mel_l1", "mcd_db"): mel_distances,
    ("hnr_db", "period_correlation_low", "period_correlation_mid", "period_correlation_high"): hoarseness,
    ("dnsmos", "dnsmos_p808", "plcmos"): opinions,
    ("f0_rmse_cents", "voicing_error", "voicing_f1", "periodicity_rmse"): voice,
    ("tonal_lines_db",): tonal_lines,
    ("tremble_db",): tremble,
}
"""Metrics that are measured at once, and the function of (reference, wave, sample rate) that returns them."""


def score(reference: Tensor, wave: Tensor, sample_rate: int) -> dict[str, float]:
    """Return all metrics of a recording and a copy of it, after the ends are aligned and the level is matched.

    Both begin together and the longer one is cut, since a vocoder fills the last hop; ``wave`` is then scaled to the RMS of
    ``reference``, so that no metric counts loudness. A metric whose library is not installed is NaN.

    Args:
        reference, wave: (samples,), at ``sample_rate`` Hz.
    """
    length = min(len(reference), len(wave))
    reference, wave = reference[:length].double(), wave[:length].double()
    wave = wave * level_gain(reference, wave)
    return dict.fromkeys(METRICS, math.nan) | _measured(MEASURES, reference, wave, sample_rate)


def describe(recording: Tensor, sample_rate: int) -> dict[str, float]:
    """Return the metrics that a recording has by itself; the others are NaN.

    Args:
        recording: (samples,), at ``sample_rate`` Hz.
    """
    alone = [names for names in MEASURES if all(METRICS[name].alone for name in names)]
    return dict.fromkeys(METRICS, math.nan) | _measured(alone, recording.double(), recording.double(), sample_rate)


def hints() -> list[str]:
    """Return what to install for the metrics that would be blank, a line for each missing library."""
    lines = []
    for needed in dict.fromkeys(module for metric in METRICS.values() for module in metric.needs):
        try:
            import_module(needed)
        except ModuleNotFoundError:
            blank = ", ".join(metric.title for metric in METRICS.values() if needed in metric.needs)
            lines.append(f"{blank}: blank, as {needed} is not installed; pip install 'flowavenet[evaluate]'")
    return lines


def _measured(groups: Iterable[tuple[str, ...]], reference: Tensor, wave: Tensor, sample_rate: int) -> dict[str, float]:
    """Return the metrics of some groups whose libraries are installed."""
    scores: dict[str, float] = {}
    for names in groups:
        with suppress(ModuleNotFoundError):
            scores.update(zip(names, np.atleast_1d(MEASURES[names](reference, wave, sample_rate)).tolist(), strict=True))
    return scores
