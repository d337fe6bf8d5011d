"""Hostile files in small: what is valid is read, what once broke a promise is mended, a breach is noticed."""

import ast
import ctypes
import faulthandler
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from threading import Thread

import pytest
import torch
from campaigns import fuzz, trainingfiles, worker
from campaigns.grammars.drawing import GRAMMARS, structured
from campaigns.mutations import mutated
from campaigns.readers import READERS, Reader

from flowavenet.training.fit import fit

CASES = [(name, path) for name in READERS for path in worker.cases_of(name)]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", READERS)
def test_what_is_valid_is_read(name, tmp_path):
    reader = READERS[name]
    path = tmp_path / reader.file
    seeds = reader.seeds(tmp_path)
    path.write_bytes(seeds[0])
    reader.read(path)
    assert mutated(seeds, 3) == mutated(seeds, 3) and len({mutated(seeds, number) for number in range(50)}) > 30


@pytest.mark.parametrize("name", ["mel npy", "paired mel", "statistics npy", "shard"])
def test_threads_parse_one_head_at_a_time(name, tmp_path, monkeypatch):
    """Two at once are too much for Python 3.11, rarely: of a server's 6,627 requests four failed."""
    parse, inside, at_once, reader = ast.literal_eval, [], [], READERS[name]
    path = tmp_path / reader.file
    path.write_bytes(reader.seeds(tmp_path)[0])

    def watched(head):
        inside.append(head)
        at_once.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return parse(head)

    monkeypatch.setattr("ast.literal_eval", watched)
    with ThreadPoolExecutor(4) as threads:
        assert len([*threads.map(reader.read, [path] * 4)]) == 4
    assert len(at_once) >= 4 and max(at_once) == 1


@pytest.mark.parametrize("name, case", CASES, ids=[f"{name}: {path.name}" for name, path in CASES])
def test_what_broke_a_promise_is_mended(name, case, tmp_path):
    reader = READERS[name]
    path = tmp_path / reader.file
    reader.seeds(tmp_path)
    path.write_bytes(case.read_bytes())
    error = worker.with_error(lambda: reader.read(path))
    assert not error or not worker.badly_said(error, path)


def test_a_run_goes_on_from_an_address_as_from_a_path(monkeypatch, tmp_path):
    folder, evil = tmp_path / "served", tmp_path / "ran"
    folder.mkdir()
    torch.save({"state_dict": {}, "more": Evil(evil)}, folder / "evil.ckpt")
    (folder / "last.ckpt").write_bytes(trainingfiles.runs(tmp_path)[0])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "downloads"))
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        words = [trainingfiles.training(tmp_path, "--ckpt_path", f"{at}/{name}.ckpt") for name in ("last", "evil", "none")]
        assert fit(words[0]).global_step == 1
        with pytest.raises(ValueError, match="evil.ckpt: broken, or holds more than plain values and tensors"):
            fit(words[1])
        with pytest.raises(OSError, match="none.ckpt"):
            fit(words[2])
        server.shutdown()
    assert not evil.exists()


class Evil:
    """What a pickle would have Python run."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_cases_are_of_readers_and_small():
    files = [path for path in worker.CASES.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(path for _, path in CASES)
    assert sum(path.stat().st_size for path in files) < 60_000


def test_every_reader_has_a_grammar():
    assert GRAMMARS.keys() == READERS.keys()
    assert list(structured("address", [b"a/b"], 7, 9)) == list(structured("address", [b"a/b"], 7, 9))


@pytest.mark.parametrize("name, kind", [("convention", "guided"), ("shard", "structured")])
def test_a_small_share(name, kind, tmp_path):
    outcomes = list(fuzz.trial(name, kind, 40, tmp_path))
    row = fuzz.row(name, {kind: 40}, outcomes)
    assert len(outcomes) == 40 and row["broken"] == 0, [one.result for one in outcomes]
    assert row["read"] and row["refused"]


def test_through_the_command_line(tmp_path):
    outcomes = list(fuzz.through_the_command_line(1, tmp_path))
    assert {one.result for one in outcomes} <= {"read", "refused"}, outcomes


def hang(path):
    while True:
        pass


def fail(error):
    def read(path):
        raise error

    return read


BREACHES = {
    "a crash": (lambda path: ctypes.string_at(0), -signal.SIGSEGV),
    "an abort": (lambda path: os.abort(), -signal.SIGABRT),
    "a hang": (hang, -signal.SIGPROF),
    "memory": (lambda path: b"x" * (450 << 20), "took 4"),
    "more memory": (lambda path: bytearray(8 << 30), "raised MemoryError"),
    "a file": (lambda path: path.with_name("more").write_text("x"), "did open"),
    "a command": (lambda path: os.system("true"), "did os.system"),
    "a process": (lambda path: subprocess.run(["true"]), "did subprocess.Popen"),
    "another error": (fail(KeyError("a")), "raised KeyError"),
    "no name": (fail(ValueError("is bad")), "raised ValueError that names no file"),
    "a novel": (fail(ValueError("a.txt " * 1000)), "raised ValueError of 5999 characters"),
    "nothing": (fail(ValueError("a.txt: is bad")), "refused"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_noticed(name, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "CPU_SECONDS", 0.3 if name == "a hang" else 10)
    breach, wanted = BREACHES[name]
    reader = Reader(
        "a.txt", lambda folder: [b"valid"], lambda path: breach(path) if path.read_bytes() == b"hostile" else None
    )
    context = get_context("fork")                                      # so that torch need not be imported again
    there, here = context.Pipe()

    def hostile():
        faulthandler.disable()
        here.send(worker.Trial(reader, tmp_path / "home").read(b"hostile"))

    child = context.Process(target=hostile)
    child.start()
    child.join(60)
    found = there.recv().result if child.exitcode == 0 else child.exitcode
    assert found == wanted if isinstance(wanted, int) else found.startswith(wanted), found
