"""The benchmark times real synthesis: its figures belong together, and slow work shows."""

import json
import sys
import time

import pytest

from flowavenet import Vocoder, cli
from flowavenet.benchmark import benchmark


@pytest.fixture(scope="module")
def vocoder(tiny):
    return Vocoder.from_pretrained(tiny)


def test_figures_belong_together(vocoder):
    figures = benchmark(vocoder, seconds=0.5, repeats=3, batch=2)
    assert 0 < figures["rtf_min"] <= figures["rtf"] <= figures["rtf_max"]
    assert figures["khz"] == pytest.approx(22.05 / figures["rtf"])
    assert figures["seconds"] == pytest.approx(0.5, abs=0.01)
    assert figures["weights_m"] == pytest.approx(sum(w.numel() for w in vocoder.model.parameters()) / 1e6)
    assert figures["peak_rss_mb"] > 50


def test_slow_work_shows(vocoder, monkeypatch):
    render = vocoder.model.render
    monkeypatch.setattr(vocoder.model, "render", lambda *a: (time.sleep(0.25), render(*a))[1])
    assert benchmark(vocoder, seconds=0.5, repeats=1)["rtf"] > 0.5


@pytest.mark.parametrize("bad", [{"seconds": 0}, {"repeats": 0}, {"batch": 0}])
def test_nothing_to_measure_is_an_error(vocoder, bad):
    with pytest.raises(ValueError, match="must all be above 0"):
        benchmark(vocoder, **bad)


def test_verb_prints_and_writes_the_same_figures(tiny, tmp_path, monkeypatch, capsys):
    words = ["--checkpoint", str(tiny), "--seconds", "0.2", "--repeats", "1", "--json", str(tmp_path / "b.json")]
    monkeypatch.setattr(sys, "argv", ["flowavenet", "benchmark", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().out
    assert stop.value.code == 0
    for name in json.loads((tmp_path / "b.json").read_text()):
        assert name in said
