"""Audio as bytes: 16-bit samples, and the head of a WAV file in front of them."""

from __future__ import annotations

import struct

import torch
from torch import Tensor


def pcm(wave: Tensor) -> bytes:
    """A wave (1, samples) as 16-bit samples, little-endian; what exceeds full scale is cut off.

    sample = clip(round(wave * 32768), -32768, 32767)

    Raises ValueError for samples that are no numbers.

    >>> pcm(torch.tensor([[0.0, 0.5, -2.0]])).hex(" ", 2)
    '0000 0040 0080'
    """
    if bad := int((~wave.isfinite()).sum()):
        raise ValueError(f"{bad} of {wave.numel()} samples are no numbers; take a lower temperature, or look at the mel")
    return (wave[0].double() * 32768).round().clamp(-32768, 32767).to(torch.int16).numpy().astype("<i2").tobytes()


def wav_head(samples: int, sample_rate: int) -> bytes:
    """What a WAV file of so many 16-bit samples in one channel begins with; the samples follow.

    >>> len(wav_head(0, 22050))
    44
    """
    size = 2 * samples
    layout = struct.pack("<IHHIIHH", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", size)
