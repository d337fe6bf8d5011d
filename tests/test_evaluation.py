"""The metrics know what they should: identity, level, noise, and what the libraries themselves say."""

import math
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import CLIPS

from flowavenet import cli, load_audio, save_audio
from flowavenet.evaluation.artefacts import tonal_lines, tremble
from flowavenet.evaluation.folders import evaluate_folders, summary, table
from flowavenet.evaluation.metrics import METRICS, RESOLUTIONS, mr_stft_log_magnitude, score, spectral_convergence
from flowavenet.evaluation.tuning import CRITERIA, temperatures
from flowavenet.vocoder import Vocoder

RATE = 22050


@pytest.fixture(scope="module")
def clip():
    return load_audio(CLIPS[0], RATE)[0]


@pytest.fixture(scope="module")
def identity(clip):
    return score(clip, clip, RATE)


def test_a_recording_is_itself(identity):
    assert identity["pesq_wb"] > 4.5 and identity["stoi"] == pytest.approx(1)
    assert all(identity[name] == 0 for name in METRICS if name not in ("pesq_wb", "stoi"))


def test_level_and_a_last_hop_do_not_count(clip, identity):
    louder = torch.cat([1.9 * clip, torch.randn(200)])
    for name, value in score(clip, louder, RATE).items():
        assert value == pytest.approx(identity[name], abs=1e-3), name


def test_noise_is_worse_on_every_metric_the_more_there_is(clip):
    noise = clip.std() * torch.randn(len(clip), generator=torch.Generator().manual_seed(0))
    some, much = score(clip, clip + 0.03 * noise, RATE), score(clip, clip + noise, RATE)
    for name in CRITERIA:
        better = (some[name] > much[name]) if name in ("pesq_wb", "stoi") else (some[name] < much[name])
        assert better, name
    assert score(clip, noise, RATE)["stoi"] < 0.5


def test_pesq_and_stoi_are_the_libraries(clip):
    pesq, pystoi, librosa = (pytest.importorskip(name) for name in ("pesq", "pystoi", "librosa"))
    other = clip + 0.01 * torch.randn(len(clip), generator=torch.Generator().manual_seed(0))
    other = other * (clip.square().mean() / other.square().mean()).sqrt()
    found = score(clip, other, RATE)
    a, b = (librosa.resample(x.double().numpy(), orig_sr=RATE, target_sr=16000, res_type="soxr_hq") for x in (clip, other))
    assert found["pesq_wb"] == pytest.approx(pesq.pesq(16000, a, b, "wb"), abs=0.01)
    assert found["stoi"] == pytest.approx(pystoi.stoi(clip.numpy(), other.numpy(), RATE), abs=1e-4)


def test_stft_distances_are_their_formulas():
    rng = np.random.default_rng(0)
    a, b = 0.1 * rng.standard_normal((2, 6000))
    logs, convergences = [], []
    for n_fft, hop, win in RESOLUTIONS:
        window = np.zeros(n_fft)
        start = (n_fft - win) // 2
        window[start : start + win] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win) / win)

        def magnitudes(x, n_fft=n_fft, hop=hop, window=window):
            x = np.pad(x, n_fft // 2)
            frames = [x[i : i + n_fft] * window for i in range(0, len(x) - n_fft + 1, hop)]
            return np.abs(np.fft.rfft(frames))

        ma, mb = magnitudes(a), magnitudes(b)
        logs.append(np.abs(np.log(np.maximum(ma, 3e-4)) - np.log(np.maximum(mb, 3e-4))).mean())
        convergences.append(np.linalg.norm(ma - mb) / np.linalg.norm(ma))
    pair = torch.from_numpy(a), torch.from_numpy(b)
    assert mr_stft_log_magnitude(*pair, RATE) == pytest.approx(np.mean(logs), rel=1e-6)
    assert spectral_convergence(*pair, RATE) == pytest.approx(np.mean(convergences), rel=1e-6)


@pytest.mark.parametrize("period", [128, 256, 512])
def test_what_repeats_every_hop_shows_as_lines(clip, period):
    ticks = torch.zeros_like(clip)
    ticks[::period] = 0.1 * clip.std()
    assert tonal_lines(clip, clip + ticks, RATE) > 1
    uneven = torch.zeros_like(clip)                                    # as many ticks, as loud, but they do not repeat
    uneven[torch.randperm(len(clip))[: len(clip) // period]] = 0.1 * clip.std()
    assert abs(tonal_lines(clip, clip + uneven, RATE)) < 0.5


def test_a_trembling_voice_shows(clip):
    t = torch.arange(len(clip)) / RATE
    some, much = (tremble(clip, clip * (1 + depth * torch.sin(2 * torch.pi * 30 * t)), RATE) for depth in (0.1, 0.4))
    assert 0 < some < much and much > 0.5
    assert abs(tremble(clip, clip * (1 + 0.4 * torch.sin(2 * torch.pi * t)), RATE)) < 0.1  # loudness may change slowly


def test_temperatures_are_ranked_by_all_criteria(tiny, clip):
    vocoder = Vocoder.from_pretrained(tiny)
    rows = temperatures(vocoder, [clip[None, :22016], clip[None, 22016:44032]], [0.0, 0.5, 5.0], match=0)
    made = vocoder(vocoder.mel(clip[None, :22016]), 0.5, seed=0, match=0)[0]
    other = vocoder(vocoder.mel(clip[None, 22016:44032]), 0.5, seed=0, match=0)[0]
    a, b = score(clip[:22016], made, RATE), score(clip[22016:44032], other, RATE)
    assert rows[1]["log_mel_l1"] == pytest.approx((a["log_mel_l1"] + b["log_mel_l1"]) / 2)
    assert all(1 <= row["rank"] <= 3 for row in rows) and len({row["rank"] for row in rows}) > 1


def test_silence_does_not_break_it(clip):
    zeros = torch.zeros(len(clip))
    for pair in ((clip, zeros), (zeros, clip), (zeros, zeros)):
        assert set(score(*pair, RATE)) == set(METRICS)


def test_a_missing_library_is_a_blank(clip, monkeypatch):
    for name in ("pesq", "pystoi"):
        monkeypatch.setitem(sys.modules, name, None)
    found = score(clip, clip, RATE)
    assert all(math.isnan(found[name]) for name in ("pesq_wb", "stoi")) and found["log_mel_l1"] == 0


@pytest.fixture
def folders(tmp_path, clip):
    for name in ("recorded", "same", "noisy"):
        (tmp_path / name).mkdir()
    for path in CLIPS[:2]:
        wave = load_audio(path, RATE)
        shutil.copy(path, tmp_path / "recorded")
        save_audio(tmp_path / "same" / f"{path.stem}.wav", wave, RATE)
        save_audio(tmp_path / "noisy" / f"{path.stem}.wav", wave + 0.02 * torch.randn_like(wave), RATE)
    save_audio(tmp_path / "noisy" / "another.wav", clip, RATE)
    return tmp_path


def test_folders_are_paired_by_name_and_summed_up(folders):
    rows = evaluate_folders(folders / "recorded", [folders / "same", folders / "noisy"])
    assert len(rows) == 4 and {row["file"] for row in rows} == {path.stem for path in CLIPS[:2]}
    same, noisy = summary(rows)
    assert same["files"] == 2 and same["log_mel_l1"] < 1e-3 < noisy["log_mel_l1"]
    text = table([same, noisy | {"stoi": math.nan}]).splitlines()
    assert len(text) == 3 and len({len(line) for line in text}) == 1 and " -" in text[2]


def test_verb_writes_json_and_names_what_does_not_match(folders, monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["flowavenet", "evaluate", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr()

    out = folders / "scores.json"
    code, said = run(folders / "recorded", folders / "same", "-o", out)
    assert code == 0 and "mr_stft_log_magnitude" in said.out and out.exists()
    (folders / "strangers").mkdir()
    shutil.copy(folders / "noisy" / "another.wav", folders / "strangers")
    code, said = run(folders / "recorded", folders / "strangers")
    assert code == 2 and "none of its 1 audio files" in said.err and len(said.err.strip().splitlines()) == 1
