"""What listeners would say: two standards that model them."""

from __future__ import annotations

import math
import statistics

from torch import Tensor

PESQ_RATE = 16000
PESQ_SECONDS = 20.0
"""Longest piece for PESQ, whose library crashes on more than 50 utterances; each, with its pause, is at least 0.4 s long."""


def pesq_wb(reference: Tensor, wave: Tensor, sample_rate: int) -> float:
    """Perceived quality as listeners would grade it, 1 (bad) to 4.64 (the same); differences under 0.2 are noise.

    Wide band, at 16 kHz. Of more than 20 s, the mean over equal pieces of at most that. NaN where the measure finds no
    speech. ITU-T P.862.2, 2007.
    """
    import soxr
    from pesq import PesqError, pesq

    if len(reference) < 0.3 * sample_rate:
        return math.nan
    pieces = math.ceil(len(reference) / (PESQ_SECONDS * sample_rate))
    grades = []
    for a, b in zip(reference.double().chunk(pieces), wave.double().chunk(pieces), strict=True):
        if not (a.any() and b.any()):                                  # on digital silence the library crashes
            continue
        try:
            pair = [soxr.resample(x.numpy(), sample_rate, PESQ_RATE, quality="HQ") for x in (a, b)]
            grades.append(float(pesq(PESQ_RATE, *pair, "wb")))
        except (PesqError, ValueError):                                # no speech found
            pass
    return statistics.fmean(grades) if grades else math.nan


def stoi(reference: Tensor, wave: Tensor, sample_rate: int) -> float:
    """Share of the words that listeners would understand, 0 to 1: correlation of band envelopes below 5 kHz.

    NaN where there are fewer than 30 frames that are not silent. Taal, Hendriks, Heusdens, Jensen, 2011.
    """
    import warnings

    from pystoi import stoi as measure

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)                 # so it says that there was too little speech
        try:
            return float(measure(reference.double().numpy(), wave.double().numpy(), sample_rate))
        except (RuntimeWarning, ValueError):
            return math.nan
