"""Every named convention is its authors' formula; a file can add one, and what is wrong with it is said in one line."""

import dataclasses
import functools
import os
import re
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import yaml

from flowavenet.audio import (
    ABOUT,
    CONVENTIONS,
    MelMatching,
    MelSettings,
    MelSpectrogram,
    convention,
    load_audio,
    load_mel,
    mel_settings,
)
from flowavenet.audio import conventions as table
from flowavenet.audio.projectsettings import read_project_settings

DATA = Path(__file__).parent / "data"
CLIPS = sorted(path.stem for path in DATA.glob("*.flac"))
REAL = Path(os.environ.get("FLOWAVENET_SHARED", Path(__file__).parents[2] / "shared")) / "mels"


@functools.cache
def clip(name: str, sample_rate: int, hop_length: int) -> np.ndarray:
    """A real recording of whole hops, in double precision."""
    wave = load_audio(DATA / f"{name}.flac", sample_rate)[0].double().numpy()
    return wave[: len(wave) // hop_length * hop_length]


# The authors' formulas, written out with librosa. Names of quantities are theirs, not ours.


def spectrum(y, n_fft=1024, hop=256, win=None, pad_mode="reflect"):
    return np.abs(librosa.stft(y, n_fft=n_fft, hop_length=hop, win_length=win, center=True, pad_mode=pad_mode))


def mels(S, sr=22050, n_mels=80, fmin=0.0, fmax=8000.0, **options):
    return librosa.filters.mel(sr=sr, n_fft=2 * (len(S) - 1), n_mels=n_mels, fmin=fmin, fmax=fmax, **options) @ S


def decibels(x, floor):
    return 20 * np.log10(np.maximum(floor, x))


def emphasised(y, coefficient):
    return np.append(y[0], y[1:] - coefficient * y[:-1])


def flowavenet(y):
    """Of the recording; what the network sees begins with half a hop of zeros more, which here are the wave's own."""
    power = spectrum(y[128:], pad_mode="constant") ** 2
    return np.clip((decibels(mels(power, fmin=125, fmax=7600), 1e-4) - 20 + 100) / 100, 0, 1)


def wavenet_vocoder(y):
    S = decibels(mels(spectrum(y, pad_mode="constant"), fmin=125, fmax=7600), 1e-5) - 20
    return np.clip((S - -100) / 100, 0, 1)


def tacotron2(y):
    return np.log(np.clip(mels(spectrum(y)), 1e-5, None))


def hifigan(y, n_fft=1024, hop=256, eps=1e-9, **bands):
    y = np.pad(y, (n_fft - hop) // 2, mode="reflect")
    S = np.abs(librosa.stft(y, n_fft=n_fft, hop_length=hop, center=False))
    return np.log(np.clip(mels(np.sqrt(S**2 + eps), **bands), 1e-5, None))


def matcha(y):
    return (hifigan(y) - -5.536622) / 2.116101


def parallel_wavegan(y, sr=22050, **grid):
    return np.log10(np.maximum(1e-10, mels(spectrum(y, **grid), sr=sr, fmin=80, fmax=7600)))


def symmetric(S, max_abs_value=4, min_level_db=-100):
    S = 2 * max_abs_value * (S - min_level_db) / -min_level_db - max_abs_value
    return np.clip(S, -max_abs_value, max_abs_value)


def rayhane_275(y):
    S = spectrum(emphasised(y, 0.97), n_fft=2048, hop=275, win=1100, pad_mode="constant") ** 2
    return symmetric(decibels(mels(S, fmin=55, fmax=7600), 1e-5) - 20)


def coqui_db(y):
    return decibels(mels(spectrum(y), fmax=11025), 1e-8)


def mozilla(y):
    S = decibels(mels(spectrum(emphasised(y, 0.98), n_fft=2048, hop=275, win=1100)), 1e-5) - 20
    return np.clip((S - -100) / 100, 0, 1)


def vocos(y):
    return np.log(np.maximum(mels(spectrum(y), sr=24000, n_mels=100, fmax=12000, htk=True, norm=None), 1e-7))


def ln(x, floor=1e-5):
    return np.log(np.maximum(x, floor))


def autovc(y):
    """Without its noise, and without the filter that leaves out what is below 30 Hz."""
    D = decibels(mels(spectrum(0.96 * y), sr=16000, fmin=90, fmax=7600), np.exp(-100 / 20 * np.log(10))) - 16
    return np.clip((D + 100) / 100, 0, 1)


def sv2tts(y):
    S = spectrum(emphasised(y, 0.97), n_fft=800, hop=200, win=800)
    return symmetric(decibels(mels(S, sr=16000, fmin=55, fmax=7600), 1e-5) - 20)


def fatchord(y):
    S = decibels(mels(spectrum(y, n_fft=2048, hop=275, win=1100), fmin=40, fmax=11025), 1e-5)
    return np.clip((S + 100) / 100, 0, 1)


def styletts2(y):
    """The bands are those of 16 kHz, the wave of 24 kHz."""
    power = spectrum(y, n_fft=2048, hop=300, win=1200) ** 2
    return (np.log(1e-5 + mels(power, sr=16000, htk=True, norm=None)) + 4) / 4


def tortoise(y, low=-11.512925148010254, high=2.3143386840820312):
    return 2 * ((ln(mels(spectrum(y), sr=24000, n_mels=100, fmax=12000)) - low) / (high - low)) - 1


def whisper(y, n_mels=80):
    """Without what it leaves out: the last frame, and what is 8 below the loudest value."""
    power = spectrum(y, n_fft=400, hop=160) ** 2
    return (np.log10(np.maximum(mels(power, sr=16000, n_mels=n_mels), 1e-10)) + 4) / 4


def librosas(y, n_mels=80, n_fft=1024, hop=256):
    return mels(spectrum(y, n_fft=n_fft, hop=hop, pad_mode="constant") ** 2, n_mels=n_mels, fmax=11025)


def librosas_db(y, **grid):
    return librosa.power_to_db(librosas(y, **grid), top_db=None)


def librosas_db_max(y, **grid):
    """As if the loudest value were the usual one."""
    return np.clip(librosas_db(y, **grid) + table.LOUDEST_DB / 2, -80, 0)


LONG = dict(n_fft=2048, hop=512, sr=44100)
DEFAULTS = dict(n_mels=128, n_fft=2048, hop=512)
PUBLISHED = {
    "flowavenet": flowavenet,
    "wavenet_vocoder": wavenet_vocoder,
    "tacotron2": tacotron2,
    "hifigan": functools.partial(hifigan, eps=0),
    "matcha": matcha,
    "bigvgan_22k": hifigan,
    "bigvgan_22k_full": functools.partial(hifigan, fmax=11025),
    "bigvgan_24k": functools.partial(hifigan, sr=24000, n_mels=100, fmax=12000),
    "bigvgan_44k": functools.partial(hifigan, n_fft=2048, hop=512, sr=44100, n_mels=128, fmax=22050),
    "vocos": vocos,
    "parallel_wavegan": parallel_wavegan,
    "parallel_wavegan_24k": functools.partial(parallel_wavegan, sr=24000, n_fft=2048, hop=300, win=1200),
    "rayhane": lambda y: symmetric(decibels(mels(spectrum(y), fmin=25, fmax=7600), 1e-5) - 20),
    "rayhane_275": rayhane_275,
    "coqui": lambda y: symmetric(coqui_db(y) - 20),
    "coqui_db": coqui_db,
    "mozilla": mozilla,
    "fatchord": fatchord,
    "autovc": autovc,
    "sv2tts": sv2tts,
    "speecht5": functools.partial(parallel_wavegan, sr=16000),
    "hifigan_16k": functools.partial(hifigan, eps=0, sr=16000),
    "hifigan_48k": functools.partial(hifigan, n_fft=2048, hop=480, sr=48000, n_mels=256, fmin=20, fmax=24000),
    "cosyvoice2": functools.partial(hifigan, n_fft=1920, hop=480, sr=24000),
    "nsf_hifigan": functools.partial(hifigan, eps=0, n_mels=128, fmin=40, fmax=16000, **LONG),
    "styletts2": styletts2,
    "tortoise": tortoise,
    "tortoise_univnet": lambda y: ln(mels(spectrum(y), sr=24000, n_mels=100, fmax=12000)),
    "f5tts": lambda y: ln(mels(spectrum(y), sr=24000, n_mels=100, fmax=12000, htk=True, norm=None)),
    "whisper": whisper,
    "whisper_v3": functools.partial(whisper, n_mels=128),
    "nemo_44k": lambda y: np.log(mels(spectrum(y, 2048, 512, pad_mode="constant"), sr=44100, fmax=22050) + 1e-5),
    "fish": functools.partial(hifigan, eps=1e-6, n_mels=160, fmax=22050, **LONG),
    "librosa_db": librosas_db,
    "librosa_db_max": librosas_db_max,
    "librosa_power": librosas,
    "librosa_db_128": functools.partial(librosas_db, **DEFAULTS),
    "librosa_db_max_128": functools.partial(librosas_db_max, **DEFAULTS),
    "librosa_power_128": functools.partial(librosas, **DEFAULTS),
}


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("recording", CLIPS)
def test_a_convention_is_its_authors_formula(name, recording):
    settings = CONVENTIONS[name]
    y = clip(recording, settings.sample_rate, settings.hop_length)
    if settings.peak:
        y = y / np.abs(y).max() * settings.peak
    if name == "flowavenet":
        y = np.append(np.zeros(128), y[:-128])
    published = PUBLISHED[name](y)
    ours = MelSpectrogram(settings).double()(torch.from_numpy(y)[None])[0].numpy()
    frames = settings.frames(len(y))
    assert ours.shape == (settings.n_mels, frames)
    assert published.shape[1] == frames + (settings.frame_centre == "start"), "they have one frame more"
    ends = -(-settings.n_fft // settings.hop_length) if settings.preemphasis else 0  # which covers what is beyond the ends
    inside = slice(ends, frames - ends)
    np.testing.assert_allclose(ours[:, inside], published[:, :frames][:, inside], rtol=1e-6, atol=1e-4)


def test_every_convention_is_described():
    assert set(ABOUT) == set(CONVENTIONS) == set(PUBLISHED)
    described = re.findall(r"^`(\w+)`", table.__doc__, flags=re.MULTILINE)
    assert described[: len(CONVENTIONS)] == list(CONVENTIONS)


# There and back


PER_BAND = MelSettings(n_mels=3, offset=(1, 2, 3), scale=(0.5, -1, 2))


@pytest.mark.parametrize("settings", [*CONVENTIONS.values(), PER_BAND], ids=[*CONVENTIONS, "per band"])
def test_energies_are_the_way_back(settings):
    module = MelSpectrogram(settings).double()
    low, high = (torch.as_tensor(end).expand(settings.n_mels)[:, None].log10() for end in module.bounds())
    part = torch.rand(2, settings.n_mels, 50, dtype=torch.float64)
    energies = 10 ** (low + part * (high.clamp(max=2) - low))  # all that a mel tells apart
    mel = module.from_energies(energies)
    torch.testing.assert_close(module.energies(mel), energies, rtol=1e-8, atol=0)
    torch.testing.assert_close(module.from_energies(module.energies(mel)), mel, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_no_wave_is_out_of_range(name):
    module = MelSpectrogram(CONVENTIONS[name])
    low, high = module.range()
    torch.testing.assert_close(module(torch.zeros(1, 3000)).min(), torch.tensor(low))
    t = torch.arange(9000) / CONVENTIONS[name].sample_rate
    click = torch.zeros(9000)
    click[5000] = 1
    tones = [torch.sin(2 * torch.pi * hz * t) for hz in (100, 440, 3000)]
    loud = torch.stack([*tones, tones[0].sign(), tones[1].sign(), torch.randn(9000).sign(), click, torch.ones(9000)])
    mel = module(loud)
    assert mel.min() >= low and mel.max() <= high


SELDOM_CLIPPED = ["fatchord", "autovc", "librosa_db_max", "librosa_db_max_128"]  # of this recording nothing, perhaps


@pytest.mark.parametrize("name", [name for name, settings in CONVENTIONS.items() if settings.clip])
def test_matching_leaves_what_was_clipped(name):
    settings = CONVENTIONS[name]
    module = MelSpectrogram(settings).double()
    wave = module.normalise(torch.from_numpy(clip("kerstin", settings.sample_rate, settings.hop_length))[None])
    mel = module(wave)
    assert (mel == settings.clip[0]).any() or name in SELDOM_CLIPPED, "this one has clipped values"
    torch.testing.assert_close(MelMatching(module)(wave, mel, 4), wave, rtol=0, atol=1e-9)


@pytest.mark.parametrize("hop, n_fft", [(256, 1024), (275, 2048), (3, 9)])
def test_the_delay_between_two_conventions_is_that_of_their_frames(hop, n_fft):
    start = MelSettings(hop_length=hop, n_fft=n_fft, win_length=n_fft, n_mels=2, frame_centre="start")
    middle = dataclasses.replace(start, frame_centre="hop")
    late = start.delay(middle)
    assert late == -middle.delay(start) == n_fft // 2 - (n_fft - hop) // 2 and middle.delay(middle) == 0
    wave = torch.randn(1, 40 * hop)
    delayed = torch.cat([torch.zeros(1, late), wave], dim=1)[:, : 40 * hop]
    ends = -(-n_fft // hop)
    inside = slice(ends, 40 - ends)
    ours, theirs = MelSpectrogram(start)(wave), MelSpectrogram(middle)(delayed)
    torch.testing.assert_close(ours[..., inside], theirs[..., inside])
    with pytest.raises(ValueError, match="hop_length 128 of the mel is not the vocoder's, 256"):
        MelSettings(hop_length=128).delay(MelSettings())


# What front-ends wrote


@pytest.mark.skipif(not REAL.is_dir(), reason="needs mels of real front-ends")
@pytest.mark.parametrize(
    "folder, name, likeness",
    # The voice and the room of the second are brighter than ours, and their recordings' level is not known.
    [("tacotron2_db4", "rayhane", 0.8), ("tacotron2_hop275", "rayhane_275", 0.0), ("hifigan_ln", "hifigan", 0.8)],
)
def test_mels_of_front_ends_look_like_their_convention(folder, name, likeness):
    settings = CONVENTIONS[name]
    module = MelSpectrogram(settings).double()
    low, high = module.range()

    def colours(mel):
        """How loud each band is in the louder half of the frames."""
        levels = mel.mean(dim=0)
        return mel[:, levels >= levels.median()].mean(dim=1)

    waves = [torch.from_numpy(clip(one, settings.sample_rate, settings.hop_length))[None] for one in CLIPS]
    recorded = torch.cat([module(wave / module.emphasise(wave).abs().max())[0] for wave in waves], dim=1)
    for file in sorted((REAL / folder).glob("*.npy")):
        mel = load_mel(file, settings.n_mels)[0].double()
        slack = 0.1 * (high - low)  # a front-end is not held to the range
        assert low - slack <= mel.min() and mel.max() <= high + slack, file
        if mel.shape[1] < 1000:  # one ran away, and says nothing for long
            assert torch.corrcoef(torch.stack([colours(recorded), colours(mel)]))[0, 1] > likeness, file


# Conventions from files


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder for the user's configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "flowavenet").mkdir(parents=True)
    return tmp_path


def own(home, **conventions):
    (home / "config" / "flowavenet" / "conventions.yaml").write_text(yaml.safe_dump(conventions))


def write(path, **fields):
    path.write_text(yaml.safe_dump(fields))
    return str(path)


@pytest.mark.parametrize("settings", [*CONVENTIONS.values(), PER_BAND], ids=[*CONVENTIONS, "per band"])
def test_settings_survive_a_file(home, settings):
    assert convention(write(home / "mine.yaml", **dataclasses.asdict(settings))) == settings


def test_a_file_says_what_differs(home):
    expected = dataclasses.replace(CONVENTIONS["vocos"], f_min=30.0)
    assert mel_settings(write(home / "mine.yml", like="vocos", f_min=30)) == expected
    assert mel_settings({"like": "vocos", "f_min": 30}) == expected
    again = write(home / "again.yaml", like="mine.yml", floor="1e-6")  # found beside it
    assert convention(again) == dataclasses.replace(expected, floor=1e-6)
    assert convention(write(home / "none.yaml")) == MelSettings()


def test_the_users_own_have_names(home):
    own(home, mine={"like": "hifigan", "f_max": 7000}, theirs={"like": "mine", "n_mels": 40}, hifigan={"n_mels": 7})
    assert convention("theirs") == MelSettings(f_max=7000, n_mels=40)
    assert convention("hifigan") == MelSettings(), "a published name means what was published"
    with pytest.raises(ValueError, match="'yours'.*vocos.*mine.*path of a .yaml"):
        convention("yours")


def test_statistics_bring_each_band_to_mean_0_and_variance_1(home):
    raw = convention("parallel_wavegan")
    wave = torch.from_numpy(clip("lj", 22050, 256))[None]
    mel = MelSpectrogram(raw).double()(wave)[0].numpy()
    np.save(home / "stats.npy", np.stack([mel.mean(axis=1), mel.std(axis=1)]))
    settings = convention(write(home / "mine.yaml", like="parallel_wavegan", statistics="stats.npy"))
    assert settings == mel_settings({"like": "parallel_wavegan", "statistics": str(home / "stats.npy")})
    ours = MelSpectrogram(settings).double()(wave)[0].numpy()
    np.testing.assert_allclose(ours, (mel - mel.mean(axis=1, keepdims=True)) / mel.std(axis=1, keepdims=True), atol=1e-9)
    shifted = convention(write(home / "two.yaml", like="matcha", statistics="stats.npy"))  # already shifted and scaled
    first, second = (MelSpectrogram(one).double()(wave)[0].numpy() for one in (CONVENTIONS["matcha"], shifted))
    np.testing.assert_allclose(second, (first - mel.mean(axis=1, keepdims=True)) / mel.std(axis=1, keepdims=True), atol=1e-9)


def test_statistics_of_h5_files(home):
    h5py = pytest.importorskip("h5py")
    mean, scale = np.arange(80.0), np.arange(1.0, 81.0)
    with h5py.File(home / "stats.h5", "w") as file:
        file["mean"], file["scale"] = mean, scale
    settings = mel_settings({"statistics": str(home / "stats.h5")})
    np.testing.assert_allclose(settings.offset, -mean)
    np.testing.assert_allclose(settings.scale, 1 / scale)
    with h5py.File(home / "other.h5", "w") as file:
        file["mean"] = mean
    with pytest.raises(ValueError, match="other.h5: no .h5 file with data sets mean and scale"):
        mel_settings({"statistics": str(home / "other.h5")})


def test_h5_files_need_a_library(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (home / "stats.h5").touch()
    with pytest.raises(ValueError, match="stats.h5: reading .h5 needs h5py: pip install h5py"):
        mel_settings({"statistics": str(home / "stats.h5")})


@pytest.mark.parametrize(
    "text, words",
    [
        ("hop: 300", "no field is called 'hop'; there are like, statistics, sample_rate"),
        ("hop_length: 3.5", "hop_length is 3.5"),
        ("f_max: high", "f_max is 'high', must be a number"),
        ("like: melgan", "no mel convention is called 'melgan'"),
        ("like: mine.yaml", "is like itself"),
        ("like: ./config/../mine.yaml", "is like itself"),
        ("like: gone.yaml", "gone.yaml: no such file"),
        ("- hop_length", "not a mapping"),
        ("a: [", "not YAML"),
        ("statistics: gone.npy", "gone.npy: no such file"),
        ("statistics: stats.txt", "stats.txt: statistics are .npy or .h5"),
        ("statistics: cut.npy", "cut.npy: is no whole .npy file"),
        ("statistics: pickled.npy", "pickled.npy: holds pickled objects, which may run code; write np.stack"),
        ("statistics: flat.npy", "flat.npy: has shape (160,), must be (2, n_mels)"),
        ("{statistics: stats.npy, n_mels: 40}", "means of shape (80,), not one for each of n_mels 40"),
        ("{statistics: stats.npy, like: rayhane}", "clipped to (-4.0, 4.0)"),
        ("statistics: zeros.npy", "standard deviation of 0.0"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(home, text, words):
    np.save(home / "stats.npy", np.ones((2, 80)))
    np.save(home / "zeros.npy", np.zeros((2, 80)))
    np.save(home / "flat.npy", np.ones(160))
    np.save(home / "pickled.npy", {"mel_mean": np.ones(80)}, allow_pickle=True)
    (home / "cut.npy").write_bytes((home / "stats.npy").read_bytes()[:100])
    (home / "stats.txt").touch()
    (home / "mine.yaml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        convention(str(home / "mine.yaml"))
    said = str(caught.value)
    assert words in said and "\n" not in said and said.startswith(str(home))


def test_a_bad_convention_among_the_users_own_is_named(home):
    own(home, mine={"hop": 300}, loop={"like": "loop"}, empty=None)
    file = str(home / "config" / "flowavenet" / "conventions.yaml")
    for name, words in {"mine": "'hop'", "loop": "loop is like loop", "empty": "not a mapping"}.items():
        with pytest.raises(ValueError) as caught:
            convention(name)
        assert str(caught.value).startswith(f"{file}: {name}") and words in str(caught.value)
    with pytest.raises(FileNotFoundError, match="gone.yaml: no such file"):
        convention(str(home / "gone.yaml"))
    with pytest.raises(ValueError, match="mel: no field is called 'hops'"):
        mel_settings({"hops": 2})


# Settings from the projects' own files


HIFIGAN_JSON = """{"resblock": "1", "segment_size": 8192, "num_mels": 80, "num_freq": 1025, "n_fft": 1024, "hop_size": 256,
"win_size": 1024, "sampling_rate": 22050, "fmin": 0, "fmax": 8000, "fmax_for_loss": null}"""
RAYHANE_PY = """hparams = HParams(
    num_mels = 80, # bands
    rescale = True,
    n_fft = 2048, hop_size = 275, win_size = 1100, sample_rate = 22050,
    signal_normalization = True, allow_clipping_in_normalization = True, symmetric_mels = True, max_abs_value = 4.,
    preemphasize = True, preemphasis = 0.97, min_level_db = -100, ref_level_db = 20, fmin = 55, fmax = 7600, power = 1.5,
    run = __import__("os").system("touch gone"),
)
"""
PWG_YAML = """sampling_rate: 24000
fft_size: 2048
hop_size: 300
win_length: 1200
num_mels: 80
fmin: 80
fmax: 7600
global_gain_scale: 1.0
generator_params: {in_channels: 1}
"""
NEMO_YAML = """sample_rate: 44100
preprocessor: {features: 80, nfilt: 80, n_fft: 2048, n_window_size: 2048, n_window_stride: 512, lowfreq: 0, highfreq: null,
  mag_power: 1.0, log_zero_guard_type: add, log_zero_guard_value: 1.0e-05}
"""


@pytest.mark.parametrize(
    "name, text, same",
    [
        ("config.json", HIFIGAN_JSON, CONVENTIONS["hifigan"]),
        ("hparams.py", RAYHANE_PY, dataclasses.replace(CONVENTIONS["rayhane_275"], power=1.0)),
        ("config.yml", PWG_YAML, CONVENTIONS["parallel_wavegan_24k"]),
        ("model.yaml", NEMO_YAML, CONVENTIONS["nemo_44k"]),
    ],
)
def test_projects_own_files_are_read_and_never_run(home, monkeypatch, name, text, same):
    monkeypatch.chdir(home)
    (home / name).write_text(text)
    ours = read_project_settings(home / name)
    close = {field: pytest.approx(value) for field, value in dataclasses.asdict(same).items() if isinstance(value, float)}
    assert dataclasses.asdict(ours) == dataclasses.asdict(same) | close | dict(
        pad_mode=ours.pad_mode, eps=ours.eps, frame_centre=ours.frame_centre
    )
    assert not (home / "gone").exists()


def test_what_was_said_counts_more_than_the_file(home):
    (home / "config.json").write_text(HIFIGAN_JSON)
    said = read_project_settings(home / "config.json", sample_rate=16000, hop_length=200)
    assert said == MelSettings(sample_rate=16000, hop_length=200)


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("a.json", "{", "a.json: not JSON"),
        ("a.json", '{"num_mels": 80}', "does not say sample_rate (sampling_rate or sample_rate or samplerate), hop_length"),
        ("a.py", "import os", "a.py: does not say sample_rate"),
        ("a.toml", "", "a.toml: .toml is not one of .json, .yaml, .yml, .py, .txt"),
        ("a.json", '{"sr": 16000, "hop_size": 200, "num_mels": 80, "fmax": 9000}', "a.json: mel settings: bands from"),
        ("a.json", '{"sr": 16000.5, "hop_size": 200, "num_mels": 80}', "a.json: mel settings: sample_rate is 16000.5"),
    ],
)
def test_what_is_wrong_with_a_projects_file_is_said_in_one_line(home, name, text, words):
    (home / name).write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        read_project_settings(home / name)
    assert "\n" not in str(error.value)


# Mels in .npz and .h5


def test_mels_of_archives(home):
    mel = np.random.rand(80, 50).astype(np.float32)
    np.savez(home / "one.npz", anything=mel)
    np.savez_compressed(home / "wave.npz", wave=np.zeros(999, np.float32), f=mel)
    np.savez(home / "named.npz", mel=mel, linear=np.zeros((513, 50), np.float32))
    for name in ("one", "wave", "named"):
        assert np.array_equal(load_mel(home / f"{name}.npz", 80)[0], mel)
    np.savez(home / "two.npz", a=mel, b=mel)
    np.savez(home / "objects.npz", a=np.array([{}], dtype=object))
    two = "two.npz: .*a \\(80, 50\\), b \\(80, 50\\).*call the mel mel"
    for name, words in [("two", two), ("objects", "objects.npz: not a whole .npz file")]:
        with pytest.raises(ValueError, match=words) as error:
            load_mel(home / f"{name}.npz", 80)
        assert "\n" not in str(error.value)


def test_mels_of_h5_files(home, monkeypatch):
    h5py = pytest.importorskip("h5py")
    mel = np.random.rand(50, 80).astype(np.float32)
    with h5py.File(home / "dump.h5", "w") as file:
        file["wave"], file["feats"] = np.zeros(999, np.float32), mel
    assert np.array_equal(load_mel(home / "dump.h5", 80)[0].T, mel)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match="dump.h5: .*pip install h5py"):
        load_mel(home / "dump.h5", 80)
