"""Whatever is killed goes on; and the campaign that says so notices what does not."""

import os
import signal
import sys
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from campaigns import kills
from campaigns.killing import CONTEXT, Course, contents, files, unequal

from flowavenet.batch import find_files
from flowavenet.files import end_with_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return kills.make_inputs(tmp_path_factory.mktemp("kills") / "inputs", clips=6)


@pytest.fixture
def course(inputs, tmp_path, monkeypatch):
    """Begin a trial, by its name."""
    monkeypatch.setattr(kills, "STEPS", 7)

    def begin(name, **changes):
        trial = next(trial for trial in kills.trials(inputs) if trial.name == name)
        (tmp_path / "tmp").mkdir()
        return Course(replace(trial, **changes), tmp_path / "course", tmp_path / "tmp", inputs)

    return begin


@pytest.mark.parametrize("name, times", [("fit, lapflow", 1), ("prepare --shards", 2), ("convert", 2)])
def test_what_is_killed_goes_on_to_the_undisturbed_result(course, name, times):
    killed = course(name)
    killed.run(times)
    row = killed.row()
    assert killed.broken == [] and row["kills"] == times and row["left"] == "nothing"
    assert killed.ended == killed.runs and len(killed.whole) > 2


def test_what_is_done_again_or_otherwise_is_noticed(course):
    """As if --skip-existing did nothing, and results were not the same twice."""
    killed = course("vocode --engine plain", again=("--seed", "1"))
    killed.trial.words.remove("--skip-existing")

    def disturb(verb, kills):                                          # once, as soon as there is a result
        while not killed.killed["group"] and not verb.ended(0.005):
            if files(killed.folder / "run0" / "out"):
                verb.kill(group=True)
                killed.killed["group"] += 1
                return None
        return verb.finish()

    killed.disturb = disturb
    killed.run(1)
    assert any("is done again" in line for line in killed.broken) and killed.ended == 0
    assert any("in the end, 000.wav is not what" in line for line in killed.broken)


def test_what_is_not_whole_is_noticed(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"whole")
    whole = contents(tmp_path)
    assert unequal(contents(tmp_path), whole) == []
    (tmp_path / "a.wav").write_bytes(b"who")
    (tmp_path / "b.wav").write_bytes(b"of no run")
    assert [line.split()[0] for line in unequal(contents(tmp_path), whole)] == ["a.wav", "b.wav"]


def test_hidden_files_are_no_results_and_no_inputs(tmp_path):
    for name in ("a.npy", ".b.npy", ".unfinished/vm-1/c.npy", "d/e.wav", "d/.unfinished/vm-2/f.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert files(tmp_path).keys() == contents(tmp_path).keys() == {"a.npy", "d/e.wav"}
    assert [file.name for file in find_files([tmp_path], (".npy", ".wav"))] == ["a", "d/e"]


def wait_for_work(begun):
    end_with_parent()
    begun.write_text(str(os.getpid()))
    time.sleep(60)


def start_a_worker(begun):
    get_context("fork").Process(target=wait_for_work, args=(begun,)).start()
    time.sleep(60)


def test_a_worker_ends_with_the_process_that_started_it(tmp_path):
    begun, deadline = tmp_path / "begun.txt", time.monotonic() + 60
    parent = CONTEXT.Process(target=start_a_worker, args=(begun,))
    parent.start()
    while not (begun.exists() and begun.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(parent.pid, signal.SIGKILL)
    while Path("/proc", begun.read_text()).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
