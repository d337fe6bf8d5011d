"""Guess what listeners would say of a sound, without its recording: networks of Microsoft's that learned from opinions.

The networks are those of the package ``speechmos``. What they read is computed here, so that librosa is not needed, no
more threads than torch's are used, and a score is the same every time. DNSMOS is that of ``speechmos.dnsmos.run``; PLCMOS is
that of ``speechmos.plcmos.run`` with fixed raters.
"""

from __future__ import annotations

import math
import statistics
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowavenet.audio import MelSettings, mel_filter_bank

RATE = 16000
HEARD = 144160
"""Samples that DNSMOS hears at once: 9.01 s; shorter audio is repeated, of longer audio every second begins a piece."""
OVERALL = (-0.06766283, 1.11546468, 0.04602535)
"""Polynomial from the network's overall opinion to the scale of P.835, highest power first; DNSMOS's authors fitted it."""
RATERS = 15
"""Listeners, as random vectors, whose opinions PLCMOS averages."""


def opinions(reference: Tensor, wave: Tensor, sample_rate: int) -> tuple[float, float, float]:
    """Return three predicted mean opinion scores of ``wave``, 1 (bad) to 5 (excellent).

    ``reference`` is not heard; score it as a ``wave`` to learn what the recording itself has.

    Args:
        reference, wave: (samples,), at ``sample_rate`` Hz, resampled to 16 kHz here.

    Returns:
        DNSMOS overall, of ITU-T P.835 (Reddy, Gopal, Cutler, 2022, doi:10.1109/ICASSP43922.2022.9746108); DNSMOS P.808
        (the same, 2021, arXiv:2010.15258); PLCMOS (Diener et al., 2023, arXiv:2305.15127). NaN if ``wave`` is silent.

    Raises:
        ModuleNotFoundError: speechmos or onnxruntime is not installed.
    """
    import soxr

    sessions = _sessions()
    if len(wave) < 0.3 * sample_rate or not wave.any():
        return math.nan, math.nan, math.nan
    samples = soxr.resample(wave.double().numpy(), sample_rate, RATE, quality="HQ")
    return (*_dnsmos(samples, sessions), _plcmos(samples, sessions))


def _dnsmos(samples: np.ndarray, sessions: dict[str, Any]) -> tuple[float, float]:
    """Return the overall and the P.808 score, means over pieces of 9.01 s."""
    while len(samples) < HEARD:
        samples = np.tile(samples, 2)
    overall, p808 = [], []
    for start in range(0, max(len(samples) // RATE - 9, 1) * RATE, RATE):
        piece = samples[start : start + HEARD].astype(np.float32)
        _, _, opinion = sessions["overall"].run(None, {"input_1": piece[None]})[0][0]
        overall.append(float(np.polyval(OVERALL, opinion)))
        p808.append(float(sessions["p808"].run(None, {"input_1": _mel(piece[:-160])[None]})[0][0][0]))
    return statistics.fmean(overall), statistics.fmean(p808)


def _plcmos(samples: np.ndarray, sessions: dict[str, Any]) -> float:
    """Return the mean opinion of fixed raters; speechmos draws others at each call, which changes little."""
    window = np.hamming(513)[:-1]
    frames = math.ceil(len(samples) / 256) + 1
    padded = np.pad(samples, (256, frames * 256 - len(samples)))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 512)[::256][:frames] * window
    power = np.abs(np.fft.rfft(pieces)) ** 2
    floor = power[power > 0].min() * 10**-12                          # 120 dB below all else
    feed = {"degraded_audio": (np.log(np.where(power > 0, power, floor)) / 20).astype(np.float32)[None, None]}
    raters = np.random.default_rng(0).standard_normal((RATERS, 1, 64)).astype(np.float32)
    return statistics.fmean(float(np.squeeze(sessions["plcmos"].run(None, feed | {"rater_embed": r})[0])) for r in raters)


def _mel(samples: np.ndarray) -> np.ndarray:
    """Return librosa's mel spectrogram in dB below its maximum, 0 dB at 1 and -40 at 0: (frames, 120)."""
    window = torch.hann_window(321, dtype=torch.float64)
    power = torch.stft(torch.from_numpy(samples).double(), 321, 160, window=window, pad_mode="constant", return_complex=True)
    mel = _filters() @ power.abs().square().numpy()
    level = 10 * np.log10(mel.clip(1e-10)) - 10 * np.log10(max(mel.max(), 1e-10))
    return ((level.clip(level.max() - 80) + 40) / 40).T.astype(np.float32)


@cache
def _filters() -> np.ndarray:
    """Return librosa's mel filters: (120, 161)."""
    settings = MelSettings(sample_rate=RATE, n_fft=321, win_length=321, hop_length=160, n_mels=120, f_max=RATE / 2)
    return mel_filter_bank(settings).double().numpy()


@cache
def _sessions() -> dict[str, Any]:
    """Load the networks, once a process, on as many threads as torch uses."""
    from importlib.resources import files

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()            # one in processes that share the work
    options.log_severity_level = 3
    names = {
        "overall": "dnsmos_models/sig_bak_ovr.onnx", "p808": "dnsmos_models/model_v8.onnx",
        "plcmos": "plcmos_models/plcmos_v2.onnx",
    }
    folder = files("speechmos")
    return {
        key: onnxruntime.InferenceSession((folder / name).read_bytes(), options, providers=["CPUExecutionProvider"])
        for key, name in names.items()
    }
