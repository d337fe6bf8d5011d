"""Verbs in processes of their own, to be killed: a real command line, a real SIGKILL, and what is left in /proc and on disk.

Python and torch take seconds to start, the work that is to be killed often less. So each process is forked from one that has
imported everything, and has done nothing else.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["flowavenet.cli", "flowavenet.training.fit", "torch.utils.tensorboard", "matplotlib.pyplot"])
MARK = "FLOWAVENET_KILLED"
"""The environment variable that tells which processes a verb has started."""
PATIENCE = 180.0
"""Seconds in which those that lost another must end: torch's data workers look every 5, Ray waits 60 for one of its own."""
PROCESSORS = 2
OUT = "OUT"
"""Among the words of a verb: the folder for its results."""
State = dict[str, str]
"""What there is, by name, and what is in it."""


class Verb:
    """A verb at work, in a session of its own.

    Args:
        words: after ``flowavenet``.
        said: the file for what it says.
        tmp: the folder for temporary files (TMPDIR).
    """

    def __init__(self, words: list[str], said: Path, tmp: Path):
        self.said, self.mark = said, secrets.token_hex(8)
        self.process = CONTEXT.Process(target=_main, args=(words, said, tmp, self.mark))
        self.process.start()

    def ended(self, timeout: float) -> bool:
        """Wait so many seconds: has it ended by itself?"""
        self.process.join(timeout)
        return self.process.exitcode is not None

    def finish(self, timeout: float = 600.0) -> int | None:
        """Wait until it has ended: its exit code; None if it hangs, and is killed."""
        if not self.ended(timeout):
            self.kill(group=True)
            return None
        return self.process.exitcode

    def kill(self, group: bool) -> None:
        """SIGKILL for it alone, or for all of its process group."""
        for send in (os.killpg, os.kill) if group else (os.kill,):
            with suppress(ProcessLookupError):                         # it has no group yet, or has just ended
                send(self.process.pid, signal.SIGKILL)
        self.process.join()

    def others(self) -> dict[int, str]:
        """The processes that it has started, directly or not, and that are still there: their command lines."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                fields = path.joinpath("stat").read_text().rpartition(")")[2].split()
                marked = f"{MARK}={self.mark}".encode() in path.joinpath("environ").read_bytes()
                if (marked or int(fields[3]) == self.process.pid) and fields[0] != "Z":
                    found[int(path.name)] = path.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:                                            # it has just ended
                pass
        found.pop(self.process.pid, None)
        return found

    def orphans(self) -> list[str]:
        """Those that do not end by themselves within PATIENCE; they are ended now."""
        deadline = time.monotonic() + PATIENCE
        while (left := self.others()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return list(left.values())


def _main(words: list[str], said: Path, tmp: Path, mark: str) -> None:
    """What runs in the process."""
    os.setsid()
    os.environ |= {MARK: mark, "TMPDIR": str(tmp), "OMP_NUM_THREADS": "1"}
    tempfile.tempdir = None                                            # look at TMPDIR again
    set_start_method(None, force=True)                                 # the system's own, for the verb's own processes
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:PROCESSORS])
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

    import torch

    from flowavenet import cli

    torch.set_num_threads(1)
    sys.argv = ["flowavenet", *words]
    cli.main()


def files(folder: Path) -> dict[str, Path]:
    """The files that a user sees in a folder and below, by name."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if not name.startswith(".") and "/." not in name}


def contents(folder: Path) -> State:
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files(folder).items()}


def unequal(found: State, whole: State) -> list[str]:
    """What is in other files than those of an undisturbed run, or not whole in them."""
    return [f"{name} is not what an undisturbed run writes" for name in found if whole.get(name) != found[name]]


@dataclass(frozen=True)
class Trial:
    """A verb to kill, and what it promises.

    Args:
        name: in the table.
        words: of the verb.
        again: words that are added when it is run again.
        state: what a run has come to, in its folder of results.
        wrong: what is wrong there after a kill, given the state of an undisturbed run; a line each.
        done: of the names of files that are there, those that must not be touched again.
        steps: of training: how many are in the log, and how many in the checkpoint.
        every: of training: steps between two checkpoints.
    """

    name: str
    words: list[Any]
    again: tuple[str, ...] = ()
    state: Callable[[Path], State] = contents
    wrong: Callable[[Path, State], list[str]] = lambda folder, whole: unequal(contents(folder), whole)
    done: Callable[[set[str]], set[str]] = lambda names: set()
    steps: Callable[[Path], tuple[int, int]] = lambda folder: (0, 0)
    every: int = 0


class Course:
    """What becomes of a trial: an undisturbed run first, then runs that are killed, and go on, until they come to their end.

    Args:
        trial: what is to be killed.
        folder: for results; what broke a promise stays there, in ``broken.txt``.
        tmp: a folder for temporary files, best on another disk, where a rename is a copy.
        inputs: a folder that must not change.
    """

    who = "process", "group"

    def __init__(self, trial: Trial, folder: Path, tmp: Path, inputs: Path):
        self.trial, self.folder, self.tmp, self.inputs = trial, folder, tmp, inputs
        self.random, self.given = random.Random(0), contents(inputs)
        self.killed = dict.fromkeys(self.who, 0)
        self.files = self.runs = self.ended = self.lost = 0
        self.left: list[int] = []
        self.broken: list[str] = []
        out = folder / "whole" / "out"
        out.mkdir(parents=True)
        self.start(out, again=False, words=["--help"]).finish()        # the first waits for all imports
        begun = time.monotonic()
        if self.start(out, again=False).finish() != 0:
            raise RuntimeError(f"{trial.name} fails undisturbed: {self.said}")
        self.seconds = time.monotonic() - begun
        self.whole = trial.state(out)

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text()[-2000:]

    def start(self, out: Path, again: bool, words: Sequence[Any] = ()) -> Verb:
        words = words or [*self.trial.words, *(self.trial.again if again else ())]
        return Verb([str(out if word is OUT else word) for word in words], self.folder / "said.txt", self.tmp)

    def run(self, kills: int) -> None:
        """Kill so many times, spread over as many runs as it takes."""
        while sum(self.killed.values()) < kills:
            out = self.folder / f"run{self.runs}" / "out"
            out.mkdir(parents=True)
            faults = len(self.broken)
            self.once(out, kills)
            self.runs += 1
            if len(self.broken) == faults:
                self.ended += 1
                shutil.rmtree(out.parent)
        if self.broken:
            (self.folder / "broken.txt").write_text("\n".join(self.broken))

    def once(self, out: Path, kills: int) -> None:
        """Start, kill and go on, until the verb comes to its end; look at everything after each kill, and at the end."""
        trial, again, done, saved = self.trial, False, {}, 0
        while True:
            verb = self.start(out, again)
            code = self.disturb(verb, kills)
            self.blame(f"left running: {line}" for line in verb.orphans())
            now = {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in files(out).items()}
            self.blame(f"{name} was done and is done again" for name, was in done.items() if now.get(name) != was)
            self.blame(f"{name} of the input has changed" for name in unequal(contents(self.inputs), self.given))
            if code is not None:
                break
            self.blame(trial.wrong(out, self.whole))
            logged, step = trial.steps(out)
            if logged - step > trial.every or step < saved:
                self.blame([f"{logged} steps are in the log, {step} in the checkpoint, which had {saved}"])
            again, saved, done = True, step, {name: now[name] for name in trial.done(set(now))}
            self.files, self.lost = self.files + len(now), max(self.lost, logged - step)
        if code:
            self.blame([f"ends with code {code}: {self.said}"])
        else:
            found = trial.state(out)
            self.blame(f"in the end, {line}" for line in unequal(found, self.whole) + unequal(self.whole, found))
        left = [path for folder in (out, self.tmp) for path in folder.rglob("*") if path.is_file()]
        seen = files(out).values()
        self.left += [path.stat().st_size for path in left if path not in seen]
        for path in self.tmp.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def disturb(self, verb: Verb, kills: int) -> int | None:
        """Kill a verb at some moment: None; or it was faster: its exit code."""
        if sum(self.killed.values()) == kills or verb.ended(self.random.uniform(0, self.seconds)):
            return verb.finish() or 0
        who = self.random.choice(self.who)
        verb.kill(group=who == "group")
        self.killed[who] += 1
        return None

    def blame(self, lines: Iterable[str]) -> None:
        self.broken += [f"run {self.runs}: {line}" for line in lines]

    def row(self) -> dict[str, Any]:
        """Of the table."""
        return {
            "verb": self.trial.name, "killed": ", ".join(f"{who} {count}" for who, count in self.killed.items()),
            "kills": sum(self.killed.values()), "files": self.files, "ended": f"{self.ended} of {self.runs}",
            "steps lost": self.lost if self.trial.every else "",
            "left": f"{len(self.left)} files, {sum(self.left) / 1e6:.1f} MB" if self.left else "nothing",
            "broken": len(self.broken),
        }
