"""A mel tells its convention, whatever its layout; or it is said to be unsure or unknown, and never sure and wrong."""

import importlib.util
import os
from functools import cache
from pathlib import Path

import pytest
import soundfile
import torch
from torch.nn.functional import avg_pool1d

from flowavenet.audio import CONVENTIONS, MelSettings, MelSpectrogram, load_audio, load_mel
from flowavenet.meldetect import detect

DATA = Path(__file__).parent / "data"
CLIPS = sorted(DATA.glob("*.flac"))
SHARED = Path(os.environ.get("FLOWAVENET_SHARED", Path(__file__).parents[2] / "shared"))
SPEECH, PREDICTED, CASES = SHARED / "data" / "speech", SHARED / "mels", SHARED / "cases" / "mels.py"
FORMS = {
    "as it is": lambda mel: mel[0],
    "transposed": lambda mel: mel[0].T,
    "batch of one": lambda mel: mel[:, None],
    "batch of two": lambda mel: torch.cat([mel, mel.roll(9, dims=2)]),
    "float16": lambda mel: mel.half(),
    "bfloat16 transposed": lambda mel: mel.bfloat16().transpose(1, 2),
}


@cache
def analysed(path, name):
    """The mel of a recording in a convention: (1, bands, frames)."""
    spectrogram = MelSpectrogram(CONVENTIONS[name])
    return spectrogram(spectrogram.normalise(load_audio(path, CONVENTIONS[name].sample_rate)))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_recognises_a_recording(name):
    """In one of the forms that mels come in."""
    form = list(FORMS)[list(CONVENTIONS).index(name) % len(FORMS)]
    mel = FORMS[form](analysed(CLIPS[-1], name))
    found = detect(mel)
    if name in ("speecht5", "cosyvoice2"):                             # 64 and 80 ms windows are hard to tell from 50 ms
        assert name in list(found.scores)[:5] and not found.sure, found
    else:
        assert name in found.names and found.verdict in ("sure", "unsure"), found
    assert found.layout.startswith("batch of") == (form == "batch of two")
    assert found.layout.endswith("(frames, bands)") == ("transposed" in form)
    assert found.arrange(mel).shape[1] == CONVENTIONS[name].n_mels


@pytest.mark.parametrize("seconds", [None, 2])
def test_is_seldom_wrong_and_never_sure_of_it(seconds):
    found = []
    for name in sorted(CONVENTIONS)[:: 2 if seconds is None else 3]:
        frames = seconds and seconds * CONVENTIONS[name].sample_rate // CONVENTIONS[name].hop_length
        found += [(name, detect(analysed(clip, name)[..., :frames])) for clip in CLIPS[::2]]
    wrong = [one for name, one in found if name not in one.names]
    assert len(wrong) <= 0.1 * len(found), wrong
    assert not [one for one in wrong if one.sure]
    assert sum(one.sure for _, one in found) > 0.2 * len(found)


UNLISTED = {
    "16 kHz, hop 160": MelSettings(sample_rate=16000, n_fft=640, win_length=640, hop_length=160),
    "powers, ln": MelSettings(power=2.0, floor=1e-9, mel_scale="htk", norm=None),
    "log10 up to 11 kHz": MelSettings(log="log10", f_max=11025.0),
    "hop 128": MelSettings(hop_length=128),
    "24 kHz, hop 300": MelSettings(sample_rate=24000, n_fft=2048, win_length=1200, hop_length=300, f_max=12000.0),
    "24 kHz, 80-7600 Hz": MelSettings(sample_rate=24000, f_min=80.0, f_max=7600.0),
    "55-7600 Hz": MelSettings(f_min=55.0, f_max=7600.0),
    "100 bands at 22 kHz": MelSettings(n_mels=100, f_max=11025.0),
    "log10, 100 bands": MelSettings(sample_rate=24000, n_mels=100, f_max=12000.0, log="log10", floor=1e-10, eps=1e-24),
    "scaled otherwise": MelSettings(offset=5.3, scale=1 / 2.6),
    "16 kHz, decibels": MelSettings(sample_rate=16000, log="db", offset=80.0, scale=0.01, clip=(0.0, 1.0)),
    "48 kHz, 80 bands": MelSettings(sample_rate=48000, n_fft=2048, win_length=2048, hop_length=480, f_max=24000.0),
}


@pytest.mark.parametrize("name", UNLISTED)
def test_a_recipe_that_is_not_listed_is_never_sure(name):
    settings = UNLISTED[name]
    for clip in CLIPS[::2]:
        found = detect(MelSpectrogram(settings)(load_audio(clip, settings.sample_rate)))
        assert found.verdict in ("unsure", "unknown") and len(found.reasons) > 1, found


def test_the_vocoders_own_is_likelier():
    mel = load_mel(DATA / "tacotron2.npy", 80)                         # predicted, and as smooth as with a shorter hop
    assert "hifigan" in detect(mel).names and detect(mel, own="hifigan").sure


@pytest.mark.parametrize("frames", [80, 100, 128])
def test_tells_frames_from_bands_when_either_could_be(frames):
    for clip in CLIPS:
        mel = analysed(clip, "hifigan")[0, :, 30 : 30 + frames]
        assert detect(mel).layout == "(bands, frames)" and detect(mel.T).layout == "(frames, bands)"


LISTED = {
    "autovc": "autovc", "hifigan_16k": "hifigan_16k", "speecht5": "speecht5", "fatchord": "fatchord", "f5tts": "f5tts",
    "librosa_db80": "librosa_db_max", "librosa_db128": "librosa_db_max_128", "librosa_db_ref1": "librosa_db",
    "librosa_linear": "librosa_power",
}  # fmt: skip


@pytest.mark.skipif(not CASES.is_file() or not SPEECH.is_dir(), reason="needs the recipes and voices of ../shared")
def test_recipes_of_other_projects():
    soxr = pytest.importorskip("soxr")
    spec = importlib.util.spec_from_file_location("cases", CASES)
    cases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    right = []
    for voice in sorted(path for path in SPEECH.iterdir() if path.is_dir()):
        clip = sorted(voice.iterdir())[11]
        wave, rate = soundfile.read(clip)
        for name, (make, wanted, _) in cases.RECIPES.items():
            found = detect(torch.from_numpy(make(soxr.resample(wave, rate, wanted))).float())
            if name in LISTED:
                right.append(LISTED[name] in found.names)
            wrong = found.sure and LISTED.get(name) not in found.names
            assert found.verdict != "standardised" and not wrong, (name, found)
    assert sum(right) >= 0.93 * len(right)


@pytest.mark.parametrize("name", ["hifigan", "rayhane", "parallel_wavegan", "coqui_db"])
def test_recognises_what_is_smoother_than_recordings(name):
    """As predictions are: they change less from frame to frame, and are not exactly at the floor."""
    founds = []
    for clip in CLIPS[1:]:
        smooth = avg_pool1d(analysed(clip, name)[..., :300], 13, stride=1)
        founds.append(detect(smooth - 0.001 * torch.rand(smooth.shape, generator=torch.Generator().manual_seed(0))))
    assert all(name in found.names for found in founds), founds
    assert "front-ends predict" in " ".join(founds[0].reasons)


@pytest.mark.skipif(not PREDICTED.is_dir(), reason="needs the mels that front-ends predicted")
@pytest.mark.parametrize(
    "folder, family", [("hifigan_ln", "hifigan"), ("tacotron2_db4", "rayhane"), ("tacotron2_hop275", "rayhane")]
)
def test_recognises_what_front_ends_predicted(folder, family):
    for path in sorted((PREDICTED / folder).glob("*.npy"))[::2]:
        names = detect(load_mel(path, 80)).names
        assert any(name.startswith(family) for name in names), (path, names)


def test_only_mels_of_mean_0_and_variance_1_are_standardised():
    mel = analysed(CLIPS[-1], "parallel_wavegan")
    found = detect((mel - mel.mean(2, keepdim=True)) / mel.std(2, keepdim=True))
    assert found.verdict == "standardised" and not found.sure
    assert detect((mel - mel.mean()) / mel.std()).verdict != "standardised"
    assert detect(mel - mel.mean(2, keepdim=True)).verdict in ("unsure", "unknown")


@pytest.mark.parametrize("make", [torch.randn, torch.rand, lambda *size: torch.linspace(-11, 0, 80 * 200).reshape(size)])
def test_what_is_no_speech_is_not_sure(make):
    assert not detect(make(80, 200)).sure


def test_a_convention_of_no_recording_is_unsure():
    mel = analysed(CLIPS[-1], "hifigan")
    assert not detect(3 * mel + 20).sure                              # no convention's scale
    assert not detect(mel.flip(1)).sure                               # upside down


@pytest.mark.parametrize(
    "mel, reason",
    [
        (torch.zeros(80, 9, dtype=torch.int16), "floating point"),
        (torch.full((80, 9), float("nan")), "720 of 720 values are not finite"),
        (torch.zeros(80, 9), "all values are the same"),
        (torch.zeros(80, 0), "no values"),
        (torch.randn(64, 9), "no dimension is one of 80, 100, 128, 160, 256 bands"),
        (torch.randn(2, 3, 80, 9), "more or fewer"),
    ],
)
def test_what_is_no_mel_is_unknown(mel, reason):
    found = detect(mel)
    assert found.layout == "unknown" and not found.sure and reason in found.reasons[0]
    with pytest.raises(ValueError, match="layout is unknown"):
        found.arrange(mel)


def test_own_conventions_take_part():
    mel = analysed(CLIPS[-1], "hifigan") * 0.2 + 1.5
    own = CONVENTIONS | {"own": MelSettings(scale=0.2, offset=7.5)}
    assert detect(mel, own).names == ("own",)
