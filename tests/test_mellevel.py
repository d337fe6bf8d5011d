"""A mel's level: shifting it is what a louder wave does, and a known shift is found within the error that is stated."""

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowavenet.audio import CONVENTIONS, MelSpectrogram, load_audio
from flowavenet.meldetect.level import estimate_offset, with_offset

CLIPS = sorted((Path(__file__).parent / "data").glob("*.flac"))
SPEECH = Path(os.environ.get("FLOWAVENET_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "speech"


def analysed(path, name, seconds=None):
    settings = CONVENTIONS[name]
    wave = load_audio(path, settings.sample_rate)
    spectrogram = MelSpectrogram(settings)
    return spectrogram(spectrogram.normalise(wave if seconds is None else wave[:, : int(seconds * settings.sample_rate)]))


@pytest.mark.parametrize("db", [-6.0, 4.0])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_is_what_a_louder_wave_makes(name, db):
    settings = CONVENTIONS[name]
    spectrogram = MelSpectrogram(replace(settings, eps=1e-30)).double()
    wave = 0.3 * load_audio(CLIPS[-1], settings.sample_rate)[:, :20000].double()
    quiet, loud = spectrogram(wave), spectrogram(10 ** (db / 20) * wave)
    shifted = with_offset(quiet, settings, db)
    low, high = settings.clip or (spectrogram.range()[0], math.inf)
    told = (quiet > low + 1e-3) & (quiet < high - 1e-3) & (loud > low + 1e-3)
    assert told.float().mean() > (0.1 if settings.log == "linear" else 0.25)
    torch.testing.assert_close(shifted[told], loud[told], atol=1e-4, rtol=1e-4)
    assert torch.equal(shifted[quiet <= low], quiet[quiet <= low])


@pytest.mark.parametrize("db", [-6.0, -1.5, 0.0, 3.0, 6.0])
@pytest.mark.parametrize("name", ["tacotron2", "rayhane", "rayhane_275", "flowavenet", "parallel_wavegan"])
def test_finds_an_offset_from_the_same_recordings(name, db):
    settings = CONVENTIONS[name]
    mels = [analysed(clip, name, 2.0) for clip in CLIPS]
    found = estimate_offset([with_offset(mel, settings, db) for mel in mels], settings, mels)
    assert abs(found.db - db) < 0.01
    alone = estimate_offset([with_offset(mel, settings, db) for mel in mels], settings)
    plain = estimate_offset(mels, settings)
    assert abs(alone.db - plain.db - db) < 0.3 and alone.error_db > found.error_db


def test_lws_analysis_is_quieter_by_what_its_window_is():
    """sqrt(Hann / 2) hears 0.9 dB less of a tone than Hann, and 1.8 dB less of noise; speech is between."""
    spectrogram, lws = (MelSpectrogram(CONVENTIONS["rayhane"]) for _ in range(2))
    lws.window = (lws.window / 2).sqrt()
    waves = [spectrogram.normalise(load_audio(clip, 22050)[:, :44100]) for clip in CLIPS]
    ours, theirs = ([analysis(wave) for wave in waves] for analysis in (spectrogram, lws))
    found = estimate_offset(theirs, spectrogram.settings, ours)
    assert -1.8 < found.db < -0.9
    for a, b in zip(ours, theirs, strict=True):
        loud, put_right = a > a.mean(), with_offset(b, spectrogram.settings, -found.db)
        assert abs((put_right - a)[loud].mean()) < 0.2 * abs((b - a)[loud].mean())


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs recordings of five voices")
def test_other_utterances_of_the_voice_tell_it_within_the_stated_error():
    errors = []
    for voice in sorted(path for path in SPEECH.iterdir() if path.is_dir()):
        mels = [analysed(clip, "rayhane", 5.0) for clip in sorted(voice.iterdir())[3::20][:10]]
        for i in range(5):
            found = estimate_offset(mels[i], CONVENTIONS["rayhane"], mels[5:])
            errors.append(found.db / found.error_db)
    assert 0.5 < torch.tensor(errors).square().mean().sqrt() < 1.5


@pytest.mark.parametrize(
    "mel, reason",
    [
        (torch.zeros(80, 9), r"mel has shape \(80, 9\), must be \(batch, 80, frames\)"),
        (torch.zeros(1, 80, 0), "mel is empty"),
        ([], "mel is empty"),
        (torch.full((1, 80, 9), -4.0), "above the floor"),
    ],
)
def test_what_has_no_level_is_said(mel, reason):
    with pytest.raises(ValueError, match=reason):
        estimate_offset(mel, CONVENTIONS["rayhane"])
