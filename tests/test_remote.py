"""What is elsewhere becomes what it would here: the same bytes, one listing, nothing half written, nothing done twice."""

import functools
import http.server
import os
import pickle
import re
import sys
import threading
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import soundfile

from flowavenet import Vocoder, remote
from flowavenet.files import Unwritable
from flowavenet.rayvocoding import Actor, RayVocoding, _how
from flowavenet.remote import RemoteFile, fetch, find_remote, list_remote, put
from flowavenet.remotevocoding import RemoteVocoding
from flowavenet.vocoding import Vocoding, portions

SUFFIXES = (".npy", ".wav")
HOW = {"match": 0, "convention": "hifigan"}


@pytest.fixture(scope="module")
def vocoder(tiny):
    return Vocoder.from_pretrained(tiny)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Mels of 5 to 8 frames in two folders, one bad; and a recording."""
    inside = tmp_path_factory.mktemp("in")
    (inside / "more").mkdir()
    for number in range(12):
        mel = np.random.default_rng(number).normal(-5, 1, (80, 5 + number % 4)).astype(np.float32)
        np.save(inside / ("more" if number % 3 == 0 else "") / f"{number:02}.npy", mel)
    np.save(inside / "04.npy", np.full((80, 5), np.nan, np.float32))
    soundfile.write(inside / "r.wav", 0.1 * np.random.default_rng(0).standard_normal(9 * 256 - 3), 22050)
    return inside


@pytest.fixture(scope="module", params=[1, 2])
def here(request, vocoder, folder, tmp_path_factory):
    """What becomes of the folder without a way to go: the batch, the work, and the results."""
    out = tmp_path_factory.mktemp("here")
    work = Vocoding(vocoder, out, request.param, **HOW)
    work.run([folder / file.path for file in list_remote(str(folder))])
    return request.param, work, contents(out)


@pytest.fixture
def memory():
    """A store in memory, empty, whose calls are counted."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    store.store.clear()


@pytest.fixture
def hasty(monkeypatch):
    """Nothing waits before it tries again."""
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)


@pytest.fixture
def small(monkeypatch):
    """Portions of about 12 frames."""
    monkeypatch.setattr("flowavenet.vocoding.PORTION", 0.14)


@pytest.fixture(scope="module")
def web(folder):
    """The folder, on a server of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def contents(folder):
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


def in_memory(store, folder):
    return {name.rpartition("/")[2]: store.cat_file(name) for name in store.find(folder)}


def run(vocoder, inputs, out, batch=1, **options):
    work = RemoteVocoding(vocoder, out, batch, **{**HOW, **options})
    work.run(find_remote(inputs, SUFFIXES))
    return work


def calls(monkeypatch, store, name):
    """Counts the calls of a store's method."""
    seen, real = [], getattr(type(store), name)
    monkeypatch.setattr(type(store), name, lambda self, *rest, **options: seen.append(rest) or real(self, *rest, **options))
    return seen


def by_name(lines, folder):
    return {str(file).rpartition("/")[2]: line.replace(str(folder), "") for file, line in lines.items()}


# The same as here


@pytest.mark.parametrize("protocol", ["memory", "file", "path", "http"])
def test_what_is_elsewhere_becomes_what_it_would_here(vocoder, folder, here, memory, web, small, tmp_path, protocol):
    batch, work, results = here
    source = {"memory": "memory://mels", "file": f"file://{folder}", "path": str(folder), "http": web}[protocol]
    if protocol == "memory":
        memory.put(f"{folder}/", "/mels", recursive=True)
    sources = [source]
    if protocol == "http" and batch > 1:                               # whose listings tell no sizes
        sources = [f"{web}/{file.path}" for file in list_remote(str(folder))]
    out = f"file://{tmp_path}/out" if protocol == "file" else "memory://out/wavs"
    told = []
    made = run(vocoder, sources, out, batch, progress=lambda done, total: told.append((done, total)))
    there = contents(tmp_path / "out") if protocol == "file" else in_memory(memory, "/out")
    assert there == results and len(results) == 12
    assert by_name(made.failed, source) == by_name(work.failed, folder) and len(work.failed) == 1
    assert by_name(made.notes, source) == by_name(work.notes, folder) and len(work.notes) == 13
    assert made.made == work.made and len(told) > 2 and told[-1][0] == told[-1][1] == made.total


def test_mels_are_recognised_by_the_company_they_had(vocoder, folder, memory, tmp_path):
    files = sorted(folder.glob("*.npy"))[:3]
    for file in files:
        memory.put(str(file), f"/mels/{file.name}")
    here = Vocoding(vocoder, tmp_path, match=0)
    here.run(files)
    work = run(vocoder, ["memory://mels"], "memory://out", convention=None)
    assert in_memory(memory, "/out") == contents(tmp_path) and len(files) == 3
    assert by_name(work.notes, "memory://mels") == by_name(here.notes, folder)
    ((folder, suffix), found), = work.together.items()
    assert (folder, suffix) == ("memory://mels", ".npy") and found == here.together[files[0].parent, suffix]


def test_an_actor_does_with_a_task_what_one_process_does(vocoder, folder, here, small, tmp_path):
    batch, work, results = here
    meant = RemoteVocoding(vocoder, f"file://{tmp_path}/out", batch, **HOW)
    tasks = list(portions(meant.groups(find_remote([f"file://{folder}"], SUFFIXES)), vocoder))
    actor = SimpleNamespace(vocoder=vocoder, kind=RemoteVocoding, how=_how(meant))
    sent = [pickle.loads(pickle.dumps([one.path for one in task])) for task in tasks]
    done = [Actor._result(actor, files, tmp_path / str(number)) for number, files in enumerate(sent)]
    assert len(tasks) > 3 and contents(tmp_path / "out") == results
    assert sum(one["made"] for one in done) == work.made
    assert [file.name for one in done for file in one["failed"]] == ["04.npy"]


def test_files_have_the_names_and_the_order_of_paths(folder, tmp_path):
    for name in ("b-c/x.npy", "b/x.wav", "b/.hidden/y.npy", "b/.z.npy", "a.b.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"123")
    files = find_remote([f"file://{tmp_path}/"], SUFFIXES)
    paths = sorted(tmp_path / file.path for file in files)
    assert [str(file) for file in files] == [f"file://{path}" for path in paths] and len(files) == 3
    for file, path in zip(files, paths, strict=True):
        assert (file.name, file.stem, file.suffix) == (path.name, path.stem, path.suffix)
        assert file.parent == f"file://{path.parent}" and (file.size, file.modified) == (3, path.stat().st_mtime)
    assert find_remote([f"file://{paths[0]}"], SUFFIXES)[0].size == 3


# Going on


def test_a_run_that_was_stopped_goes_on_and_lists_once(vocoder, folder, here, memory, small, monkeypatch):
    batch, _, results = here
    memory.put(f"{folder}/", "/mels", recursive=True)
    real = remote.put

    def stop(path, place):
        if len(memory.find("/out")) == 5:
            raise KeyboardInterrupt
        real(path, place)

    monkeypatch.setattr("flowavenet.remotevocoding.put", stop)
    with pytest.raises(KeyboardInterrupt):
        run(vocoder, ["memory://mels"], "memory://out", batch)
    first = in_memory(memory, "/out")
    assert len(first) == 5 and first.items() <= results.items()
    monkeypatch.setattr("flowavenet.remotevocoding.put", real)
    puts, finds, infos = (calls(monkeypatch, memory, name) for name in ("put_file", "find", "info"))
    work = run(vocoder, ["memory://mels"], "memory://out", batch, skip=True)
    assert work.skipped == 5 and len(puts) == 12 - 5 and in_memory(memory, "/out") == results
    assert len(finds) == 3 and not {f"/out/{name}" for name in first} & {path for path, *_ in infos}  # a find is this test's


@pytest.mark.parametrize(
    "source, result, picture, there",
    [(1, 1, False, True), (1, 2, False, True), (2, 1, False, False), (None, 1, False, True), (2, None, False, True),
     (1, 1, True, False)],
)
def test_a_result_counts_unless_it_is_older_or_not_all(vocoder, monkeypatch, source, result, picture, there):
    monkeypatch.setattr("flowavenet.remotevocoding.list_remote", lambda _: [RemoteFile("s3://out", "a.wav", 1, result)])
    work = RemoteVocoding(vocoder, "s3://out", skip=True, picture=picture, convention="hifigan")
    groups = work.groups([RemoteFile("s3://in", "a.npy", 1000, source)])
    assert (groups == []) == there == work.skipped


# What goes wrong


def failing(monkeypatch, store, method, error, times, only=""):
    """Lets the first calls for a file fail, having done half of their work."""
    real, left = getattr(type(store), method), [times]

    def fail(self, source, target, *rest, **options):
        real(self, source, target, *rest, **options)
        if only in str(source) and left[0]:
            left[0] -= 1
            raise error

    monkeypatch.setattr(type(store), method, fail)
    return left


@pytest.mark.parametrize("method", ["get_file", "put_file"])
def test_what_fails_for_a_while_is_tried_again(vocoder, folder, memory, hasty, monkeypatch, method):
    memory.put(f"{folder}/more/", "/mels", recursive=True)
    left = failing(monkeypatch, memory, method, ConnectionError("reset"), 3)
    made = run(vocoder, ["memory://mels"], "memory://out")
    assert left == [0] and not made.failed and set(in_memory(memory, "/out")) == {f"{n:02}.wav" for n in range(0, 12, 3)}


@pytest.mark.parametrize("method, said", [("get_file", "could not read it"), ("put_file", "could not write it")])
def test_what_fails_for_good_is_passed_by_in_one_line(vocoder, folder, memory, hasty, monkeypatch, method, said):
    memory.put(f"{folder}/more/", "/mels", recursive=True)
    failing(monkeypatch, memory, method, ConnectionError("reset\nby peer"), 100, only="03.")
    made = run(vocoder, ["memory://mels"], "memory://out")
    ((file, line),) = made.failed.items()
    assert str(file) == "memory://mels/03.npy" and line.startswith(f"{file}: ") and line.count("\n") == 0
    assert f"{said}, 4 times (reset by peer)" in line and "--skip-existing" in line
    assert len(memory.find("/out")) == 3 and not [name for name in memory.store if "/." in name]


def test_what_comes_short_is_fetched_again(memory, hasty, monkeypatch, tmp_path):
    memory.pipe("/mels/a.npy", b"12345")
    (file,) = find_remote(["memory://mels"], SUFFIXES)
    memory.pipe("/mels/a.npy", b"123")
    with pytest.raises(OSError, match=r"memory://mels/a.npy: could not read it, 4 times \(3 of 5 bytes came\)"):
        fetch(file, tmp_path / "a.npy")


@pytest.mark.parametrize(
    "error, said", [(PermissionError("403"), "you may not write it (403)"), (FileNotFoundError("x"), "no such bucket")]
)
def test_a_place_that_cannot_be_written_to_ends_the_run(vocoder, folder, memory, small, monkeypatch, error, said):
    puts = failing(monkeypatch, memory, "put_file", error, 100)
    with pytest.raises(Unwritable, match=re.escape(said)):
        run(vocoder, [str(folder)], "memory://out")
    assert puts[0] > 90 and not memory.find("/out")


def test_an_actor_tells_that_a_place_cannot_be_written_to(vocoder, folder, memory, monkeypatch, tmp_path):
    failing(monkeypatch, memory, "put_file", PermissionError("403"), 100)
    work = RemoteVocoding(vocoder, "memory://out", **HOW)
    actor = SimpleNamespace(vocoder=vocoder, kind=RemoteVocoding, how=_how(work))
    result = Actor._result(actor, find_remote([str(folder / "01.npy")], SUFFIXES), tmp_path / "tries")
    with pytest.raises(Unwritable, match="memory://out/01.wav: you may not write it"):
        RayVocoding(work, actors=1)._note(**result)


def test_nothing_is_half_written(memory, monkeypatch, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"whole")
    seen, real = [], memory.put_file
    monkeypatch.setattr(type(memory), "put_file", lambda self, path, target: seen.append(target) or real(path, target))
    put(tmp_path / "a.wav", "memory://out")
    assert "/." in seen[0] and memory.cat("/out/a.wav") == b"whole" and memory.find("/out") == ["/out/a.wav"]
    monkeypatch.setattr(remote, "OBJECT_STORES", {"memory"})
    put(tmp_path / "a.wav", "memory://out")
    assert seen[1] == "/out/a.wav"


# The command line


@pytest.mark.parametrize(
    "source, out, said",
    [
        ("s3://bucket/mels", "out", "s3://bucket/mels: its store needs a package that is not here (Install s3fs"),
        ("memory://mels", "s3://bucket/wavs", "s3://bucket/wavs: its store needs"),
        ("memory://nothing", "out", "memory://nothing: no .wav"),
        ("carrier://pigeon", "out", "carrier://pigeon: Protocol not known: carrier; give an address"),
        ("memory://mels", "https://example.org/wavs", "https://example.org/wavs: can be read, but not be written to"),
        ("memory://mels/x/a.npy", "memory://out", "memory://mels/x/a.npy: its result would overwrite that of memory://mels/a.npy"),
        ("memory://out/a.wav", "memory://out/", "memory://out/a.wav: its result would replace it"),
        ("memory://mels/gone.npy", "memory://out", "memory://mels/gone.npy: no such file; check its address"),
    ],
)
def test_what_cannot_be_is_one_line(tiny, memory, flowavenet, monkeypatch, tmp_path, source, out, said):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.chdir(tmp_path)
    memory.pipe("/mels/a.npy", b"no mel")
    code, _, errors = flowavenet("vocode", "memory://mels/a.npy", source, "-o", out, "--checkpoint", tiny)
    assert code == 2 and errors.startswith("error: ") and said in errors and "Traceback" not in errors


def test_the_command_line_takes_addresses(tiny, folder, memory, flowavenet, tmp_path):
    words = ("--checkpoint", tiny, "--match", 0, "--mel-convention", "hifigan")
    there = ("vocode", folder / "01.npy", folder / "r.wav", "-o", "memory://out", *words)
    code, said, _ = flowavenet(*there)
    assert code == 0 and set(in_memory(memory, "/out")) == {"01.wav", "r.wav"} and "2 files" in said
    code, said, _ = flowavenet(*there, "--skip-existing")
    assert code == 0 and said == "2 files were there already, in memory://out\n"
    code, _, _ = flowavenet("vocode", "memory://out/r.wav", "-o", tmp_path, *words)
    assert code == 0 and (tmp_path / "r.wav").is_file()
