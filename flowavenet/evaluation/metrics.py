"""Compare a vocoded copy with its recording: the columns of the table, and how one pair is scored.

No single metric tells the truth. PESQ, STOI and the mel distances forgive what Griffin-Lim does to phases; the full-band
log-magnitude does not, but all four forgive hoarseness. HNR, one-period correlation and DNSMOS hear it. Read them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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


class Metric(NamedTuple):
    """How a metric is shown."""

    title: str
    best: Literal["low", "high", "0"]
    digits: int = 3
    needs: str = ""
    """The module of a library that may be missing."""


METRICS: dict[str, Metric] = {
    "mr_stft_log_magnitude": Metric("MR-STFT log-magnitude", "low"),
    "spectral_convergence": Metric("spectral convergence", "low"),
    "pesq_wb": Metric("PESQ-wb", "high", 2, "pesq"),
    "stoi": Metric("STOI", "high", 3, "pystoi"),
    "log_mel_l1": Metric("log-mel L1", "low"),
    "mcd_db": Metric("MCD, dB", "low", 2),
    "hnr_db": Metric("HNR, dB", "high", 1, "parselmouth"),
    "period_correlation_low": Metric("p1, 80-1000 Hz", "high", 3, "parselmouth"),
    "period_correlation_mid": Metric("p2, 1000-3000 Hz", "high", 3, "parselmouth"),
    "period_correlation_high": Metric("p3, 3000-6000 Hz", "high", 3, "parselmouth"),
    "dnsmos": Metric("DNSMOS", "high", 2, "speechmos"),
    "dnsmos_p808": Metric("DNSMOS P.808", "high", 2, "speechmos"),
    "plcmos": Metric("PLCMOS", "high", 2, "speechmos"),
    "f0_rmse_cents": Metric("F0 RMSE, cents", "low", 1, "parselmouth"),
    "voicing_error": Metric("voicing error", "low", 3, "parselmouth"),
    "voicing_f1": Metric("voicing F1", "high", 3, "parselmouth"),
    "periodicity_rmse": Metric("periodicity RMSE", "low", 3, "parselmouth"),
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
"""What is measured at once, of (reference, wave, sample rate)."""


def score(reference: Tensor, wave: Tensor, sample_rate: int) -> dict[str, float]:
    """All metrics of one pair of recordings, after the ends are aligned and the level is matched.

    Both begin together and the longer one is cut, since a vocoder fills the last hop; ``wave`` is then scaled to the RMS of
    ``reference``, so that no metric counts loudness. A metric whose library is not installed is NaN.

    Args:
        reference, wave: (samples,), at ``sample_rate`` Hz.
    """
    length = min(len(reference), len(wave))
    reference, wave = reference[:length].double(), wave[:length].double()
    wave = wave * level_gain(reference, wave)
    scores = dict.fromkeys(METRICS, math.nan)
    for names, measure in MEASURES.items():
        with suppress(ModuleNotFoundError):
            scores.update(zip(names, np.atleast_1d(measure(reference, wave, sample_rate)).tolist(), strict=True))
    return scores


def hints() -> list[str]:
    """What to install for the metrics that would be blank, a line for each missing library."""
    lines = []
    for needed in dict.fromkeys(metric.needs for metric in METRICS.values() if metric.needs):
        try:
            import_module(needed)
        except ModuleNotFoundError:
            blank = ", ".join(metric.title for metric in METRICS.values() if metric.needs == needed)
            lines.append(f"{blank}: blank, as {needed} is not installed; pip install 'flowavenet[evaluate]'")
    return lines
