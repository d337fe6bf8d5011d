"""The mel conventions of published vocoders, by name.

A vocoder only understands the mel it was trained on. The numbers are those of the projects' preprocessing:

=============  ============================================================  ==========================
name           mel = ...                                                     source
=============  ============================================================  ==========================
`flowavenet`   clip((20 log10(max(power mel, 1e-4)) - 20 + 100) / 100, 0, 1)  Kim et al., "FloWaveNet",
                                                                             2018, arXiv:1811.02155
`hifigan`      ln(max(magnitude mel, 1e-5))                                  Kong et al., "HiFi-GAN",
                                                                             2020, arXiv:2010.05646
=============  ============================================================  ==========================

All use librosa's default mel scale and area normalisation (Slaney's), a Hann window of 1024 samples and a hop
of 256 at 22,050 Hz, and 80 bands.

*Where a frame sits.* Here, and in HiFi-GAN, frame t is centred on the middle of hop t: sample (t + 1/2) hop.
FloWaveNet's preprocessing says the same in two steps, for a recording of a whole number of hops: it centres
frame t on sample t * hop of the recording, then puts half a hop of zeros before the audio that the network
sees (the mel beyond the ends being that of zeros, as librosa has it since version 0.10).
NVIDIA's Tacotron 2 and WaveGlow have the numbers of `hifigan`, but centre frame t on sample t * hop and have
one frame more: a `hifigan` model takes their mels and speaks half a hop (5.8 ms) late.
"""

from __future__ import annotations

from typing import Any

from flowavenet.audio.mel import MelSettings

CONVENTIONS: dict[str, MelSettings] = {
    "flowavenet": MelSettings(
        f_min=125.0,
        f_max=7600.0,
        power=2.0,  # decibels of an already squared magnitude: the range is twice the usual one
        log="db",
        floor=1e-4,
        offset=80.0,  # -20 + 100
        scale=0.01,
        clip=(0.0, 1.0),
        pad_mode="constant",
        peak=0.999,
    ),
    "hifigan": MelSettings(),
}


def convention(name: str) -> MelSettings:
    """Look up the mel settings of a published project by its name.

    >>> convention("hifigan").f_max
    8000.0

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"no mel convention is called {name!r}; known are {', '.join(sorted(CONVENTIONS))}")
    return CONVENTIONS[name]


def mel_settings(mel: str | dict[str, Any] | MelSettings) -> MelSettings:
    """Mel settings from whatever a recipe says: a convention's name, or the fields that differ from the defaults.

    >>> mel_settings({"hop_length": 300}).hop_length
    300
    """
    if isinstance(mel, MelSettings):
        return mel
    return convention(mel) if isinstance(mel, str) else MelSettings(**mel)
