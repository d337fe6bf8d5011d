"""Name the mel conventions of published vocoders and front-ends.

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
`fatchord`             (20 log10(max(m, 1e-5)) + 100) / 100, in [0, 1]       22,050, 1100 / 275      80, 40-11025
`autovc`               (20 log10(max(0.96 m, 1e-5)) + 84) / 100, in [0, 1]   16,000, 1024 / 256      80, 90-7600
`sv2tts`               0.08 (20 log10(max(m, 1e-5)) + 30), in [-4, 4]        16,000, 800 / 200       80, 55-7600
`speecht5`             log10(max(m, 1e-10))                                  16,000, 1024 / 256      80, 80-7600
`hifigan_16k`          ln(max(m, 1e-5))                                      16,000, 1024 / 256      80, 0-8000
`hifigan_48k`          ln(max(m, 1e-5))                                      48,000, 2048 / 480      256, 20-24000
`cosyvoice2`           ln(max(m, 1e-5))                                      24,000, 1920 / 480      80, 0-8000
`nsf_hifigan`          ln(max(m, 1e-5))                                      44,100, 2048 / 512      128, 40-16000
`styletts2`            (ln(p + 1e-5) + 4) / 4; HTK's scale, peaks of 1       24,000, 1200 / 300      80, 0-12000
`tortoise`             2 (ln(max(m, 1e-5)) + 11.5129) / 13.8273 - 1          24,000, 1024 / 256      100, 0-12000
`tortoise_univnet`     ln(max(m, 1e-5))                                      24,000, 1024 / 256      100, 0-12000
`f5tts`                ln(max(m, 1e-5)); HTK's scale, peaks of 1             24,000, 1024 / 256      100, 0-12000
`whisper`              (log10(max(p, 1e-10)) + 4) / 4                        16,000, 400 / 160       80, 0-8000
`whisper_v3`           (log10(max(p, 1e-10)) + 4) / 4                        16,000, 400 / 160       128, 0-8000
`nemo_44k`             ln(m + 1e-5)                                          44,100, 2048 / 512      80, 0-22050
`fish`                 ln(max(m, 1e-5))                                      44,100, 2048 / 512      160, 0-22050
`librosa_db`           10 log10(max(p, 1e-10))                               22,050, 1024 / 256      80, 0-11025
`librosa_db_max`       10 log10(p / max of p), in [-80, 0]                   22,050, 1024 / 256      80, 0-11025
`librosa_power`        p                                                     22,050, 1024 / 256      80, 0-11025
`librosa_db_128`       10 log10(max(p, 1e-10))                               22,050, 2048 / 512      128, 0-11025
`librosa_db_max_128`   10 log10(p / max of p), in [-80, 0]                   22,050, 2048 / 512      128, 0-11025
`librosa_power_128`    p                                                     22,050, 2048 / 512      128, 0-11025
=====================  ====================================================  ======================  ===================

`ABOUT` says whose they are. All but `vocos`, `f5tts` and `styletts2` use librosa's default mel scale and area normalisation
(Slaney's), and all a Hann window. `MelSpectrogram.range` gives the range of a convention's values.

*Where a frame sits.* In the conventions of HiFi-GAN's family (`hifigan*`, `matcha`, `bigvgan_*`, `cosyvoice2`,
`nsf_hifigan`, `fish`) frame t is centred on the middle of hop t: sample (t + 1/2) hop. FloWaveNet's preprocessing says the
same in two steps, for a recording of a whole number of hops: it centres frame t on sample t * hop of the recording, then
puts half a hop of zeros before the audio that the network sees (the mel beyond the ends being that of zeros, as librosa has
it since version 0.10). All others centre frame t on sample t * hop (`frame_centre: start`), and for whole hops their
authors' code has one frame more, which sees the end and what is beyond it. Here every mel has ceil(samples / hop) frames:
drop that last one (`mel[..., : settings.frames(samples)]`). A mel given to a vocoder of the other kind makes speech that is
half a hop late or early (`MelSettings.delay`), and needs no conversion.

*Statistics.* Mean 0 and variance 1 per band is the usual last step of ParallelWaveGAN and ESPnet, and an option of Coqui's
(then of `coqui_db`, and often with `log: log10`, where its `spec_gain` is 1). The numbers are each corpus's own, in a file:
see `conventionfiles`. `matcha` has one mean and deviation for all bands, those of LJSpeech; of another corpus they are
`offset` (-mean) and `scale` (1 / deviation).

*Level.* `librosa_db_max` sets the loudest value of each utterance to 0, so a mel does not tell how loud its recording was.
What is here takes it for one of ordinary loudness; `--level` corrects that. `librosa_db` and `whisper` leave out what is 80
dB below the loudest value, which is not done here.

*What is known to differ.* `autovc` adds noise of 1e-6 and cuts below 30 Hz. NeMo's window is symmetric, 1 part in 2048
wider. HiFi-GAN's code adds 1e-9 under the root of the magnitude, as the `bigvgan_*` and `matcha` do here; `hifigan` does
not, which shows next to the floor only, by 0.02 at most on the recordings in tests/data. ESPnet 2 lifts each bin's power to
1e-10 before it makes bands of them, which shows below -6. `wavenet_vocoder`, and `rayhane` by default, took the Fourier
transform of the LWS package, whose window is sqrt(Hann / 2) at this hop: 0.9 dB below ours for a tone, 1.8 dB for noise,
and one frame more at the beginning; here they are what librosa's makes of the same numbers.
`rayhane_275` brings the wave to its peak of 0.999 after pre-emphasis, so that the level of its mels is each recording's
own. Where there is pre-emphasis, it covers what is put beyond the ends as well, unlike the originals', and frames that see
it differ a little.
"""

from __future__ import annotations

from dataclasses import replace
from math import log10
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

_24K = MelSettings(sample_rate=24000, n_mels=100, f_max=12000.0)
_44K = MelSettings(sample_rate=44100, n_fft=2048, win_length=2048, hop_length=512, f_max=22050.0)
_TORTOISE = -11.512925148010254, 2.3143386840820312  # become -1 and 1
_WHISPER = MelSettings(
    sample_rate=16000, n_fft=400, win_length=400, hop_length=160, power=2.0, log="log10", floor=1e-10, offset=4.0,
    scale=0.25, frame_centre="start"
)
_LIBROSA = MelSettings(f_max=11025.0, power=2.0, floor=1e-10, frame_centre="start", pad_mode="constant")
_128 = dict(n_fft=2048, win_length=2048, hop_length=512, n_mels=128)
LOUDEST_DB = -50.0
"""Twice the loudest value of an ordinary recording in `librosa_db`, with its sign turned; by those in `meldetect.speech`."""

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
    "fatchord": replace(_DECIBELS, f_min=40.0, f_max=11025.0, offset=100.0, scale=0.01, clip=(0.0, 1.0), **_HOP_275),
    "autovc": replace(
        _DECIBELS, sample_rate=16000, f_min=90.0, f_max=7600.0, offset=84.0 + 20 * log10(0.96), scale=0.01, clip=(0.0, 1.0)
    ),
    "sv2tts": replace(
        _DECIBELS, sample_rate=16000, n_fft=800, win_length=800, hop_length=200, f_min=55.0, f_max=7600.0, preemphasis=0.97,
        peak=0.9, **_FOUR
    ),
    "speecht5": replace(_LOG10, sample_rate=16000),
    "hifigan_16k": MelSettings(sample_rate=16000),
    "hifigan_48k": replace(
        _HIFIGAN, sample_rate=48000, n_fft=2048, win_length=2048, hop_length=480, n_mels=256, f_min=20.0, f_max=24000.0
    ),
    "cosyvoice2": replace(_HIFIGAN, sample_rate=24000, n_fft=1920, win_length=1920, hop_length=480),
    "nsf_hifigan": replace(_44K, n_mels=128, f_min=40.0, f_max=16000.0),
    "styletts2": MelSettings(
        sample_rate=24000, n_fft=2048, win_length=1200, hop_length=300, band_rate=16000, power=2.0, offset=4.0, scale=0.25,
        mel_scale="htk", norm=None, frame_centre="start", floor_mode="add"
    ),
    "tortoise": replace(
        _24K, offset=-(_TORTOISE[1] + _TORTOISE[0]) / 2, scale=2 / (_TORTOISE[1] - _TORTOISE[0]), frame_centre="start"
    ),
    "tortoise_univnet": replace(_24K, frame_centre="start"),
    "f5tts": replace(_24K, mel_scale="htk", norm=None, frame_centre="start", eps=LESS),
    "whisper": _WHISPER,
    "whisper_v3": replace(_WHISPER, n_mels=128),
    "nemo_44k": replace(_44K, floor_mode="add", frame_centre="start", pad_mode="constant", eps=LESS),
    "fish": replace(_44K, n_mels=160, eps=1e-6),
    "librosa_db": replace(_LIBROSA, log="db", scale=0.5),
    "librosa_db_max": replace(_LIBROSA, log="db", scale=0.5, offset=LOUDEST_DB, clip=(-80.0, 0.0)),
    "librosa_power": replace(_LIBROSA, log="linear"),
    "librosa_db_128": replace(_LIBROSA, log="db", scale=0.5, **_128),
    "librosa_db_max_128": replace(_LIBROSA, log="db", scale=0.5, offset=LOUDEST_DB, clip=(-80.0, 0.0), **_128),
    "librosa_power_128": replace(_LIBROSA, log="linear", **_128),
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
    "fatchord": "fatchord/WaveRNN, utils/dsp.py and hparams.py: WaveRNN and its Tacotron",
    "autovc": "AutoVC (Qian et al., 2019, arXiv:1905.05879; auspicious3000/autovc, make_spect.py) and SpeechSplit",
    "sv2tts": "SV2TTS (Jia et al., 2018, arXiv:1806.04558) as CorentinJ/Real-Time-Voice-Cloning; recordings at peak 0.9",
    "speecht5": "SpeechT5 (Ao et al., 2022, arXiv:2110.07205) and its HiFi-GAN, in Hugging Face transformers",
    "hifigan_16k": "HiFi-GAN's code at 16 kHz with its other numbers kept, as many voice converters have it",
    "hifigan_48k": "HiFi-GAN's code at 48 kHz, as AudioLDM 2 and AudioSR (haoheliu) have it",
    "cosyvoice2": "CosyVoice 2 (Du et al., 2024, arXiv:2412.10117; FunAudioLLM/CosyVoice): 50 frames a second",
    "nsf_hifigan": "NSF-HiFiGAN (openvpi/SingingVocoders, openvpi/DiffSinger with mel_base e)",
    "styletts2": "StyleTTS 2 (Li et al., 2023, arXiv:2306.07691; yl4579/StyleTTS2): bands computed for 16 kHz",
    "tortoise": "Tortoise (Betker, 2023, arXiv:2305.07243; neonbjb/tortoise-tts): what its diffusion model makes",
    "tortoise_univnet": "Tortoise: what its vocoder, UnivNet, is given",
    "f5tts": "F5-TTS (Chen et al., 2024, arXiv:2410.06885; SWivid/F5-TTS), mel_spec_type vocos",
    "whisper": "Whisper (Radford et al., 2022, arXiv:2212.04356; openai/whisper), 80 bands",
    "whisper_v3": "Whisper large-v3: 128 bands",
    "nemo_44k": "NVIDIA/NeMo, FastPitch and HiFi-GAN at 44.1 kHz",
    "fish": "Fish Speech (fishaudio/fish-speech), its Firefly vocoder",
    "librosa_db": "librosa.power_to_db(librosa.feature.melspectrogram(n_fft=1024, hop_length=256, n_mels=80))",
    "librosa_db_max": "the same with ref=np.max",
    "librosa_power": "librosa.feature.melspectrogram(n_fft=1024, hop_length=256, n_mels=80): no logarithm",
    "librosa_db_128": "librosa.power_to_db(librosa.feature.melspectrogram()), librosa's defaults",
    "librosa_db_max_128": "the same with ref=np.max",
    "librosa_power_128": "librosa.feature.melspectrogram(), librosa's defaults: no logarithm",
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
