"""The verbs, as a user types them: what good input makes, and one line for each kind of bad input."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import CLIPS, shake
from test_models import VARIANTS

from flowavenet import Vocoder
from flowavenet.audio import MelSettings
from flowavenet.checkpoint import save_checkpoint
from flowavenet.models import build

DATA = Path(__file__).parent / "data"


def left(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def test_vocode_mels_and_audio(flowavenet, tiny, tmp_path):
    mel = np.load(DATA / "tacotron2.npy")[..., :40]
    np.save(tmp_path / "a.npy", mel)
    torch.save(torch.from_numpy(mel[0].T.copy()), tmp_path / "b.pt")
    shutil.copy(CLIPS[0], tmp_path / "c.flac")
    out = tmp_path / "out"
    code, said, _ = flowavenet("vocode", *sorted(tmp_path.glob("*.*")), "-o", out, "--checkpoint", tiny, "--picture")
    assert code == 0 and "3 files" in said and "RTF" in said
    assert left(out) == ["a.png", "a.wav", "b.png", "b.wav", "c.png", "c.wav"]
    a, rate = soundfile.read(out / "a.wav")
    assert rate == 22050 and len(a) == 40 * 256
    np.testing.assert_array_equal(a, soundfile.read(out / "b.wav")[0])  # transposed is the same mel


@pytest.mark.parametrize("name", VARIANTS)
def test_vocode_with_every_model(name, flowavenet, tmp_path):
    """What was built is saved, found again, and heard, with no word about which model it is."""
    model, config, hop = VARIANTS[name]
    settings = MelSettings(sample_rate=8000, n_fft=4 * hop, win_length=4 * hop, hop_length=hop, n_mels=4, f_max=4000.0)
    built = shake(build(model, config, 4, hop), 0.02)
    save_checkpoint(tmp_path / "model", built, settings)
    mel = np.random.default_rng(0).standard_normal((4, 20)).astype(np.float32)
    np.save(tmp_path / "mel.npy", mel)
    words = ["--checkpoint", tmp_path / "model", *(["--speaker", "1"] if config.get("speakers") else [])]
    code, _, complaint = flowavenet("vocode", tmp_path / "mel.npy", "-o", tmp_path, *words)
    assert code == 0, complaint
    made, rate = soundfile.read(tmp_path / "mel.wav")
    assert rate == 8000 and len(made) == 20 * hop and np.abs(made).max() > 1e-3
    loaded = Vocoder.from_pretrained(tmp_path / "model").model
    assert type(loaded) is type(built) and loaded.config == built.config
    for key, value in Vocoder(built, settings).model.state_dict().items():  # as that folds weight norm
        assert torch.equal(loaded.state_dict()[key], value), key


def test_vocode_a_folder(flowavenet, tiny, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    shutil.copy(CLIPS[0], tmp_path / "in" / "deep" / "x.flac")
    np.save(tmp_path / "in" / "y.npy", np.load(DATA / "tacotron2.npy")[..., :9])
    assert flowavenet("vocode", tmp_path / "in", "-o", tmp_path / "out", "--checkpoint", tiny)[0] == 0
    assert left(tmp_path / "out") == ["deep/x.wav", "y.wav"]


def nan_wave(path):
    soundfile.write(path, np.array([0.1, np.nan, 0.2] * 3000), 22050, subtype="FLOAT")


def cut_flac(path):
    path.write_bytes(CLIPS[0].read_bytes()[:20000])


BAD = {
    "nan.wav": (nan_wave, "finite"),
    "cut.flac": (cut_flac, "cut"),
    "text.wav": (lambda p: p.write_text("this is not audio " * 50), "text.wav"),
    "empty.wav": (lambda p: p.write_bytes(b""), "0 bytes"),
    "bands81.npy": (lambda p: np.save(p, np.zeros((81, 50), np.float32)), "80 bands"),
    "nan.npy": (lambda p: np.save(p, np.full((80, 50), np.nan, np.float32)), "not finite"),
    "flat.npy": (lambda p: np.save(p, np.zeros(800, np.float32)), "fewer than 2 dimensions"),
    "many.npy": (lambda p: np.save(p, np.zeros((3, 80, 50), np.float32)), "3 utterances"),
    "int.npy": (lambda p: np.save(p, np.zeros((80, 50), int)), "floating point"),
    "none.npy": (lambda p: np.save(p, np.zeros((80, 0), np.float32)), "0 frames"),
    "object.npy": (lambda p: np.save(p, np.array([{"a": 1}], dtype=object), allow_pickle=True), "object.npy"),
    "cut.npy": (lambda p: p.write_bytes((DATA / "tacotron2.npy").read_bytes()[:2000]), "not a whole"),
    "two.pt": (lambda p: torch.save({"a": torch.ones(80, 2), "b": torch.ones(80, 2)}, p), "2 tensors"),
    "code.pt": (lambda p: torch.save(Path("x"), p), "code.pt"),
    "bad.safetensors": (lambda p: p.write_bytes(b"12345678" * 9), "safetensors"),
    "mel.txt": (lambda p: p.write_text("80"), "not one of|mel.txt"),
}


@pytest.mark.parametrize("name", BAD)
def test_vocode_refuses_in_one_line_and_writes_nothing(flowavenet, tiny, tmp_path, name):
    spoil, message = BAD[name]
    spoil(tmp_path / name)
    code, _, said = flowavenet("vocode", tmp_path / name, "-o", tmp_path / "out", "--checkpoint", tiny)
    lines = [line for line in said.splitlines() if line.strip()]
    assert code == 2 and lines[0].startswith("error: ") and name in lines[0]
    assert any(part in lines[0] for part in message.split("|"))
    assert len(lines) == 2 and lines[1] == "1 of 1 files failed"
    assert left(tmp_path / "out") == []


def test_vocode_goes_on_past_a_bad_file(flowavenet, tiny, tmp_path):
    cut_flac(tmp_path / "a.flac")
    shutil.copy(CLIPS[0], tmp_path / "b.flac")
    code, said, errors = flowavenet("vocode", tmp_path, "-o", tmp_path / "out", "--checkpoint", tiny)
    assert code == 2 and left(tmp_path / "out") == ["b.wav"]
    assert said.startswith("1 file, ") and "a.flac" in errors and "1 of 2 files failed" in errors


def test_three_samples_and_stereo_48k_are_handled(flowavenet, tiny, tmp_path):
    soundfile.write(tmp_path / "three.wav", np.array([0.1, 0.2, 0.1]), 22050)
    soundfile.write(tmp_path / "stereo.wav", 0.1 * np.random.default_rng(0).standard_normal((48000, 2)), 48000)
    assert flowavenet("vocode", tmp_path, "-o", tmp_path / "out", "--checkpoint", tiny)[0] == 0
    assert soundfile.info(tmp_path / "out" / "three.wav").frames == 256
    assert soundfile.info(tmp_path / "out" / "stereo.wav").frames == 87 * 256


@pytest.mark.parametrize(
    "words, message",
    [
        (["vocode", "{tmp}", "-o", "{tmp}/out"], "there are no .wav .flac .ogg .mp3 .npy .pt .safetensors files"),
        (["vocode", "{clip}", "{clip}", "-o", "{tmp}/out"], "would overwrite"),
        (["vocode", "{clip}", "-o", "{tmp}/out", "--checkpoint", "nowhere"], "no such checkpoint folder"),
        (["score", "{tmp}"], "there are no .wav .flac .ogg .mp3 files"),
        (["score", "{clip}", "--dequantisation", "-1"], "at least 0"),
        (["prepare", "{tmp}", "{tmp}2"], "no audio"),
        (["prepare", "{tmp}/none", "{tmp}2"], "no such"),
    ],
)
def test_bad_commands_are_one_line(flowavenet, tmp_path, words, message):
    values = {"tmp": tmp_path, "clip": CLIPS[0]}
    code, _, said = flowavenet(*(word.format(**values) for word in words))
    assert code == 2 and message in said and len(said.strip().splitlines()) == 1
    assert left(tmp_path) == [] and not Path(f"{tmp_path}2").exists()


def test_score_prints_what_the_library_computes(flowavenet, tiny):
    from flowavenet import Vocoder, load_audio
    from flowavenet.losses import dequantise

    code, said, _ = flowavenet("score", CLIPS[0], CLIPS[1], "--checkpoint", tiny)
    rows = [line.split() for line in said.splitlines()[2:]]
    vocoder, wave = Vocoder.from_pretrained(tiny), load_audio(CLIPS[0], 22050)
    noisy = dequantise(wave, generator=torch.Generator().manual_seed(0))
    nats = vocoder.log_prob(noisy, vocoder.mel(wave)).item() / wave.shape[1]
    assert code == 0 and len(rows) == 2 and rows[0][3] == str(CLIPS[0])
    assert float(rows[0][0]) == pytest.approx(nats, abs=1e-4)
    assert float(rows[0][1]) == pytest.approx(15 - nats / np.log(2), abs=1e-3)


def test_tune_chooses_and_keeps_a_temperature(flowavenet, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "mine")
    weights = (tmp_path / "mine" / "model.safetensors").read_bytes()
    candidates = ["--temperature", "0.4", "--temperature", "0.9"]
    words = ["tune", CLIPS[0], "--checkpoint", tmp_path / "mine", *candidates, "--match", "1"]
    code, said, _ = flowavenet(*words)
    assert code == 0 and "0.40" in said and "0.90" in said and left(tmp_path / "mine") == left(tiny)
    assert "synthesis" not in (tmp_path / "mine" / "config.yaml").read_text()
    assert flowavenet(*words, "--write")[0] == 0
    kept = Vocoder.from_pretrained(tmp_path / "mine")
    assert kept.synthesis["match"] == 1 and f"best: temperature {kept.synthesis['temperature']:g}" in said
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == weights and "temperature" in (
        tmp_path / "mine" / "README.md").read_text()
    mel = kept.mel(torch.randn(1, 5000) / 100)
    assert torch.equal(kept(mel, seed=0), kept(mel, kept.synthesis["temperature"], 0, 1))


def test_prepare_checks_converts_and_reports(flowavenet, tmp_path):
    source, out = tmp_path / "source", tmp_path / "corpus"
    source.mkdir()
    for clip in CLIPS:
        shutil.copy(clip, source)
    nan_wave(source / "nan.wav")
    cut_flac(source / "cut.flac")
    soundfile.write(source / "three.wav", np.array([0.1, 0.2, 0.1]), 22050)
    code, said, errors = flowavenet("prepare", source, out, "--sample-rate", "16000")
    assert code == 2 and f"{len(CLIPS)} clips" in said and "3 of 7 files failed" in errors
    assert all(name in errors for name in ("nan.wav", "cut.flac", "three.wav"))
    assert left(out) == sorted([clip.name for clip in CLIPS] + ["manifest.csv"])
    assert {soundfile.info(out / clip.name).samplerate for clip in CLIPS} == {16000}


def test_help_lists_the_verbs(flowavenet):
    code, said, _ = flowavenet("--help")
    assert code == 0 and all(verb in said for verb in ("vocode", "fit", "prepare", "score"))


@pytest.mark.parametrize("own, then", [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_wait_politely_unless_told_otherwise(flowavenet, monkeypatch, own, then):
    monkeypatch.setattr(os, "environ", own)
    flowavenet("--help")
    assert own["GOMP_SPINCOUNT"] == then
