"""Full disks, lost folders, signals, little memory: one line, nothing half, and it goes on. In large: campaigns/faults."""

import os
import re
import resource
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from campaigns import faults
from conftest import CLIPS
from test_training import arguments, losses

from flowavenet import cli
from flowavenet.audio import MelSettings, load_audio, save_audio, save_mel
from flowavenet.checkpoint import load_checkpoint, save_checkpoint
from flowavenet.files import Unwritable, end_with_parent, one_line, ready_folder, write_atomically
from flowavenet.plots import save_spectrograms

PACKAGE = Path(cli.__file__).parents[1]
MEL = MelSettings()
WAVE = 0.1 * torch.sin(torch.arange(30000) / 20)[None]


@contextmanager
def room_for(size):
    """A limit on the size of files, which is to those who write what a full disk is, and needs no rights."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def numpy_mel(path):
    save_mel(path, torch.zeros(1, 80, 100))


def run_checkpoint(path):
    from flowavenet.training.ending import WholeCheckpoints

    WholeCheckpoints().save_checkpoint({"weights": torch.zeros(9000)}, path)


WRITERS = {
    "a.wav": lambda path: save_audio(path, WAVE, 22050),
    "a.flac": lambda path: save_audio(path, WAVE, 22050),
    "a.ogg": lambda path: save_audio(path, WAVE, 22050),
    "a.npy": numpy_mel,
    "a.png": lambda path: save_spectrograms(path, [("made", torch.zeros(80, 50))], MEL),
    "last.ckpt": run_checkpoint,
}


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_be_written_whole_is_not_written(name, share, tmp_path):
    path = tmp_path / name
    WRITERS[name](path)
    whole = path.read_bytes()
    path.write_bytes(b"the old one")
    with room_for(int(share * len(whole))), pytest.raises(Unwritable, match=f"{name}: cannot be written.*; raise the limit"):
        WRITERS[name](path)
    assert path.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_survives_that_it_cannot_be_replaced(tiny, tmp_path):
    model, mel, facts = load_checkpoint(tiny)
    save_checkpoint(tmp_path / "kept", model, mel, facts)
    with room_for(5000), pytest.raises(Unwritable, match="model.safetensors"):
        save_checkpoint(tmp_path / "kept", model, mel, {"steps": 1})
    assert load_checkpoint(tmp_path / "kept")[2] == facts


def clips_and_mels(folder):
    (folder / "in").mkdir()
    for number, clip in enumerate(CLIPS[:3]):
        save_audio(folder / "in" / f"{number}.wav", load_audio(clip, 22050)[:, : 9000 + 9000 * number], 22050)
    return folder / "in"


VERBS = {
    "vocode": lambda given, out, tiny: ["vocode", given, "-o", out, "--checkpoint", tiny],
    "prepare": lambda given, out, tiny: ["prepare", given, out],
    "mel": lambda given, out, tiny: ["mel", given, "-o", out],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_says_so_once_and_goes_on_when_there_is_room(verb, flowavenet, tiny, tmp_path):
    given = clips_and_mels(tmp_path)
    words = VERBS[verb](given, tmp_path / "whole", tiny)
    assert flowavenet(*words)[0] == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    words = VERBS[verb](given, tmp_path / "out", tiny)
    with room_for(sorted(len(content) for content in whole.values())[-1] - 1):
        code, _, said = flowavenet(*words)
    left = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert code == 2 and re.fullmatch(r"error: \S+/out/\S+: cannot be written \(.*\); raise the limit.*\n", said), said
    assert left.items() < whole.items()
    assert flowavenet(*words)[0] == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == whole


@pytest.mark.parametrize("place", ["taken", "taken/below", "/proc/none"])
def test_a_folder_that_cannot_be_had_is_refused_before_the_work(place, flowavenet, monkeypatch, tiny, tmp_path):
    monkeypatch.setattr("flowavenet.batch.loop.Loop.__call__", lambda *_: pytest.fail("it began to work"))
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(Unwritable):
        ready_folder(tmp_path / place)
    code, _, said = flowavenet("vocode", CLIPS[0], "-o", tmp_path / place, "--checkpoint", tiny)
    assert code == 2 and re.fullmatch(r"error: .*(is a file; name a folder|cannot be written .*)\n", said), said
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("verb", ["vocode", "mel"])
def test_no_result_replaces_its_own_input(verb, flowavenet, tiny, tmp_path):
    given = clips_and_mels(tmp_path)
    if verb == "mel":
        given = tmp_path / "in.npy"
        numpy_mel(given)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    code, _, said = flowavenet(*VERBS[verb](given, given if given.is_dir() else tmp_path, tiny))
    assert code == 2 and "would replace it" in said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_verb_ends_as_told_and_leaves_nothing_behind(number, flowavenet, monkeypatch, tiny, tmp_path):
    def told(path, *_):
        with write_atomically(path) as temporary:
            temporary.write_text("half")
            signal.raise_signal(number)

    monkeypatch.setattr("flowavenet.audio.save_mel", told)
    code, _, said = flowavenet("mel", CLIPS[0], "-o", tmp_path)
    assert (code, said, list(tmp_path.iterdir())) == (128 + number, "", [])


def test_training_ends_as_told_with_a_checkpoint_of_that_step(corpus, monkeypatch, tmp_path, capsys):
    from flowavenet.training.fit import fit
    from flowavenet.training.likelihood import LikelihoodTraining

    def told(module):
        if module.trainer.global_step == 2:
            signal.raise_signal(signal.SIGTERM)

    words = arguments(corpus, tmp_path, "--showcase.clips", "0", "--trainer.num_sanity_val_steps", "0")
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(LikelihoodTraining, "on_train_batch_start", lambda self, *_: told(self), raising=False)
        fit([*words, "--trainer.max_steps", "1000"])
    assert ended.value.code == 128 + signal.SIGTERM and signal.getsignal(signal.SIGTERM) == before
    said = capsys.readouterr().err
    assert "stopped at step 3, the vocoder is" in said and "; the same command with --ckpt_path last goes on" in said
    assert fit([*words, "--trainer.max_steps", "4", "--ckpt_path", "last"]).global_step == 4
    assert sorted(losses(tmp_path)) == [0, 1, 2, 3]                    # each step is in the log


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("content", ["evil", "cut"])
def test_going_on_from_a_strangers_checkpoint_runs_nothing(content, corpus, monkeypatch, tmp_path):
    from flowavenet.training.fit import fit

    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "more": Evil()}, "a.ckpt")
    if content == "cut":
        Path("a.ckpt").write_bytes(Path("a.ckpt").read_bytes()[:200])
    with pytest.raises(ValueError, match="a.ckpt: broken, or holds more than plain values"):
        fit([*arguments(corpus, tmp_path / "run"), "--ckpt_path", "a.ckpt"])
    assert not Path("ran").exists()


@pytest.mark.parametrize("error, amount", [
    (MemoryError(), ""),
    (MemoryError("Unable to allocate 1.50 GiB for an array"), " for 1.50 GiB more"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 800 bytes"), " for 800 bytes more"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), " for 2.00 GiB more"),
])
def test_that_memory_is_short_is_said_in_one_line(error, amount, flowavenet, monkeypatch, tiny, tmp_path):
    def fails(*_):
        raise error

    assert one_line(error) == f"not enough memory{amount}; free some, or give it less at once"
    monkeypatch.setattr("flowavenet.vocoder.load_checkpoint", fails)
    code, _, said = flowavenet("vocode", CLIPS[0], "-o", tmp_path, "--checkpoint", tiny)
    assert code == 2 and said == f"error: {one_line(error)}\n"


def test_no_duration_is_taken_from_the_clock_on_the_wall():
    for module in PACKAGE.rglob("*.py"):
        assert not re.search(r"time\.time\(|from time import .*\btime\b", module.read_text()), module


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_campaign_keeps_its_promises(monkeypatch, tmp_path):
    monkeypatch.setattr(faults, "TIMES", 1)
    trial = faults.Trial("mel", ["mel", clips_and_mels(tmp_path), "-o", faults.OUT, "--to", "vocos"])
    whole = faults.Whole(trial, tmp_path / "verb", tmp_path)
    for name in ("folder lost", "SIGTERM"):
        row = faults.met(name, faults.FAULTS[name], whole).row()
        assert row["cases"] == row["one line"] == row["went on"] == 1 and row["broken"] == 0, row


def _interrupted():
    os.kill(os.getpid(), signal.SIGINT)                                # as a terminal does to all of a program's processes
    return "goes on"


def test_a_worker_leaves_ctrl_c_to_the_process_that_started_it():
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver"), initializer=end_with_parent) as pool:
        assert pool.submit(_interrupted).result() == "goes on"
