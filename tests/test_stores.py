"""What is elsewhere becomes what it would here: the same bytes, one listing, nothing half written, nothing done twice."""

import functools
import http.server
import re
import sys
import threading

import fsspec
import numpy as np
import pytest
import soundfile

from flowavenet import Vocoder
from flowavenet.batch import File, Job, find_files, stores, vocode_files
from flowavenet.batch.plan import find_done
from flowavenet.files import Failures, Unwritable

SUFFIXES = (".npy", ".wav")


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
    """What becomes of the folder without a way to go: the batch, the report, and the results."""
    out = tmp_path_factory.mktemp("here")
    return request.param, run(vocoder, [folder], out, request.param), contents(out)


@pytest.fixture
def memory():
    """A store in memory, empty, whose calls are counted."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    store.store.clear()


@pytest.fixture
def small(monkeypatch):
    """Portions of about 4 files."""
    monkeypatch.setattr("flowavenet.batch.plan.SMALL", 6000)


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
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_memory(store, folder):
    return {name.removeprefix(f"{folder}/"): store.cat_file(name) for name in store.find(folder)}


def run(vocoder, inputs, out, batch=1, skip=False, progress=lambda done, total: None, convention="hifigan"):
    job = Job(str(out), batch, convention=convention, how={"match": 0})
    return vocode_files(find_files(inputs, SUFFIXES), vocoder, job, skip, progress=progress)


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
    batch, report, results = here
    source = {"memory": "memory://mels", "file": f"file://{folder}", "path": str(folder), "http": web}[protocol]
    if protocol == "memory":
        memory.put(f"{folder}/", "/mels", recursive=True)
    if protocol == "http" and batch > 1:
        pytest.skip("its listings tell no sizes, and so not what goes together")
    out, told = f"file://{tmp_path}/out" if protocol == "file" else "memory://out/wavs", []
    made = run(vocoder, [source], out, batch, progress=lambda *one: told.append(one))
    there = contents(tmp_path / "out") if protocol == "file" else in_memory(memory, "/out/wavs")
    assert there == results and len(results) == 12 and "more/00.wav" in results
    assert by_name(made.failed, source) == by_name(report.failed, folder) and len(report.failed) == 1
    assert made.frames == report.frames and told == sorted(told) and told[-1] == (13, 13)
    assert not list(tmp_path.rglob(".*"))


def test_mels_are_recognised_by_the_files_beside_them(vocoder, folder, memory, tmp_path):
    for file in sorted(folder.glob("*.npy"))[:3]:
        memory.put(str(file), f"/mels/{file.name}")
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / file.name).write_bytes(file.read_bytes())
    here = run(vocoder, [tmp_path / "in"], tmp_path / "out", convention=None)
    there = run(vocoder, ["memory://mels"], "memory://out", convention=None)
    assert in_memory(memory, "/out") == contents(tmp_path / "out") and len(memory.find("/out")) == 2
    assert by_name(there.details, "memory://mels") == by_name(here.details, tmp_path / "in") and len(here.details) > 1


def test_files_have_the_order_and_the_times_of_paths(tmp_path):
    for name in ("b-c/x.npy", "b/x.wav", "b/.hidden/y.npy", "b/.z.npy", "a.b.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"123")
    there, here = (find_files([place], SUFFIXES) for place in (f"file://{tmp_path}/", tmp_path))
    assert [(file.place.removeprefix("file://"), file.name, file.size, file.modified) for file in there] == [
        (file.place, file.name, file.size, file.modified) for file in here
    ]
    assert [file.name for file in here] == ["a.b", "b/x", "b-c/x"]


# Going on


def test_a_run_that_was_stopped_goes_on_and_lists_once(vocoder, folder, here, memory, small, monkeypatch):
    batch, _, results = here
    memory.put(f"{folder}/", "/mels", recursive=True)
    real, puts = stores.put, []

    def stop(written, *rest):
        puts.append(written)
        if len(puts) == 3:
            raise KeyboardInterrupt
        real(written, *rest)

    monkeypatch.setattr(stores, "put", stop)
    with pytest.raises(KeyboardInterrupt):
        run(vocoder, ["memory://mels"], "memory://out", batch)
    first = in_memory(memory, "/out")
    assert 0 < len(first) < 12 and first.items() <= results.items()
    monkeypatch.setattr(stores, "put", real)
    puts, finds, infos = (calls(monkeypatch, memory, name) for name in ("put_file", "find", "info"))
    report = run(vocoder, ["memory://mels"], "memory://out", batch, skip=True)
    assert report.skipped == len(first) and len(puts) == 12 - len(first) and len(finds) == 2
    assert in_memory(memory, "/out") == results and not {f"/out/{name}" for name in first} & {path for path, *_ in infos}


@pytest.mark.parametrize(
    "source, result, suffixes, there",
    [(1, 1, [".wav"], True), (1, 2, [".wav"], True), (2, 1, [".wav"], False), (None, 1, [".wav"], True),
     (2, None, [".wav"], True), (1, 1, [".wav", ".png"], False)],
)
def test_a_result_counts_unless_it_is_older_or_not_all(monkeypatch, source, result, suffixes, there):
    monkeypatch.setattr("flowavenet.batch.plan.list_folder", lambda _: {"deep/a.wav": (1, result)})
    file = File("s3://in/deep/a.npy", "deep/a", 1000, source)
    assert find_done([file, File("s3://in/b.npy", "b")], "s3://out", suffixes) == ({file} if there else set())


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
def test_what_fails_once_is_tried_again(vocoder, folder, memory, monkeypatch, method):
    memory.put(f"{folder}/more/", "/mels", recursive=True)
    left = failing(monkeypatch, memory, method, ConnectionError("reset"), 1)
    made = run(vocoder, ["memory://mels"], "memory://out")
    assert left == [0] and not made.failed and set(in_memory(memory, "/out")) == {f"{n:02}.wav" for n in range(0, 12, 3)}


@pytest.mark.parametrize("method, said", [("get_file", "could not read it"), ("put_file", "could not write it")])
def test_what_fails_again_is_passed_by_in_one_line(vocoder, folder, memory, monkeypatch, method, said):
    memory.put(f"{folder}/more/", "/mels", recursive=True)
    failing(monkeypatch, memory, method, ConnectionError("reset\nby peer"), 100, only="03.")
    made = run(vocoder, ["memory://mels"], "memory://out")
    ((file, line),) = made.failed.items()
    assert str(file) == "memory://mels/03.npy" and line.startswith(f"{file}: ") and line.count("\n") == 0
    assert f"{said} (reset by peer)" in line and "--skip-existing" in line
    assert len(memory.find("/out")) == 3 and not [name for name in memory.store if "/." in name]


@pytest.mark.parametrize(
    "error, said", [(PermissionError("403"), "you may not write it (403)"), (FileNotFoundError("x"), "no such bucket")]
)
def test_a_place_that_cannot_be_written_to_ends_the_run(vocoder, folder, memory, small, monkeypatch, error, said):
    puts = failing(monkeypatch, memory, "put_file", error, 100)
    with pytest.raises(Unwritable, match=re.escape(said)):
        run(vocoder, [folder], "memory://out")
    assert puts[0] > 90 and not memory.find("/out")


def test_nothing_is_half_written(memory, monkeypatch, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"whole")
    written = {tmp_path / "a.wav": (File("a.npy", "deep/a"), "deep/a.wav")}
    seen, real = [], memory.put_file
    monkeypatch.setattr(type(memory), "put_file", lambda self, path, target, **_: seen.append(target) or real(path, target))
    stores.put(written, "memory://out", Failures())
    assert "/." in seen[0] and memory.cat("/out/deep/a.wav") == b"whole" and memory.find("/out") == ["/out/deep/a.wav"]
    monkeypatch.setattr(stores, "OBJECT_STORES", {"memory"})           # where what is put appears whole
    stores.put(written, "memory://out", Failures())
    assert seen[1] == "/out/deep/a.wav"


# The command line


@pytest.mark.parametrize(
    "source, out, said",
    [
        ("s3://bucket/mels", "out", "s3://bucket/mels: its store needs a package that is not here (Install s3fs"),
        ("memory://mels", "s3://bucket/wavs", "s3://bucket/wavs: its store needs"),
        ("memory://nothing", "out", "memory://nothing: there are no .wav"),
        ("carrier://pigeon", "out", "carrier://pigeon: Protocol not known: carrier; give an address"),
        ("memory://mels", "https://example.org/wavs", "https://example.org/wavs: it can be read, but not be written to"),
        ("memory://mels/a.wav", "memory://out", "memory://mels/a.wav: its result would overwrite that of memory://mels/a.npy"),
        ("memory://out/a.wav", "memory://out/", "memory://out/a.wav: its result would replace it"),
        ("memory://mels/gone.npy", "memory://out", "memory://mels/gone.npy: there is no such file; check its address"),
    ],
)
def test_what_cannot_be_is_one_line(tiny, memory, flowavenet, monkeypatch, tmp_path, source, out, said):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.chdir(tmp_path)
    memory.pipe("/mels/a.npy", b"no mel")
    given = ["memory://mels/a.npy"] if source.startswith("memory://mels/") else []
    code, _, errors = flowavenet("vocode", *given, source, "-o", out, "--checkpoint", tiny)
    assert code == 2 and errors.startswith("error: ") and said in errors and "Traceback" not in errors


def test_the_command_line_takes_addresses(tiny, folder, memory, flowavenet, tmp_path):
    words = ("--checkpoint", tiny, "--match", 0, "--mel-convention", "hifigan")
    there = ("vocode", folder / "01.npy", folder / "r.wav", "-o", "memory://out", *words)
    code, said, _ = flowavenet(*there)
    assert code == 0 and set(in_memory(memory, "/out")) == {"01.wav", "r.wav"} and "2 files" in said
    code, said, _ = flowavenet(*there, "--skip-existing")
    assert code == 0 and said == "2 files there already, in memory://out\n"
    code, _, _ = flowavenet("vocode", "memory://out/r.wav", "-o", tmp_path, *words)
    assert code == 0 and (tmp_path / "r.wav").is_file()
