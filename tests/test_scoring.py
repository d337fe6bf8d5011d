"""Likelihood told frame by frame, and recordings that stand out of their folder by it."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import CLIPS, shake
from test_models import VARIANTS, pair

from flowavenet import Vocoder, load_audio
from flowavenet.evaluation.outliers import MEASURES, measure, rank
from flowavenet.evaluation.scoring import score
from flowavenet.models import build

RATE = 22050


def variant(name):
    kind, config, hop = VARIANTS[name]
    return shake(build(kind, config, n_mels=4, hop_length=hop).double().eval(), 0.05)


@pytest.mark.parametrize("name", VARIANTS)
def test_samples_add_up_to_the_log_prob_of_every_model(name):
    model = variant(name)
    wave, *given = pair(model, frames=6, cut=5)
    nats = model.log_prob_samples(wave, *given)
    assert nats.shape == wave.shape and nats.std() > 0
    torch.testing.assert_close(nats.sum(dim=1), model.log_prob(wave, *given))


@pytest.mark.parametrize("name", ["two scales", "lapflow", "waveglow", "waveflow"])
def test_what_is_far_from_a_change_keeps_its_nats(name):
    model = variant(name)
    wave, *given = pair(model, frames=160, batch=1)
    at, (left, right) = wave.shape[1] // 2, model.flow.forward_receptive_field
    before = model.log_prob_samples(wave, *given)
    wave[:, at] += 3
    after = model.log_prob_samples(wave, *given)
    changed = (after != before)[0].nonzero()
    # the nats of a group are shared by all of it
    group = model.group
    first, last = (at - right) // group * group, -(-(at + left + 1) // group) * group
    assert first <= changed.min() and changed.max() < last and len(changed) < wave.shape[1] / 2


@pytest.fixture(scope="module")
def vocoder():
    return Vocoder.from_pretrained()


def test_frames_add_up(vocoder, speech):
    wave = speech[:, :9999]
    mel = vocoder.mel(wave)
    frames = vocoder.log_prob_frames(wave, mel)
    assert frames.shape == (1, mel.shape[-1])
    torch.testing.assert_close(frames.sum(dim=1), vocoder.log_prob(wave, mel), rtol=1e-5, atol=0)
    found = score(vocoder, wave, step=0)
    torch.testing.assert_close(found.nats, frames[0].double(), rtol=1e-5, atol=1e-3)
    power = vocoder.encode(wave, mel).square().mean().item()
    assert found.surprise_db == pytest.approx(10 * np.log10(power), abs=1e-3)
    each, seconds = found.per_sample(8)
    assert len(each) == 5 and seconds.tolist() == [*found.seconds[:-1:8].tolist(), found.seconds[-1].item()]
    assert (each * 256 * 8)[:4].sum() + each[4] * (9999 - 4 * 2048) == pytest.approx(found.nats.sum().item(), rel=1e-9)
    assert found.bits_per_sample is None and found.samples.sum() == 9999 and found.seconds[-1] == pytest.approx(9999 / RATE)


def planted():
    """The recipe that plants faults."""
    file = Path(__file__).parents[1] / "recipes" / "scoring" / "planted.py"
    place = importlib.util.spec_from_file_location("planted", file)
    place.loader.exec_module(module := importlib.util.module_from_spec(place))
    return module


FAULTS = planted().FAULTS | {
    "a tone": lambda wave, _: 0.1 * np.sin(np.arange(len(wave)) / 9),
    "an offset": lambda wave, _: wave + 0.1,
}
# what happened to a recording -> a reason that is given; others may be missed, as the recipe's table says
REASONS = {
    "clipped at 20 % of its peak": "at its peak",
    "white noise, 15 dB SNR": "surprise",
    "50 Hz hum, 15 dB SNR": "mains hum",
    "was 8 kHz audio": "nothing above",
    "8-bit mu-law": "surprise",
    "dropouts of 20 to 60 ms, 2 per second": "without any signal",
    "music": "surprise",
    "nothing but white noise": "surprise",
    "20 dB too quiet": "level",
    "a tone": "timbre",
    "an offset": "DC offset",
}


@pytest.fixture(scope="module")
def folder():
    """A dozen pieces of one voice."""
    wave = load_audio(next(clip for clip in CLIPS if clip.stem == "lj"), RATE)[0].numpy()
    return [wave[start : start + 20000] for start in range(0, len(wave) - 20000, 4500)]


def measured(vocoder, wave):
    wave = torch.from_numpy(np.round(wave.clip(-1, 1) * 32767).astype(np.float32) / 32768)
    return measure(wave, RATE, score(vocoder, wave[None]).surprise_db)


@pytest.fixture(scope="module")
def usual(vocoder, folder):
    return [measured(vocoder, wave) for wave in folder]


@pytest.mark.parametrize("fault", REASONS)
def test_a_faulty_recording_comes_first_and_is_told_why(fault, vocoder, folder, usual):
    first, *others = rank([measured(vocoder, FAULTS[fault](folder[5], np.random.default_rng(0))), *usual])
    assert first.deviation > max(other.deviation for other in others)
    assert any(REASONS[fault] in each for each in first.reasons), first.reasons


def test_alike_recordings_do_not_stand_out(usual):
    assert all(standing.deviation == 0 and not standing.reasons for standing in rank(9 * usual[:1]))
    assert rank(usual)[0] == rank(usual[::-1])[-1]
    with pytest.raises(ValueError, match="7 recordings are too few .* 8"):
        rank(usual[:7])


@pytest.mark.parametrize("samples", [1, 3, 300, 5000])
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_any_recording_can_be_measured(samples, value):
    values = measure(torch.full((samples,), value), RATE, 0.0).values
    assert set(values) == set(MEASURES) - {"timbre"} and not any(np.isinf(list(values.values())))


def test_verb_ranks_a_folder_past_a_bad_file(flowavenet, tiny, tmp_path, folder):
    gaps = FAULTS["dropouts of 20 to 60 ms, 2 per second"]
    for i, wave in enumerate(folder[:8]):
        soundfile.write(tmp_path / f"{i}.wav", wave if i else gaps(wave, np.random.default_rng(0)), RATE)
    (tmp_path / "bad.wav").write_text("no audio")
    figures = tmp_path / "figures.json"
    code, said, errors = flowavenet("score", tmp_path, "--rank", "--json", figures, "--checkpoint", tiny)
    assert code == 2 and "bad.wav" in errors and "1 of 9 files failed" in errors
    head, about, _, first, *others = said.splitlines()
    assert "as recorded" in head and "dequantisation of width 3.05" in head and "80 bands" in head and len(others) == 7
    assert "0.wav: without any signal" in first
    content = json.loads(figures.read_text())
    top = content["files"][0]
    assert top["file"].endswith("0.wav") and "without any signal" in top["reasons"][0] and len(content["failed"]) == 1
    assert set(top["measured"]) == set(MEASURES) and content["dequantisation"] == 2**-15


def test_verb_writes_frames(flowavenet, tiny, tmp_path):
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    assert flowavenet("score", CLIPS[0], "-o", out, "--json", figures, "--checkpoint", tiny)[0] == 0
    with (out / f"{CLIPS[0].stem}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    samples, nats = sum(int(row["samples"]) for row in rows), sum(float(row["nats"]) for row in rows)
    assert samples == soundfile.info(CLIPS[0]).frames and len(rows) == -(-samples // 256)
    assert nats / samples == pytest.approx(json.loads(figures.read_text())["files"][0]["nats_per_sample"], rel=1e-5)
    assert soundfile.info(CLIPS[0]).duration == pytest.approx(float(rows[-1]["seconds"]), abs=256 / RATE)
    assert (out / f"{CLIPS[0].stem}.png").read_bytes()[:4] == b"\x89PNG" and len(list(out.iterdir())) == 2
