"""Whether the voice has the right melody: its pitch, where there is one, and how clear it is. Measured by Praat."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

STEP_SECONDS = 0.005
FLOOR_HZ, CEILING_HZ = 75.0, 600.0
"""Praat's own, which fit men, women and children."""


class Pitch(NamedTuple):
    """Frames of a voice, every 5 ms: (frames,) each."""

    seconds: np.ndarray
    """Times of their centres."""
    frequency: np.ndarray
    """F0, Hz; 0 where there is none."""
    periodicity: np.ndarray
    """Greatest correlation with the signal a period before, for any period, 0 to 1; 0 where it is below about 0.2."""


def pitch(wave: Tensor, sample_rate: int) -> Pitch:
    """Follow the pitch of a voice, (samples,), by autocorrelation.

    Boersma, "Accurate short-term analysis of the fundamental frequency ...", 1993.
    """
    from parselmouth import Sound

    track = Sound(wave.double().numpy(), sample_rate).to_pitch_ac(STEP_SECONDS, FLOOR_HZ, pitch_ceiling=CEILING_HZ)
    candidates = track.to_array()                                      # (candidates, frames), the chosen ones first
    voiced = np.nan_to_num(candidates["frequency"]) > 0
    periodicity = np.where(voiced, candidates["strength"], 0).max(axis=0)
    return Pitch(track.xs(), track.selected_array["frequency"], periodicity)


def voice(reference: Tensor, wave: Tensor, sample_rate: int) -> tuple[float, float, float, float]:
    """Compare the pitch and the voicing of two voices.

    Returns:
        F0 RMSE, cents (100 to the semitone): root mean square of 1200 log2(F0 / F0'), over frames voiced in both; NaN if
        there is none. One frame an octave off counts as much as thousands that are a little out of tune;
        voicing error: share of frames that are voiced in one only, 0 to 1;
        voicing F1: 2 b / (2 b + o), b: frames voiced in both, o: in one only; 1 is the same, silence around the speech does
        not count; NaN if nothing is voiced;
        periodicity RMSE: root mean square of the difference, over all frames; what is hoarse or buzzing that was not.

    Periodicity as a measure of vocoders: Morrison et al., "Chunked autoregressive GAN ...", 2022, arXiv:2110.10139, by
    another tracker.
    """
    if len(reference) < 0.1 * sample_rate:
        return math.nan, math.nan, math.nan, math.nan
    a, b = pitch(reference, sample_rate), pitch(wave, sample_rate)
    both = (a.frequency > 0) & (b.frequency > 0)
    one = (a.frequency > 0) != (b.frequency > 0)
    cents = 1200 * np.log2(a.frequency[both] / b.frequency[both])
    return (
        float(np.sqrt(np.mean(cents**2))) if both.any() else math.nan,
        float(np.mean(one)),
        float(2 * both.sum() / (2 * both.sum() + one.sum())) if both.any() or one.any() else math.nan,
        float(np.sqrt(np.mean((a.periodicity - b.periodicity) ** 2))),
    )
