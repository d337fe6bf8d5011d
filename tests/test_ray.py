"""Vocoding by several processes: the same bytes as by one, whoever is killed on the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flowavenet import Vocoder
from flowavenet.rayvocoding import Actor, RayVocoding, ray_cluster
from flowavenet.vocoding import PORTION, Vocoding, portions

HOW = {"batch": 2, "match": 0, "convention": "hifigan"}


@pytest.fixture(scope="module")
def vocoder(tiny):
    return Vocoder.from_pretrained(tiny)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """20 mels of about 3 s, one of them bad."""
    inside, random = tmp_path_factory.mktemp("mels"), np.random.default_rng(0)
    for number in range(20):
        np.save(inside / f"{number:02}.npy", random.normal(-5, 1, (80, 250 + number % 7)).astype(np.float32))
    np.save(inside / "12.npy", np.full((80, 255), np.nan, np.float32))
    return inside


def processes():
    """The actors of this machine that this process has started, through Ray."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.joinpath("cmdline").read_bytes().startswith(b"ray::MapWorker") and str(os.getpid()) in ancestry(path):
                found.append(int(path.name))
        except OSError:
            pass
    return found


def ancestry(path):
    while path.name not in ("0", "1"):
        path = path.with_name(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
        yield path.name


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_actors_or_not_the_bytes_are_those_of_one_process(vocoder, tiny, folder, tmp_path, monkeypatch, one_thread):
    pytest.importorskip("ray", reason="needs pip install '.[ray]'")
    monkeypatch.setattr("flowavenet.vocoding.PORTION", 5.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    files, plain, out, killed = sorted(folder.iterdir()), tmp_path / "plain", tmp_path / "out", []
    for one in (plain, out):
        one.mkdir()
    alone = Vocoding(vocoder, plain, **HOW)
    alone.run(files)

    def kill():
        while not (done := [path for path in out.glob("[!.]*") if path.name != "00.wav"]):
            time.sleep(0.005)
        victim = processes()[0]
        os.kill(victim, signal.SIGKILL)
        killed.append((victim, len(done)))

    (out / "00.wav").write_bytes((plain / "00.wav").read_bytes())      # as if a run had been killed before
    os.utime(out / "00.wav", (2e9, 2e9))
    threading.Thread(target=kill, daemon=True).start()
    work = Vocoding(vocoder, out, **HOW, skip=True)
    RayVocoding(work, str(tiny), actors=2).run(files)
    assert killed and killed[0][1] < 15, "was too late to kill anything"
    assert work.failed == alone.failed and list(work.failed) == [folder / "12.npy"]
    assert work.notes.keys() == alone.notes.keys() and work.skipped == 1 and 0 < work.made <= work.total
    assert {path.name: path.read_bytes() for path in out.glob("[!.]*")} == {
        path.name: path.read_bytes() for path in plain.iterdir()
    }
    assert os.stat(out / "00.wav").st_mtime == 2e9 and not processes()


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_an_actor_forms_the_groups_that_were_meant(vocoder, folder, tmp_path, batch):
    files = sorted(folder.iterdir())
    groups = Vocoding(vocoder, tmp_path, batch, convention="hifigan").groups(files)
    tasks = list(portions(groups, vocoder))
    again = [Vocoding(vocoder, tmp_path, batch, convention="hifigan").groups([one.path for one in task]) for task in tasks]
    assert [[one.path for one in group] for some in again for group in some] == [
        [one.path for one in group] for group in groups
    ]
    frames = PORTION * 22050 / 256
    assert len(tasks) > 1 and all(sum(source.frames for source in task) >= frames for task in tasks[:-1])


def test_a_task_that_kills_every_process_is_given_up(vocoder, tmp_path):
    actor, file = SimpleNamespace(vocoder=vocoder, kind=Vocoding, how={"out": tmp_path}), tmp_path / "a.npy"
    (tmp_path / "tries").write_bytes(b"...")
    result = Actor._result(actor, [file], tmp_path / "tries")
    assert list(result["failed"]) == [file] and "3 processes died" in result["failed"][file]


LOSES = """
import ray, subprocess, sys, time
from ray._private.node import Node
from types import SimpleNamespace
from flowavenet.rayvocoding import _watched

node = Node.__new__(Node)
node.all_processes, node.head = {}, True
for kind in sys.argv[2:]:
    process = subprocess.Popen(["true"] if kind == sys.argv[2] else ["sleep", "9"], stderr=subprocess.DEVNULL)
    node.all_processes[kind] = [SimpleNamespace(process=process, use_valgrind=False, use_valgrind_profiler=False,
                                                use_perftools_profiler=False, use_gdb=False)]
ray._private.worker._global_node = node
ray.shutdown = lambda: None
with _watched(ray, sys.argv[1]):
    time.sleep(1 if sys.argv[2] == "log_monitor" else 60)
ray._private.worker._global_node = None
"""


@pytest.mark.parametrize("lost, code", [("raylet", 2), ("log_monitor", 0)])
def test_loss_of_ray_itself_is_one_line(lost, code, tmp_path):
    """With Ray's own book of its processes."""
    pytest.importorskip("ray", reason="needs pip install '.[ray]'")
    (tmp_path / "session").mkdir()
    command = [sys.executable, "-c", LOSES, tmp_path / "session", lost, *{"raylet", "gcs_server"} - {lost}]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (code, f"error: ray lost its {lost}; go on with --skip-existing\n" * (code == 2))
    assert (tmp_path / "session").exists() == (code == 0)


def test_ray_that_does_not_start_is_one_line(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs pip install '.[ray]'")

    def fails(**_):
        raise RuntimeError("Timed out waiting for file\nof its own")

    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(ValueError, match="ray did not start .Timed out waiting for file.*; try again"), ray_cluster(1):
        pass


@pytest.mark.parametrize(
    "words, said",
    [
        (("--engine", "dask"), "use one of plain, ray"),
        (("--actors", 2), "--actors 2 is for --engine ray"),
        (("--engine", "ray", "--actors", 10_000), "--actors is 10000, this machine has"),
    ],
)
def test_what_cannot_be_is_one_line(tiny, folder, tmp_path, flowavenet, words, said):
    code, _, errors = flowavenet("vocode", folder, "-o", tmp_path, "--checkpoint", tiny, *words)
    assert code == 2 and said in errors and errors.count("\n") == 1


def test_without_ray_it_says_what_to_install(tiny, folder, tmp_path, flowavenet, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, errors = flowavenet("vocode", folder, "-o", tmp_path, "--checkpoint", tiny, "--engine", "ray",
                                 "--mel-convention", "hifigan")
    assert code == 2 and "pip install 'flowavenet[ray]'" in errors and errors.count("\n") == 1


def test_plain_vocoding_needs_no_ray(tiny, folder, tmp_path, flowavenet, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ("--checkpoint", tiny, "--mel-convention", "hifigan", "--match", 0)
    code, _, _ = flowavenet("vocode", folder / "00.npy", "-o", tmp_path, *words)
    assert code == 0 and (tmp_path / "00.wav").is_file()
