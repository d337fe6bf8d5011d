"""Hear hoarseness: how much of a voice repeats from one pitch period to the next, in all and in three bands."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from flowavenet.evaluation.pitch import FLOOR_HZ, Pitch, pitch

BANDS_HZ = ((80.0, 1000.0), (1000.0, 3000.0), (3000.0, 6000.0))
"""Where correlation is measured: the first harmonics, the formants, and what makes a voice clear or breathy."""
BAND_ORDER = 4
WINDOW_SECONDS = 0.02
"""Length of both pieces that are correlated; longer ones count changes of pitch and vowel as hoarseness."""
TOLERANCE = 0.03
"""By how much the period of a copy may differ from the recording's."""
FINE_RATE = 40000
"""Hz; signals of lower rates are interpolated, as a whole number of samples is too coarse a period for 6 kHz."""
HNR_STEP_SECONDS = 0.01
"""Praat's own; each voiced frame has the value nearest to it."""
HNR_FLOOR_DB = -20.0
"""Given to frames where nothing repeats at all, of which Praat says -200."""


def hoarseness(reference: Tensor, wave: Tensor, sample_rate: int) -> tuple[float, float, float, float]:
    """Return the harmonics-to-noise ratio and the one-period correlation of ``wave`` in three bands.

    All are taken where the recording is voiced, so a copy that loses its voice there is not spared. They describe the copy
    alone: compare them with those of the recording itself, ``hoarseness(reference, reference, sample_rate)``.

    Args:
        reference, wave: (samples,), aligned, at ``sample_rate`` Hz.

    Returns:
        HNR, dB, as :func:`harmonics_to_noise` has it; p1, p2, p3, as :func:`one_period_correlation` has them. NaN if the
        recording has no voiced frame; a band above half the sample rate is NaN, too.

    Raises:
        ModuleNotFoundError: praat-parselmouth is not installed.
    """
    if len(reference) < 0.1 * sample_rate:
        return math.nan, math.nan, math.nan, math.nan
    track = pitch(reference, sample_rate)
    ratio = harmonics_to_noise(wave, sample_rate, track)
    first, second, third = one_period_correlation(wave, sample_rate, track)
    return ratio, first, second, third


def harmonics_to_noise(wave: Tensor, sample_rate: int, track: Pitch) -> float:
    """Return Praat's harmonics-to-noise ratio (HNR), dB, as the mean over the voiced frames of ``track``.

    HNR = 10 log10(r / (1 - r)), r: greatest normalised cross-correlation of the wave with itself one period later, for
    periods of up to 1/75 s (Praat's "To Harmonicity (cc)": 75 Hz, one period per window, no silence threshold). A frame
    counts as -20 dB at least. Harmonics that are s dB above white noise have s to s + 1 dB; noise alone has -6 dB, as the
    greatest of many chance values counts. NaN if no frame is voiced.

    Args:
        wave: (samples,), at ``sample_rate`` Hz.
        track: pitch of the recording.

    Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a sampled
    sound", 1993.
    """
    from parselmouth import Sound

    seconds = track.seconds[track.frequency > 0]
    if not len(seconds):
        return math.nan
    harmonicity = Sound(wave.double().numpy(), sample_rate).to_harmonicity_cc(HNR_STEP_SECONDS, FLOOR_HZ, 0.0, 1.0)
    frames = np.rint((seconds - harmonicity.x1) / HNR_STEP_SECONDS).astype(int).clip(0, harmonicity.nx - 1)
    return float(harmonicity.values[0][frames].clip(HNR_FLOOR_DB).mean())


def one_period_correlation(wave: Tensor, sample_rate: int, track: Pitch) -> tuple[float, ...]:
    """Return, for each band, the median over voiced frames of how much a wave resembles itself one pitch period later.

    p = max over T of <x(t), x(t + T)> / (|x(t)| |x(t + T)|), x: 20 ms of the band-passed wave, T: within 3 % of the period
    of the recording. 1: it repeats exactly. Where harmonics have a share s of the power of the band, and noise the rest,
    p is about s. The greatest of several chance values counts, so white noise has about 0.1, and not 0.

    The bands are 80-1000, 1000-3000 and 3000-6000 Hz, by a zero-phase filter with the power response of a Butterworth
    band-pass of order 4. A silent frame has 0. NaN if no frame is voiced, or half the sample rate is below the band.

    Args:
        wave: (samples,), at ``sample_rate`` Hz.
        track: pitch of the recording.
    """
    voiced = track.frequency > 0
    factor = math.ceil(FINE_RATE / sample_rate)
    rate = factor * sample_rate
    spectrum = np.fft.rfft(wave.double().numpy())
    frequency = np.arange(len(spectrum)) * sample_rate / len(wave)
    medians = []
    for low, high in BANDS_HZ:
        if not voiced.any() or high > sample_rate / 2:
            medians.append(math.nan)
            continue
        band = np.fft.irfft(spectrum * _band_gain(frequency, low, high), factor * len(wave))
        medians.append(float(np.median(_correlations(band, rate, track.seconds[voiced], rate / track.frequency[voiced]))))
    return tuple(medians)


def _correlations(wave: np.ndarray, rate: int, seconds: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """Return the greatest correlation at each time (frames,), for periods in samples (frames,): (frames,)."""
    length = round(WINDOW_SECONDS * rate)
    margin = length + math.ceil((1 + TOLERANCE) * periods.max())
    wave = np.pad(wave, margin)
    energy = np.concatenate([[0.0], np.cumsum(wave**2)])
    starts = np.rint(seconds * rate - (length + periods) / 2).astype(int) + margin  # both pieces lie around the frame
    shortest, longest = np.floor((1 - TOLERANCE) * periods).astype(int), np.ceil((1 + TOLERANCE) * periods).astype(int)
    silence = 1e-12 * energy[-1] / len(wave) * length
    found = np.zeros(len(seconds))
    for i, (start, first, last) in enumerate(zip(starts, shortest, longest, strict=True)):
        later = start + np.arange(first, last + 1)
        products = np.correlate(wave[later[0] : later[-1] + length], wave[start : start + length])
        energies = (energy[later + length] - energy[later]) * (energy[start + length] - energy[start])
        found[i] = _peak(products / np.sqrt(energies.clip(max(silence, 1e-30) ** 2)))
    return found


def _peak(values: np.ndarray) -> float:
    """Return the greatest value, between samples too: the top of the parabola through three of them; 1 at most."""
    i = int(values.argmax())
    if not 0 < i < len(values) - 1:
        return float(values[i])
    slope, bend = (values[i + 1] - values[i - 1]) / 2, values[i - 1] - 2 * values[i] + values[i + 1]
    return float(min(values[i] - slope**2 / (2 * bend), 1.0)) if bend < 0 else float(values[i])


def _band_gain(frequency: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the power response of a Butterworth band-pass, which a filter has that runs forwards and then backwards."""
    frequency = np.maximum(frequency, 1e-3)
    return 1 / (1 + ((frequency**2 - low * high) / (frequency * (high - low))) ** (2 * BAND_ORDER))
