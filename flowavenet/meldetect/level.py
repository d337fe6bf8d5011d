"""Estimate how much louder or quieter a mel is than it should be, and put that right.

A front-end that was trained on another analysis than the vocoder's makes mels whose level is off: the LWS package's, which
many a Tacotron 2 was trained on, is 0.9 to 1.8 dB quieter than librosa's at the same settings. A vocoder follows the level
of its mel, so its speech is off by as much.

Levels are compared band by band, at the level that a band exceeds a quarter of the time, in dB of magnitude: pauses and
floors hardly reach it. The median over bands is the offset. What it is worth depends on what the mel is compared with:

- other utterances of the same voice: 2.5 dB of each utterance, which is how speakers vary, so less the more there are;
- average speech: 5 dB, as recordings differ; 3 dB in conventions that bring recordings to a common peak.

Measured on 36 recordings each of five voices (2026-11-21). The last is worth a look, and no correction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flowavenet.audio.mel import MelSpectrogram
from flowavenet.audio.settings import MelSettings
from flowavenet.meldetect.speech import average_speech

_QUARTER = 9.2  # dB: what bands exceed a quarter of the time, above the mean of their logarithms, in those recordings
_UTTERANCE, _UTTERANCE_SECONDS = 2.5, 5.0  # dB, standard deviation of an utterance's level about its voice's; its length
_RECORDING, _AT_PEAK = 5.0, 3.0  # dB, standard deviation of recordings' levels, of any voice; of those of a common peak


class Offset(NamedTuple):
    """How much louder a mel is than what it was compared with, and how far that may be off."""

    db: float
    """dB of magnitude; negative: quieter. `with_offset(mel, settings, -db)` takes it away."""
    error_db: float
    """Standard deviation of `db`, dB, from how utterances, or recordings, differ in level."""


def estimate_offset(
    mel: Tensor | Sequence[Tensor], settings: MelSettings, reference: Tensor | Sequence[Tensor] | None = None
) -> Offset:
    """Estimate how much louder a mel is than a reference, in dB.

    Args:
        mel: (batch, n_mels, frames), or several of them, of one front-end: the more utterances, the smaller the error.
        settings: its convention.
        reference: mels of the same convention, analysed from recordings of the same voice; None: average speech, whose
            error is so large that nobody should apply the result unasked.

    Raises ValueError for another number of bands, and if no band is above the convention's floor a quarter of the time.

    >>> mel = torch.randn(1, 80, 100) - 5
    >>> round(estimate_offset(with_offset(mel, MelSettings(), 3.0), MelSettings(), mel).db, 3)
    3.0
    """
    level, count = _level(mel, settings, "mel")
    if reference is None:
        usual = torch.from_numpy(average_speech(settings).level).to(level) * (20 / math.log(10)) + _QUARTER
        error = _RECORDING if settings.peak is None else _AT_PEAK
    else:
        usual, others = _level(reference, settings, "reference")
        error = _UTTERANCE * math.sqrt(1 / count + 1 / others)
    off = (level - usual)[torch.isfinite(level) & torch.isfinite(usual)]
    if not len(off):
        raise ValueError("no band is above the floor of its convention a quarter of the time; give mels of speech")
    return Offset(off.median().item(), error)


def with_offset(mel: Tensor, settings: MelSettings, db: float) -> Tensor:
    """Make a mel louder by so many dB of magnitude, as its convention does with the wave times 10 ** (db / 20).

    Exact, except that what is at the floor or at the clip stays there, as nobody knows what it hides, and that what would
    leave the range ends up at its ends.

    Shape: (batch, n_mels, frames) -> the same, float32 or wider.
    """
    spectrogram = MelSpectrogram(settings).to(mel.device)
    energies = spectrogram.energies(mel)
    low, high = (torch.as_tensor(bound).to(energies).reshape(-1, 1) for bound in spectrogram.bounds())
    told = (energies > low * (1 + _ROUNDING)) & (energies < high * (1 - _ROUNDING))
    return torch.where(told, spectrogram.from_energies(energies * 10 ** (settings.power * db / 20)), mel)


_ROUNDING = 1e-3  # as a part of an energy, what float32 loses in a logarithm and back, and then some


def _level(mels: Tensor | Sequence[Tensor], settings: MelSettings, name: str) -> tuple[Tensor, float]:
    """Return what each band exceeds a quarter of the time, in dB, (n_mels,), -inf at the floor; and the utterances."""
    mels = [mels] if isinstance(mels, Tensor) else list(mels)
    for mel in mels:
        if mel.dim() != 3 or mel.shape[1] != settings.n_mels:
            wanted = f"(batch, {settings.n_mels}, frames)"
            raise ValueError(f"{name} has shape {tuple(mel.shape)}, must be {wanted} as its settings say")
    if not sum(mel.numel() for mel in mels):
        raise ValueError(f"{name} is empty; give at least 1 frame")
    spectrogram = MelSpectrogram(settings)
    flat = torch.cat([mel.detach().cpu().transpose(0, 1).flatten(1).float() for mel in mels], dim=1)
    energies = spectrogram.energies(flat).kthvalue(math.ceil(0.75 * flat.shape[1]), dim=1).values
    low, high = (torch.as_tensor(bound).to(energies) for bound in spectrogram.bounds())
    decibels = 20 / settings.power * energies.log10()
    seconds = settings.hop_length / settings.sample_rate
    count = sum(mel.shape[0] * max(1.0, mel.shape[2] * seconds / _UTTERANCE_SECONDS) for mel in mels)
    return decibels.masked_fill((energies <= 1.1 * low) | (energies >= high), -torch.inf), count
