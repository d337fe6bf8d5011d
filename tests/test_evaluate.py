"""Folders of audio are compared file by file, past bad ones; the report is honest; the page plays, from disk alone."""

import csv
import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from conftest import CLIPS

from flowavenet import load_audio, save_audio
from flowavenet.evaluation.folders import judge, score_all, utterances
from flowavenet.evaluation.medians import FEWEST, by_system, differences, median
from flowavenet.evaluation.metrics import METRICS
from flowavenet.evaluation.report import Report
from flowavenet.plots import save_image

RATE = 22050
ODD = "50% a&b <i>#1?"
"""A file name that HTML and URLs must not take for something else."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Recordings; copies late, early, louder and at another rate; noisy ones, of which two are bad."""
    root = tmp_path_factory.mktemp("evaluate")
    for name in ("recorded", "late", "noisy & quiet"):
        (root / name).mkdir()
    for i, stem in enumerate(["lj", ODD, "short", "broken"]):
        wave = load_audio(CLIPS[i], RATE)[:, 5000:35000]
        save_audio(root / "recorded" / f"{stem}.flac", wave, RATE)
        noisy = 0.2 * (wave + 0.003 * torch.randn(wave.shape, generator=torch.Generator().manual_seed(i)))
        save_audio(root / "noisy & quiet" / f"{stem}.wav", noisy[:, : 2000 if stem == "short" else None], RATE)
    late = torch.cat([torch.zeros(1, 441), load_audio(root / "recorded" / "lj.flac", RATE)], dim=1)
    save_audio(root / "late" / "lj.wav", late, RATE)
    shutil.copy(root / "late" / "lj.wav", root / "late" / "a stranger.wav")
    save_audio(root / "late" / f"{ODD}.wav", load_audio(root / "recorded" / f"{ODD}.flac", 16000)[:, 800:], 16000)
    (root / "noisy & quiet" / "broken.wav").write_bytes(b"RIFF of a guitar")
    return root


@pytest.fixture(scope="module")
def evaluated(folders):
    """What the verb said, and the folder it wrote."""
    from typer.testing import CliRunner

    from flowavenet.cli import application

    out = folders / "out"
    words = ["evaluate", folders / "recorded", folders / "late", folders / "noisy & quiet", "-o", out]
    return CliRunner().invoke(application(), [str(word) for word in words]), out


# Pairs


def test_files_are_paired_by_name(folders):
    pairs = utterances(folders / "recorded", [folders / "late", folders / "noisy & quiet"])
    assert {pair.name: pair.files for pair in pairs} == {"lj": 3, ODD: 3, "short": 2, "broken": 2}
    for pair in pairs:
        assert list(pair.copies) == ["late", "noisy & quiet"]
        assert all(path.stem == pair.recording.stem == pair.name for path in pair.copies.values() if path)


def test_systems_of_one_name_go_by_their_paths(folders, tmp_path):
    shutil.copytree(folders / "late", tmp_path / "late")
    pair = utterances(folders / "recorded", [folders / "late", tmp_path / "late"])[0]
    assert list(pair.copies) == [str(folders / "late"), str(tmp_path / "late")]


def test_what_cannot_be_paired_is_refused(folders, tmp_path):
    for folder in (tmp_path / "strangers", tmp_path / "twice" / "deep"):
        folder.mkdir(parents=True)
        shutil.copy(folders / "late" / "a stranger.wav", folder)
    shutil.copy(folders / "late" / "a stranger.wav", tmp_path / "twice")
    with pytest.raises(ValueError, match="strangers: none of its 1 audio files has the name of one of the 4 in"):
        utterances(folders / "recorded", [tmp_path / "strangers"])
    with pytest.raises(ValueError, match="a stranger.wav: has the name of .*rename one"):
        utterances(folders / "recorded", [tmp_path / "twice"])
    with pytest.raises(ValueError, match="late: is given twice"):
        utterances(folders / "recorded", [folders / "late", folders / "late"])


# Scores of files


def test_lag_level_and_rate_are_undone_and_told(folders):
    pairs = {pair.name: pair for pair in utterances(folders / "recorded", [folders / "late", folders / "noisy & quiet"])}
    kept = {}
    (own, late, noisy), _ = judge(pairs["lj"], lambda name, waves, rate: kept.update({name: waves}))
    assert late["lag_ms"] == pytest.approx(20) and late["mr_stft_log_magnitude"] < 1e-6 and not late["note"]
    assert noisy["lag_ms"] == 0 and noisy["gain_db"] == pytest.approx(14, abs=0.5)
    assert own["system"] is None and own["file"] == "lj"
    for name, metric in METRICS.items():
        assert math.isnan(own[name]) if not metric.alone else own[name] == pytest.approx(late[name], rel=0.02, nan_ok=True)
    (_, early, _), _ = judge(pairs[ODD], lambda name, waves, rate: kept.update({name: waves}))
    assert early["lag_ms"] == pytest.approx(-50, abs=0.1) and early["note"] == "resampled from 16000 to 22050 Hz"
    assert early["seconds"] == pytest.approx(30000 / RATE - 0.05, abs=0.001)
    torch.testing.assert_close(kept["lj"]["late"], kept["lj"][None])   # both on the recording's time axis
    copy, recording = kept[ODD]["late"], kept[ODD][None]
    assert not copy[:1100].any() and (copy - recording[: len(copy)])[2000:].std() < 0.2 * copy.std()


def test_workers_change_nothing(folders):
    pairs = utterances(folders / "recorded", [folders / "late"])
    one, two = (score_all(pairs[:1], workers) for workers in (1, 2))   # one pair: a worker takes seconds to start
    assert repr(one) == repr(two)                                      # NaN is not NaN


# Medians


def test_the_interval_holds_the_true_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = [m.low <= 0 <= m.high for m in (median(rng.standard_normal(25)) for _ in range(300))]
    assert 0.91 < np.mean(held) <= 0.99
    values = list(rng.standard_normal(40))
    assert median(values) == median(values) and median(values).low < median(values).median < median(values).high


def test_too_few_files_have_no_interval():
    assert math.isnan(median([1.0] * (FEWEST - 1)).low) and median([1.0] * FEWEST)[:3] == (1, 1, 1)
    assert math.isnan(median([]).median) and median([math.nan, 2.0]).files == 1


def test_paired_differences_see_what_medians_cannot():
    """A system that is 0.1 worse on every file, of files that differ by far more."""
    files = 3 * np.random.default_rng(0).standard_normal(20)
    rows = [
        {"system": system, "file": str(i), **dict.fromkeys(METRICS, value + worse)}
        for system, worse in (("a", 0.0), ("b", 0.1)) for i, value in enumerate(files)
    ]
    a, b = (medians["pesq_wb"] for medians in by_system(rows).values())
    assert a.low < b.median < a.high
    found = differences(rows)["a", "b"]["pesq_wb"]
    assert found.differs and found.median == pytest.approx(0.1) and found.files == 20
    assert not differences(rows[:25])["a", "b"]["pesq_wb"].differs      # 5 in common are too few
    assert "+0.10 [+0.10, +0.10]*" in Report([{"lag_ms": 0.0, "gain_db": 0.0} | row for row in rows]).text()


# The verb


def test_the_batch_goes_on_past_bad_files(evaluated):
    result, out = evaluated
    assert result.exit_code == 2 and "2 of 10 files failed" in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "broken.wav: not an audio file" in errors[0]
    assert "short.wav: 0.09 s in common with its recording, less than the 0.3 s" in errors[1]
    assert "aligned by the best lag within 100 ms" in result.stdout and "lag undone, ms" in result.stdout
    lines = result.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[2 : 2 + len(METRICS)]] == [metric.title for metric in METRICS.values()]


def test_all_figures_are_in_the_files(evaluated):
    _, out = evaluated
    with (out / "scores.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    content = json.loads((out / "scores.json").read_text())
    assert [(row["system"], row["file"]) for row in table] == [
        ("late", ODD), ("late", "lj"), ("noisy & quiet", ODD), ("noisy & quiet", "lj")
    ]
    for row, same in zip(table, content["files"], strict=True):
        for name in METRICS:
            assert same[name] is None if row[name] == "" else float(row[name]) == same[name]
    assert content["systems"]["late"]["stoi"]["files"] == 2 and len(content["failed"]) == 2
    (pair,) = content["differences"]
    assert (pair["first"], pair["second"]) == ("late", "noisy & quiet") and pair["second_less_first"]["stoi"]["median"] < 0


def test_out_is_a_folder(folders, flowavenet):
    code, _, error = flowavenet("evaluate", folders / "recorded", folders / "late", "-o", folders / "scores.json")
    assert code == 2 and "-o is a folder" in error and len(error.splitlines()) == 1


# The page


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(evaluated):
    pytest.importorskip("matplotlib")
    return Page(evaluated[1] / "index.html")


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(page, evaluated):
    out = evaluated[1]
    assert not page.open and "<!--" not in page.text
    links = [values[key] for _, values in page.tags for key in ("src", "href") if key in values]
    assert all((out / unquote(link)).is_file() and ":" not in link for link in links)
    text = (out / "index.html").read_text(encoding="utf-8")
    assert "http:" not in text and "https:" not in text and "@import" not in text


def test_there_is_a_player_and_a_picture_for_every_file(page, evaluated):
    out = evaluated[1]
    for tag, kind in (("audio", "audio"), ("img", "spectrograms")):
        shown = [unquote(values["src"]) for name, values in page.tags if name == tag]
        kept = [path.relative_to(out).as_posix() for path in (out / kind).rglob("*") if path.is_file()]
        assert sorted(shown) == sorted(kept) and len(shown) == 6       # two recordings, with two copies each


def test_the_page_shows_names_as_they_are(page):
    assert ODD in page.text and "noisy & quiet" in page.text and "resampled from 16000 to 22050 Hz" in page.text
    assert "broken.wav: not an audio file" in page.text


def test_what_plays_is_level_matched_and_never_clipped(evaluated):
    _, out = evaluated
    for name in ("lj", ODD):
        waves = [load_audio(path, RATE) for path in sorted(out.glob(f"audio/*/{name}.flac"))]
        assert len(waves) == 3 and max(float(wave.abs().max()) for wave in waves) <= 1
        levels = [float(wave.std()) for wave in waves]
        assert max(levels) == pytest.approx(min(levels), rel=0.05)


def test_without_matplotlib_there_are_no_pictures_but_a_hint(folders, tmp_path, monkeypatch, flowavenet):
    monkeypatch.setattr("flowavenet.evaluation.page.find_spec", lambda name: None)
    code, said, _ = flowavenet("evaluate", folders / "recorded", folders / "late", "-o", tmp_path / "out")
    assert code == 0 and "matplotlib is not installed; pip install" in said
    assert not any(tag == "img" for tag, _ in Page(tmp_path / "out" / "index.html").tags)


def test_a_picture_has_a_pixel_for_each_level(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    save_image(tmp_path / "a.png", torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]), 0.0, 2.0)
    pixels = image.imread(tmp_path / "a.png")
    assert pixels.shape[:2] == (2, 3)
    assert (pixels[1, 2] == pixels[0, 0]).all() and pixels[0, 0].sum() > pixels[0, 2].sum()  # the first row is at the bottom


def test_players_load_play_and_switch_at_the_same_moment(evaluated):
    """In a browser, from file://."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("needs chromium")
    flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--mute-audio"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=flags)
        tab = chromium.new_page()
        trouble = []
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        aborted = "net::ERR_ABORTED"                                   # a player has read enough for now
        tab.on("requestfailed", lambda request: trouble.append(request.url) if request.failure != aborted else None)
        tab.goto((Path(evaluated[1]) / "index.html").as_uri())
        loaded = "Promise.all([...document.querySelectorAll('audio')].map(a => new Promise((done, failed) => {"
        loaded += "a.onloadedmetadata = () => done(a.duration); a.onerror = failed; a.preload = 'metadata'; a.load(); })))"
        assert min(tab.evaluate(loaded)) > 1
        tab.keyboard.press(" ")
        tab.wait_for_function("document.querySelector('audio').currentTime > 0.3")
        tab.keyboard.press("2")
        tab.wait_for_function("document.querySelectorAll('audio')[2].currentTime > 0.3")
        state = "[...document.querySelectorAll('.current audio')].map(a => [a.paused, a.currentTime])"
        first, _, second = tab.evaluate(state)
        assert first[0] and not second[0] and abs(second[1] - first[1]) < 0.5
        tab.keyboard.press(" ")
        assert tab.evaluate("[...document.querySelectorAll('audio')].every(a => a.paused)")
        chromium.close()
    assert not trouble
