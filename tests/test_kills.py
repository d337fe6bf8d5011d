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
from campaigns.killing import CONTEXT, Course, contents, files

from flowavenet.batch import end_with_parent, find_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return kills.make_inputs(tmp_path_factory.mktemp("kills") / "inputs", clips=8)


@pytest.fixture
def course(inputs, tmp_path, monkeypatch):
    """Begin a trial, by its name."""
    monkeypatch.setattr(kills, "STEPS", 12)

    def begin(name, **changes):
        trial = next(trial for trial in kills.trials(inputs) if trial.name == name)
        (tmp_path / "tmp").mkdir()
        return Course(replace(trial, **changes), tmp_path / "course", tmp_path / "tmp", inputs)

    return begin


@pytest.mark.parametrize(
    "name, times", [("fit, lapflow", 1), ("prepare --shards", 3), ("vocode --engine plain", 2), ("convert", 2)]
)
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
    killed.seconds *= 2                                                # all kills come late, when there are results
    killed.random.uniform = lambda low, high: 0.45 * high
    while not any("is done again" in line for line in killed.broken):
        killed.run(sum(killed.killed.values()) + 1)
    assert any("in the end, 000.wav is not what" in line for line in killed.broken)


def test_what_is_not_whole_is_noticed(course, inputs):
    killed = course("convert")
    (killed.folder / "whole" / "out" / "model.safetensors").write_bytes(b"half")
    assert killed.trial.wrong(killed.folder / "whole" / "out", killed.whole) == [
        "model.safetensors is not what an undisturbed run writes"
    ]


def test_hidden_files_are_no_results_and_no_inputs(tmp_path):
    for name in ("a.npy", ".b.npy", ".unfinished/vm-1/c.npy", "d/e.wav", "d/.unfinished/vm-2/f.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert files(tmp_path).keys() == contents(tmp_path).keys() == {"a.npy", "d/e.wav"}
    assert find_files([tmp_path], (".npy",)) == [tmp_path / "a.npy", tmp_path / "d" / "e.wav"]


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
