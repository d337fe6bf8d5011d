"""A mel brought to another convention is what that makes of the same recording, and the report says how nearly."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowavenet.audio import CONVENTIONS, MelSettings, MelSpectrogram, load_audio
from flowavenet.audio.conversion import convert, same_bands

CLIP = Path(__file__).parent / "data" / "kerstin.flac"
PER_BAND = MelSettings(offset=tuple(5 + band / 80 for band in range(80)), scale=tuple(0.5 + band / 80 for band in range(80)))
EXACT = [
    ("hifigan", "matcha"),
    ("hifigan", PER_BAND),
    ("bigvgan_22k", "tacotron2"),
    ("parallel_wavegan", replace(CONVENTIONS["parallel_wavegan"], log="db", offset=3.0, scale=-0.1)),
    ("coqui", "coqui_db"),
    ("coqui", "bigvgan_22k_full"),
]


def settings(name):
    return CONVENTIONS[name] if isinstance(name, str) else name


def analysed(name):
    spectrogram = MelSpectrogram(settings(name))
    return spectrogram(spectrogram.normalise(load_audio(CLIP, settings(name).sample_rate)))


def apart_db(settings, mel, other):
    """Distances in dB of magnitude."""
    energies = MelSpectrogram(settings).energies
    return 20 / settings.power * (energies(mel) / energies(other)).log10()


@pytest.mark.parametrize("source, target", EXACT)
def test_exact_conversions_return_to_themselves(source, target):
    source, target = settings(source), settings(target)
    mel = analysed(source)
    there, report = convert(mel, source, target)
    assert report.exact and report.hidden == 0 and report.loss_db < 1e-3
    torch.testing.assert_close(convert(there, target, source)[0], mel, atol=1e-4, rtol=0)


@pytest.mark.parametrize("target", ["matcha", "bigvgan_22k", PER_BAND])
def test_the_same_bands_are_as_if_analysed(target):
    target = replace(settings(target), eps=CONVENTIONS["hifigan"].eps)
    there, _ = convert(analysed("hifigan"), CONVENTIONS["hifigan"], target)
    torch.testing.assert_close(there, analysed(target), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "source, target, most_db",
    [
        ("hifigan", "flowavenet", 1.5),                                # power, bands and floor
        ("bigvgan_22k_full", "hifigan", 1.0),                          # bands
        ("bigvgan_24k", "hifigan", 2.0),                               # rate and hop
        ("vocos", "parallel_wavegan", 3.0),                            # rate, hop, scale and norm
        ("mozilla", "parallel_wavegan", 3.0),                          # pre-emphasis, window and hop
    ],
)
def test_other_bands_are_nearly_as_if_analysed(source, target, most_db):
    wanted = MelSpectrogram(settings(target))(load_audio(CLIP, settings(target).sample_rate))
    mel = MelSpectrogram(settings(source))(load_audio(CLIP, settings(source).sample_rate))
    there, report = convert(mel, settings(source), settings(target))
    frames = min(there.shape[2], wanted.shape[2])
    assert abs(there.shape[2] - wanted.shape[2]) <= 1
    off = apart_db(settings(target), there[..., :frames], wanted[..., :frames])[:, 4:-4]
    assert off.abs().mean() < most_db and off.mean().abs() < 1
    assert not report.exact and 0 < report.loss_db < most_db and report.reasons


@pytest.mark.parametrize("target", ["coqui", "flowavenet", "parallel_wavegan_24k"])
def test_what_is_hidden_is_said(target):
    quiet = analysed("coqui_db") - 20                                 # so that some is below the floors
    _, report = convert(quiet, CONVENTIONS["coqui_db"], CONVENTIONS[target])
    assert not report.exact and report.hidden > 0.01 and any("does not" in reason for reason in report.reasons)


def test_beyond_the_bands_there_is_the_floor():
    source, target = CONVENTIONS["hifigan"], CONVENTIONS["bigvgan_22k_full"]
    there, report = convert(analysed("hifigan"), source, target)
    torch.testing.assert_close(there[:, -1], torch.full_like(there[:, -1], torch.tensor(target.floor).log().item()))
    assert any("above 8000 Hz" in reason for reason in report.reasons)


def test_bands_are_the_same_whatever_is_made_of_them():
    assert same_bands(CONVENTIONS["tacotron2"], CONVENTIONS["matcha"])
    assert not same_bands(CONVENTIONS["hifigan"], CONVENTIONS["bigvgan_22k_full"])
    assert not same_bands(CONVENTIONS["rayhane"], replace(CONVENTIONS["rayhane"], power=2.0))


@pytest.mark.parametrize("shape", [(80, 9), (1, 79, 9)])
def test_a_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match="must be \\(batch, 80, frames\\)"):
        convert(torch.zeros(shape), MelSettings(), MelSettings())
