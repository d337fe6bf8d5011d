"""Vocoding by several processes: the same bytes as by one, whoever is killed on the way."""

import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from flowavenet import Vocoder
from flowavenet.batch import Job, find_files, vocode_files
from flowavenet.batch.ray import Actor, RayEngine, started


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


def job(out):
    return Job(str(out), 2, convention="hifigan", how={"match": 0})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_actors_or_not_the_bytes_are_those_of_one_process(vocoder, tiny, folder, tmp_path, monkeypatch, one_thread):
    pytest.importorskip("ray", reason="needs pip install '.[ray]'")
    monkeypatch.setattr("flowavenet.batch.plan.SMALL", 150_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    files, plain, out, killed, told = find_files([folder], (".npy",)), tmp_path / "plain", tmp_path / "out", [], []
    alone = vocode_files(files, vocoder, job(plain))

    def kill():
        while not (done := [path for path in out.glob("[!.]*") if path.name != "00.wav"]):
            time.sleep(0.005)
        victim = processes()[0]
        os.kill(victim, signal.SIGKILL)
        killed.append((victim, len(done)))

    out.mkdir()
    (out / "00.wav").write_bytes((plain / "00.wav").read_bytes())      # as if a run had been killed before
    os.utime(out / "00.wav", (2e9, 2e9))
    threading.Thread(target=kill, daemon=True).start()
    report = vocode_files(files, vocoder, job(out), True, RayEngine(str(tiny), actors=2), lambda *one: told.append(one))
    assert killed and killed[0][1] < 15, "was too late to kill anything"
    assert report.failed == alone.failed and [file.name for file in report.failed] == ["12"]
    assert report.skipped == 1 and 0 < report.frames <= alone.frames and told[-1] == (20, 20)
    assert {path.name: path.read_bytes() for path in out.glob("[!.]*")} == {
        path.name: path.read_bytes() for path in plain.iterdir()
    }
    assert os.stat(out / "00.wav").st_mtime == 2e9 and not processes()


class Deadly(Actor):
    """Dies of a portion that has the file of a name."""

    def __call__(self, row):
        if any(file.name == "03" for file in pickle.loads(row["files"])):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(row)


@pytest.mark.slow
def test_a_portion_that_kills_every_process_is_given_up(vocoder, tiny, folder, tmp_path, monkeypatch, one_thread):
    pytest.importorskip("ray", reason="needs pip install '.[ray]'")
    monkeypatch.setattr("flowavenet.batch.plan.SMALL", 150_000)
    monkeypatch.setattr("flowavenet.batch.ray.Actor", Deadly)
    files = find_files([folder], (".npy",))[:6]
    report = vocode_files(files, vocoder, job(tmp_path), engine=RayEngine(str(tiny), actors=1))
    gone = {file.name for file, line in report.failed.items() if "3 processes died over it" in line}
    assert "03" in gone and len(gone) == 2
    assert {path.stem for path in tmp_path.glob("*.wav")} == {file.name for file in files} - gone


def test_an_actor_tells_that_a_place_cannot_be_written_to(tiny, folder, tmp_path):
    actor = Actor(job(tmp_path / "gone"), {}, str(tiny), "float32", torch.get_num_threads())
    row = actor({"number": 3, "files": pickle.dumps(find_files([folder / "01.npy"], (".npy",)))})
    assert row["number"] == 3 and "gone: no such folder" in pickle.loads(row["result"])


def test_ray_that_does_not_start_is_one_line(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs pip install '.[ray]'")

    def fails(**_):
        raise RuntimeError("Timed out waiting for file\nof its own")

    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(ValueError, match="ray did not start .Timed out waiting for file.*; try again"), started(1):
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
