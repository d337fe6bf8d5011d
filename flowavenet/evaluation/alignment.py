"""Bring a copy to the time and the level of its recording, so that no metric counts a delay or loudness."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BOUND_SECONDS = 0.1
"""Longest lag, either way: more than a window of analysis, or the delay of an MP3 encoder."""
HEARD_SECONDS = 30.0
"""From the beginning of both; what the lag is found by."""
ALIKE = 0.5
"""Correlation from which on two waveforms, or spectrograms, are taken for one, delayed."""
GAIN = 0.01
"""By how much the spectrograms of waveforms that are not alike must correlate better at another lag than at none."""
POLICY = (
    f"aligned by the best lag within {1000 * BOUND_SECONDS:g} ms (found in the first {HEARD_SECONDS:g} s), "
    "cut to the shorter, level matched (RMS)"
)


def find_lag(reference: Tensor, wave: Tensor, sample_rate: int) -> int:
    """By how many samples ``wave`` comes later than ``reference``, (samples,) both; negative: earlier. At most 0.1 s.

    Where the waveforms are alike, up to their sign, the lag of their greatest correlation, exact to the sample. Else, as for
    most vocoders, which give harmonics phases of their own, waveforms correlate best at some chance lag, and spectrograms
    are compared, to about a millisecond; where they are not alike, or hardly more so than without a lag, it is 0.
    """
    heard = round(HEARD_SECONDS * sample_rate)
    reference, wave = reference[:heard].double(), wave[:heard].double()
    bound = round(BOUND_SECONDS * sample_rate)
    correlation = _correlation(reference[None], wave[None], bound).abs()
    if correlation.max() >= ALIKE:
        return int(correlation.argmax()) - bound
    hop = max(sample_rate // 1000, 1)
    bound //= hop
    correlation = _correlation(_envelopes(reference, hop), _envelopes(wave, hop), bound)
    lag = int(correlation.argmax())
    return (lag - bound) * hop if correlation[lag] >= max(ALIKE, correlation[bound] + GAIN) else 0


def without_lag(reference: Tensor, wave: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """Both from the moment on at which both have begun, ``lag`` undone, as far as both go."""
    reference, wave = reference[max(-lag, 0) :], wave[max(lag, 0) :]
    length = min(len(reference), len(wave))
    return reference[:length], wave[:length]


def level_gain(reference: Tensor, wave: Tensor) -> float:
    """The factor that gives ``wave`` the RMS of ``reference``; 1 if either is silent."""
    levels = [x.double().square().mean().sqrt().item() for x in (reference, wave)]
    return levels[0] / levels[1] if min(levels) > 0 else 1.0


def decibels(factor: float) -> float:
    """A factor of amplitude in dB."""
    return 20 * math.log10(factor)


def _envelopes(wave: Tensor, hop: int) -> Tensor:
    """(bands, frames): how loud each band is, as the square root of its magnitude, less its mean."""
    win = 12 * hop
    window = torch.hann_window(win, dtype=wave.dtype)
    levels = torch.stft(wave, win, hop, window=window, pad_mode="constant", return_complex=True).abs().sqrt()
    return levels - levels.mean(dim=1, keepdim=True)


def _correlation(a: Tensor, b: Tensor, bound: int) -> Tensor:
    """Normalised correlation of rows a (rows, m) with b (rows, n) shifted by -bound ... bound: (2 bound + 1,)."""
    size = 1 << (max(a.shape[1], b.shape[1]) + bound).bit_length()    # room enough that no lag wraps around
    spectrum = (torch.fft.rfft(a, size).conj() * torch.fft.rfft(b, size)).sum(dim=0)
    lags = torch.fft.irfft(spectrum, size) / (a.norm() * b.norm()).clamp(min=1e-12)
    return torch.cat([lags[-bound:], lags[: bound + 1]])
