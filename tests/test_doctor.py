"""A mel tells its convention: whatever its layout, the doctor recognises it, or says that it is unsure."""

import os
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool1d

from flowavenet.audio import CONVENTIONS, MelSettings, MelSpectrogram, load_audio, load_mel
from flowavenet.audio.doctor import STANDARDISED, examine

DATA = Path(__file__).parent / "data"
CLIPS = sorted(DATA.glob("*.flac"))
SHARED = Path(os.environ.get("FLOWAVENET_SHARED", Path(__file__).parents[2] / "shared"))
SPEECH, PREDICTED = SHARED / "data" / "speech", SHARED / "mels"
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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CONVENTIONS)
def test_recognises_a_recording(name, form):
    mel = FORMS[form](analysed(CLIPS[-1], name))
    finding = examine(mel)
    assert name in finding.names, finding
    assert finding.layout.startswith("batch of") == (form == "batch of two")
    assert finding.layout.endswith("(frames, bands)") == ("transposed" in form)
    assert finding.arrange(mel).shape[1] == CONVENTIONS[name].n_mels


@pytest.mark.parametrize("seconds, sure", [(None, 0.7), (2, 0.6), (1, 0.4)])
def test_is_seldom_wrong_and_never_sure_of_it(seconds, sure):
    findings = []
    for name in sorted(CONVENTIONS.keys() - {"hifigan", "bigvgan_22k"}):  # whose values are tacotron2's
        frames = seconds and seconds * CONVENTIONS[name].sample_rate // CONVENTIONS[name].hop_length
        findings += [(name, examine(analysed(clip, name)[..., :frames])) for clip in CLIPS]
    wrong = [finding for name, finding in findings if name not in finding.names]
    assert len(wrong) <= 0.05 * len(findings), wrong
    assert not [finding for finding in wrong if finding.sure]
    assert sum(finding.sure for _, finding in findings) > sure * len(findings)


@pytest.mark.parametrize("frames", [80, 100, 128])
def test_tells_frames_from_bands_when_either_could_be(frames):
    for clip in CLIPS:
        mel = analysed(clip, "hifigan")[0, :, 30 : 30 + frames]
        assert examine(mel).layout == "(bands, frames)" and examine(mel.T).layout == "(frames, bands)"


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs the recordings of five voices")
def test_recognises_five_voices():
    clips = [clip for voice in sorted(SPEECH.iterdir()) if voice.is_dir() for clip in sorted(voice.iterdir())[5::100][:2]]
    findings = [(name, examine(analysed(clip, name)[..., :200])) for clip in clips for name in list(CONVENTIONS)[::2]]
    right = [name in finding.names for name, finding in findings]
    assert len(findings) == 90 and sum(right) >= 0.95 * len(right)
    assert not [finding for name, finding in findings if name not in finding.names and finding.sure]


@pytest.mark.parametrize("name", ["hifigan", "rayhane", "parallel_wavegan", "coqui_db"])
def test_recognises_what_is_smoother_than_recordings(name):
    """As predictions are: they change less from frame to frame, and are not exactly at the floor."""
    findings = []
    for clip in CLIPS[1:]:
        smooth = avg_pool1d(analysed(clip, name)[..., :300], 13, stride=1)
        findings.append(examine(smooth - 0.001 * torch.rand(smooth.shape, generator=torch.Generator().manual_seed(0))))
    assert all(name in finding.names for finding in findings), findings
    assert "front-ends predict" in " ".join(findings[0].reasons)


def test_recognises_what_a_front_end_predicted():
    finding = examine(load_mel(DATA / "tacotron2.npy", 80))
    assert "hifigan" in finding.names and finding.sure


@pytest.mark.skipif(not PREDICTED.is_dir(), reason="needs the mels that front-ends predicted")
@pytest.mark.parametrize(
    "folder, family", [("hifigan_ln", "hifigan"), ("tacotron2_db4", "rayhane"), ("tacotron2_hop275", "rayhane")]
)
def test_recognises_what_front_ends_predicted(folder, family):
    for path in sorted((PREDICTED / folder).glob("*.npy"))[::2]:
        names = examine(load_mel(path, 80)).names
        assert any(name.startswith(family) for name in names), (path, names)


def test_standardised_mels_want_their_statistics():
    mel = analysed(CLIPS[-1], "parallel_wavegan")
    finding = examine((mel - mel.mean(2, keepdim=True)) / mel.std(2, keepdim=True))
    assert finding.names == (STANDARDISED,) and not finding.sure and finding.settings is None
    assert "statistics" in " ".join(finding.reasons)


@pytest.mark.parametrize("make", [torch.randn, torch.rand, lambda *size: torch.linspace(-11, 0, 80 * 200).reshape(size)])
def test_what_is_no_speech_is_unsure(make):
    assert examine(make(80, 200)).verdict == "unsure"


def test_a_convention_of_no_recording_is_unsure():
    mel = analysed(CLIPS[-1], "hifigan")
    assert not examine(3 * mel + 20).sure                              # no convention's scale
    assert not examine(mel.flip(1)).sure                               # upside down


@pytest.mark.parametrize(
    "mel, reason",
    [
        (torch.zeros(80, 9, dtype=torch.int16), "floating point"),
        (torch.full((80, 9), float("nan")), "720 of 720 values are not finite"),
        (torch.zeros(80, 9), "all values are the same"),
        (torch.zeros(80, 0), "no values"),
        (torch.randn(64, 9), "no dimension is one of 80, 100, 128 bands"),
        (torch.randn(2, 3, 80, 9), "more or fewer"),
    ],
)
def test_what_is_no_mel_is_unknown(mel, reason):
    finding = examine(mel)
    assert finding.layout == "unknown" and not finding.sure and reason in finding.reasons[0]
    with pytest.raises(ValueError, match="layout is unknown"):
        finding.arrange(mel)


def test_own_conventions_take_part():
    mel = analysed(CLIPS[-1], "hifigan") * 0.2 + 1.5
    own = CONVENTIONS | {"own": MelSettings(scale=0.2, offset=7.5)}
    assert examine(mel, own).names == ("own",)
