"""The mel conventions of published vocoders and front-ends, by name.

A vocoder only understands the mel it was trained on. The numbers are those of the projects' own preprocessing, where m is
the mel of magnitudes and p that of powers (magnitudes squared):

=====================  ====================================================  ======================  ===================
name                   mel = ...                                             rate, window / hop      bands, Hz
=====================  ====================================================  ======================  ===================
`flowavenet`           (20 log10(max(p, 1e-4)) + 80) / 100, in [0, 1]        22,050, 1024 / 256      80, 125-7600
`wavenet_vocoder`      (20 log10(max(m, 1e-5)) + 80) / 100, in [0, 1]        22,050, 1024 / 256      80, 125-7600
`tacotron2`            ln(max(m, 1e-5))                                      22,050, 1024 / 256      80, 0-8000
`hifigan`              ln(max(m, 1e-5))                                      22,050, 1024 / 256      80, 0-8000
`matcha`               (ln(max(m, 1e-5)) + 5.536622) / 2.116101              22,050, 1024 / 256      80, 0-8000
`bigvgan_22k`          ln(max(m, 1e-5))                                      22,050, 1024 / 256      80, 0-8000
`bigvgan_22k_full`     ln(max(m, 1e-5))                                      22,050, 1024 / 256      80, 0-11025
`bigvgan_24k`          ln(max(m, 1e-5))                                      24,000, 1024 / 256      100, 0-12000
`bigvgan_44k`          ln(max(m, 1e-5))                                      44,100, 2048 / 512      128, 0-22050
`vocos`                ln(max(m, 1e-7)); HTK's scale, peaks of 1             24,000, 1024 / 256      100, 0-12000
`parallel_wavegan`     log10(max(m, 1e-10))                                  22,050, 1024 / 256      80, 80-7600
`parallel_wavegan_24k` log10(max(m, 1e-10))                                  24,000, 1200 / 300      80, 80-7600
`rayhane`              0.08 (20 log10(max(m, 1e-5)) + 30), in [-4, 4]        22,050, 1024 / 256      80, 25-7600
`rayhane_275`          0.08 (20 log10(max(p, 1e-5)) + 30), in [-4, 4]        22,050, 1100 / 275      80, 55-7600
`coqui`                0.08 (20 log10(max(m, 1e-8)) + 30), in [-4, 4]        22,050, 1024 / 256      80, 0-11025
`coqui_db`             20 log10(max(m, 1e-8))                                22,050, 1024 / 256      80, 0-11025
`mozilla`              (20 log10(max(m, 1e-5)) + 80) / 100, in [0, 1]        22,050, 1100 / 275      80, 0-8000
=====================  ====================================================  ======================  ===================

`ABOUT` says whose they are. All but `vocos` use librosa's default mel scale and area normalisation (Slaney's), and all a
Hann window. `MelSpectrogram.range` gives the range of a convention's values.

*Where a frame sits.* In the conventions of HiFi-GAN's family (`hifigan`, `matcha`, `bigvgan_*`) frame t is centred on the
middle of hop t: sample (t + 1/2) hop. FloWaveNet's preprocessing says the same in two steps, for a recording of a whole
number of hops: it centres frame t on sample t * hop of the recording, then puts half a hop of zeros before the audio that
the network sees (the mel beyond the ends being that of zeros, as librosa has it since version 0.10).
All others centre frame t on sample t * hop (`frame_centre: start`), and for whole hops their authors' code has one frame
more, which sees the end and what is beyond it. Here every mel has ceil(samples / hop) frames: drop that last one
(`mel[..., : settings.frames(samples)]`). A mel given to a vocoder of the other kind makes speech that is half a hop late
or early (`MelSettings.delay`), and needs no conversion.

*Statistics.* Mean 0 and variance 1 per band is the usual last step of ParallelWaveGAN and ESPnet, and an option of Coqui's
(then of `coqui_db`, and often with `log: log10`, where its `spec_gain` is 1). The numbers are each corpus's own, in a file:
see `conventionfiles`. `matcha` has one mean and deviation for all bands, those of LJSpeech; of another corpus they are
`offset` (-mean) and `scale` (1 / deviation).

*What is known to differ.* HiFi-GAN's code adds 1e-9 under the root of the magnitude, as the `bigvgan_*` and `matcha` do
here; `hifigan` does not, which shows next to the floor only, by 0.02 at most on the recordings in tests/data. ESPnet 2
lifts each bin's power to 1e-10 before it makes bands of them, which shows below -6. `wavenet_vocoder`, and `rayhane` by
default, took the Fourier transform of the LWS package, whose window is sqrt(Hann / 2) at this hop: 0.9 dB below ours for a
tone, 1.8 dB for noise, and one frame more at the beginning; here they are what librosa's makes of the same numbers.
`rayhane_275` brings the wave to its peak of 0.999 after pre-emphasis, so that the level of its mels is each recording's
own. Where there is pre-emphasis, it covers what is put beyond the ends as well, unlike the originals', and frames that see
it differ a little.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from flowavenet.audio.conventionfiles import SUFFIXES, read_mapping, settings_from, user_conventions, user_file
from flowavenet.audio.settings import MelSettings

# Added under the root where the floor is lower than HiFi-GAN's: nothing that could be seen.
LESS = 1e-24

_HIFIGAN = MelSettings(eps=1e-9)
_DECIBELS = MelSettings(log="db", frame_centre="start")
_UNIT = dict(offset=80.0, scale=0.01, clip=(0.0, 1.0))  # from -80 to 20 dB: -20 and then + 100
_FOUR = dict(offset=30.0, scale=0.08, clip=(-4.0, 4.0))  # the same range
_HOP_275 = dict(n_fft=2048, win_length=1100, hop_length=275)
_LOG10 = MelSettings(log="log10", f_min=80.0, f_max=7600.0, floor=1e-10, frame_centre="start", eps=LESS)

CONVENTIONS: dict[str, MelSettings] = {
    "flowavenet": MelSettings(
        f_min=125.0,
        f_max=7600.0,
        power=2.0,  # decibels of an already squared magnitude: the range is twice the usual one
        log="db",
        floor=1e-4,
        pad_mode="constant",
        peak=0.999,
        **_UNIT,
    ),
    "wavenet_vocoder": replace(_DECIBELS, f_min=125.0, f_max=7600.0, pad_mode="constant", peak=0.999, **_UNIT),
    "tacotron2": MelSettings(frame_centre="start"),
    "hifigan": MelSettings(),
    "matcha": replace(_HIFIGAN, offset=5.536622, scale=1 / 2.116101),
    "bigvgan_22k": _HIFIGAN,
    "bigvgan_22k_full": replace(_HIFIGAN, f_max=11025.0),
    "bigvgan_24k": replace(_HIFIGAN, sample_rate=24000, n_mels=100, f_max=12000.0),
    "bigvgan_44k": replace(
        _HIFIGAN, sample_rate=44100, n_fft=2048, win_length=2048, hop_length=512, n_mels=128, f_max=22050.0
    ),
    "vocos": MelSettings(
        sample_rate=24000, n_mels=100, f_max=12000.0, floor=1e-7, mel_scale="htk", norm=None, frame_centre="start", eps=LESS
    ),
    "parallel_wavegan": _LOG10,
    "parallel_wavegan_24k": replace(_LOG10, sample_rate=24000, n_fft=2048, win_length=1200, hop_length=300),
    "rayhane": replace(_DECIBELS, f_min=25.0, f_max=7600.0, peak=0.999, **_FOUR),
    "rayhane_275": replace(
        _DECIBELS, f_min=55.0, f_max=7600.0, power=2.0, preemphasis=0.97, pad_mode="constant", **_HOP_275, **_FOUR
    ),
    "coqui": replace(_DECIBELS, f_max=11025.0, floor=1e-8, eps=LESS, **_FOUR),
    "coqui_db": replace(_DECIBELS, f_max=11025.0, floor=1e-8, eps=LESS),
    "mozilla": replace(_DECIBELS, preemphasis=0.98, **_HOP_275, **_UNIT),
}
"""Mel settings by the name of their convention."""

ABOUT: dict[str, str] = {
    "flowavenet": "FloWaveNet (Kim et al., 2018, arXiv:1811.02155; ksw0306/FloWaveNet); recordings at peak 0.999",
    "wavenet_vocoder": "r9y9/wavenet_vocoder's preset ljspeech_mixture; later it took parallel_wavegan's, from 125 Hz on",
    "tacotron2": "NVIDIA/tacotron2 and WaveGlow (Prenger et al., 2018, arXiv:1811.00002); also WaveFlow and SqueezeWave",
    "hifigan": "HiFi-GAN (Kong et al., 2020, arXiv:2010.05646; jik876/hifi-gan), which many front-ends target",
    "matcha": "Matcha-TTS (Mehta et al., 2023, arXiv:2309.03199), with the statistics of LJSpeech",
    "bigvgan_22k": "BigVGAN (Lee et al., 2022, arXiv:2206.04658), 22khz_80band and v2_22khz_80band_fmax8k",
    "bigvgan_22k_full": "BigVGAN v2_22khz_80band: all frequencies",
    "bigvgan_24k": "BigVGAN 24khz_100band and v2_24khz_100band",
    "bigvgan_44k": "BigVGAN v2_44khz_128band_512x",
    "vocos": "Vocos (Siuzdak, 2023, arXiv:2306.00814; gemelo-ai/vocos), 24 kHz: torchaudio's MelSpectrogram",
    "parallel_wavegan": "kan-bayashi/ParallelWaveGAN (arXiv:1910.11480) and ESPnet, for LJSpeech; before their statistics",
    "parallel_wavegan_24k": "kan-bayashi/ParallelWaveGAN and ESPnet at 24 kHz, for CSMSC; before their statistics",
    "rayhane": "Rayhane-mamah/Tacotron-2, its earlier defaults; recordings at peak 0.999",
    "rayhane_275": "Rayhane-mamah/Tacotron-2, its latest defaults: hop 275, decibels of powers, pre-emphasis 0.97",
    "coqui": "coqui-ai/TTS, the defaults of BaseAudioConfig; with f_max 8000 also mozilla/TTS, TTS/tts/configs/config.json",
    "coqui_db": "coqui-ai/TTS without range normalisation: decibels, to which statistics may be applied",
    "mozilla": "mozilla/TTS, config_tacotron2.json, an early one: hop 275, pre-emphasis 0.98, max_norm 1, not symmetric",
}
"""Whose conventions they are, and where they are found, by name."""


def convention(name: str) -> MelSettings:
    """Look up mel settings: of a published project by its name, or the user's own by their name or a YAML file's path.

    >>> convention("hifigan").f_max
    8000.0

    Raises:
        ValueError: for an unknown name, in which case the message lists the known ones; for what is wrong with a file.
        FileNotFoundError: there is no such file.
    """
    return _found(name, ())


def mel_settings(mel: str | dict[str, Any] | MelSettings) -> MelSettings:
    """Mel settings from whatever a recipe says: a convention's name or file, or the fields that differ from the defaults.

    The fields may say `like: NAME`, for those that differ from another convention, and `statistics: FILE`.

    >>> mel_settings({"hop_length": 300}).hop_length
    300
    >>> mel_settings({"like": "vocos", "f_min": 30}).n_mels
    100
    """
    if isinstance(mel, MelSettings):
        return mel
    return convention(mel) if isinstance(mel, str) else settings_from(mel, "mel", Path(), convention)


def _found(name: str, seen: tuple[str, ...]) -> MelSettings:
    """A convention by its name, where `seen` are like it, and so it cannot be like one of them."""
    if name in CONVENTIONS:
        return CONVENTIONS[name]
    if name in seen:
        raise ValueError(f"is like itself: {' is like '.join([*seen, name])}; name a published convention at last")
    if name.endswith(SUFFIXES):
        fields, where, folder = read_mapping(Path(name)), name, Path(name).parent
    else:
        own = user_conventions()
        if name not in own:
            known = ", ".join(sorted(CONVENTIONS) + sorted(map(str, own)))
            raise ValueError(f"no mel convention is called {name!r}; known are {known}, or give the path of a .yaml file")
        fields, where, folder = own[name], f"{user_file()}: {name}", user_file().parent
    return settings_from(fields, where, folder, lambda like: _found(like, (*seen, name)))
