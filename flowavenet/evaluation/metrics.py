"""Distances between a recording and a vocoded copy of it.

No single one tells the truth. PESQ, STOI and the mel distance forgive what Griffin-Lim does to phases; the full-band STFT
distances do not. Read them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from flowavenet.audio import MelSettings, MelSpectrogram
from flowavenet.evaluation.artefacts import tonal_lines, tremble

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""(FFT size, hop, window) of the multi-resolution distances, samples at 22,050 Hz; Yamamoto et al., 2020,
arXiv:1910.11480."""
MAGNITUDE_FLOOR = 3e-4
PESQ_RATE = 16000


def pesq_wb(reference: Tensor, wave: Tensor, sample_rate: int) -> float:
    """Perceived quality as listeners would grade it, 1 (bad) to 4.64 (the same); differences under 0.2 are noise.

    Wide band, at 16 kHz. NaN where the measure finds no speech. ITU-T P.862.2, 2007.
    """
    import librosa
    from pesq import PesqError, pesq

    if len(reference) < 0.3 * sample_rate:
        return math.nan
    pair = [
        librosa.resample(x.double().numpy(), orig_sr=sample_rate, target_sr=PESQ_RATE, res_type="soxr_hq")
        for x in (reference, wave)
    ]
    try:
        return float(pesq(PESQ_RATE, *pair, "wb"))
    except (PesqError, ValueError):  # no speech found; or, on digital silence, a crash of the library
        return math.nan


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


def mr_stft_log_magnitude(reference: Tensor, wave: Tensor, sample_rate: int) -> float:
    """How far magnitudes are apart in every time-frequency cell, natural log; 0 is the same.

    mean |ln max(|A|, 3e-4) - ln max(|B|, 3e-4)|, averaged over three resolutions.
    """
    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a.clamp(min=MAGNITUDE_FLOOR).log() - b.clamp(min=MAGNITUDE_FLOOR).log()).abs().mean()

    return _over_resolutions(distance, reference, wave)


def spectral_convergence(reference: Tensor, wave: Tensor, sample_rate: int) -> float:
    """Energy of the difference of magnitudes against that of the reference; 0 is the same.

    || |A| - |B| || / || |A| ||, averaged over three resolutions.
    """
    return _over_resolutions(lambda a, b: (a - b).norm() / a.norm().clamp(min=1e-9), reference, wave)


def log_mel_l1(reference: Tensor, wave: Tensor, sample_rate: int) -> float:
    """Mean distance of the log-mel spectrograms (80 bands up to 8 kHz, natural log, floor 1e-5); 0 is the same."""
    settings = replace(MelSettings(), sample_rate=sample_rate, f_max=min(8000.0, sample_rate / 2))
    a, b = MelSpectrogram(settings)(torch.stack([reference, wave]).float())
    return float((a - b).abs().mean())


METRICS: dict[str, Callable[[Tensor, Tensor, int], float]] = {
    "pesq_wb": pesq_wb,
    "stoi": stoi,
    "mr_stft_log_magnitude": mr_stft_log_magnitude,
    "spectral_convergence": spectral_convergence,
    "log_mel_l1": log_mel_l1,
    "tonal_lines_db": tonal_lines,
    "tremble_db": tremble,
}


def score(reference: Tensor, wave: Tensor, sample_rate: int) -> dict[str, float]:
    """All metrics of one pair of recordings, after the ends are aligned and the level is matched.

    Both begin together and the longer one is cut, since a vocoder fills the last hop; ``wave`` is then scaled to the RMS of
    ``reference``, so that no metric counts loudness. A metric whose library is not installed is NaN.

    Args:
        reference, wave: (samples,), at ``sample_rate`` Hz.
    """
    length = min(len(reference), len(wave))
    reference, wave = reference[:length].double(), wave[:length].double()
    rms = wave.square().mean().sqrt()
    wave = wave * (reference.square().mean().sqrt() / rms) if rms > 0 else wave
    scores = {}
    for name, metric in METRICS.items():
        try:
            scores[name] = metric(reference, wave, sample_rate)
        except ModuleNotFoundError:
            scores[name] = math.nan
    return scores


def _over_resolutions(distance: Callable[[Tensor, Tensor], Tensor], reference: Tensor, wave: Tensor) -> float:
    total = 0.0
    for n_fft, hop, win in RESOLUTIONS:
        window = torch.hann_window(win, dtype=reference.dtype)
        a, b = (
            torch.stft(x, n_fft, hop, win, window, pad_mode="constant", return_complex=True).abs() for x in (reference, wave)
        )
        total += float(distance(a, b)) / len(RESOLUTIONS)
    return total
