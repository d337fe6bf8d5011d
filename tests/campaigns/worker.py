"""Reads hostile files in a process of its own, which may die of them, and says of each what came of it.

    python -m tests.campaigns.worker READER KIND FIRST COUNT FOLDER

prints a line of JSON for each input from number FIRST on, when it has been read: see :class:`Outcome`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flowavenet.files import one_line

from .mutations import mutated
from .readers import READERS, Reader
from .trainingfiles import RESULTS

CASES = Path(__file__).parents[1] / "cases"
CPU_SECONDS = 10
"""For one file; then the process is killed (SIGPROF). Of the processor, not of the clock, as machines may be busy."""
WALL_SECONDS = 300
"""For one that waits for ever (SIGALRM)."""
ADDRESSES = 3 << 30
"""Bytes of address space that reading may take beyond what the process has."""
MEMORY = 300 << 20
"""Bytes that reading a file of a few kB may touch."""
LONGEST = 1000
"""Characters of an error."""
CURED = ValueError, OSError, ModuleNotFoundError
"""What the command line prints as one line."""
FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class", "socket.connect"}
FORBIDDEN |= {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}
"""What no reader does, as Python's audit events."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Outcome(NamedTuple):
    """What came of one input."""

    result: str
    """read, refused, or else how a promise was broken."""
    seconds: float
    """Of the processor."""
    megabytes: float
    """That reading it touched."""


class Trial:
    """Reads inputs by one reader, in a folder of its own."""

    def __init__(self, reader: Reader, folder: Path):
        self.reader, self.folder = reader, folder
        self.path = folder / reader.file
        self.acts: list[str] | None = None
        """Forbidden ones, while a file is read."""
        folder.mkdir(parents=True, exist_ok=True)
        self.seeds = reader.seeds(folder)
        for data in self.seeds:  # so that all that is imported when needed is there
            self.path.write_bytes(data)
            with_error(lambda: reader.read(self.path))
        sys.addaudithook(self._watch)
        self.there = listed(folder)
        resource.setrlimit(resource.RLIMIT_AS, (self.address_space() + ADDRESSES,) * 2)

    def read(self, data: bytes) -> Outcome:
        """Have it read, and see whether a promise was broken."""
        self.path.write_bytes(data)
        before = touched(reset=True)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        begun = time.process_time()
        self.acts = []
        error = with_error(lambda: self.reader.read(self.path))
        acts, self.acts = self.acts, None
        seconds = time.process_time() - begun
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        memory = max(0, touched() - before)
        written = listed(self.folder) ^ self.there
        result = "refused" if error else "read"
        if error and (wrong := badly_said(error, self.path)):
            result = wrong
        if memory > MEMORY:
            result = f"took {memory >> 20} MB"
        if acts or written:
            result = f"did {' '.join(acts)} {' '.join(map(str, written))}"
        if result not in ("read", "refused"):
            self.keep(data, result)
        return Outcome(result, seconds, memory / 2**20)

    def keep(self, data: bytes, why: str) -> None:
        """Leave what broke a promise beside the folder, one of each kind."""
        name = f"{self.folder.name}-" + re.sub(r"[^a-zA-Z]+", "-", why)[:60]
        if not (path := self.folder.parent / name).exists():
            path.write_bytes(data)
            path.with_name(f"{name}.txt").write_text(why + "\n")

    def _watch(self, event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING and arguments[0] != os.devnull
        asked = str(arguments[0] if arguments else "").startswith(str(self.folder / RESULTS))
        if self.acts is not None and not asked and (event in FORBIDDEN or writes):
            self.acts.append(f"{event} {str(arguments)[:200]}")

    @staticmethod
    def address_space() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def with_error(work: Callable[[], Any]) -> BaseException | None:
    try:
        work()
    except BaseException as error:  # whatever it is: that is the question
        return error
    return None


def badly_said(error: BaseException, path: Path) -> str:
    """What is wrong with an error, if the command line shall print it as one line that names a file."""
    text = one_line(error)
    kind = type(error).__name__
    if not isinstance(error, CURED):
        last = error.__traceback__
        while last.tb_next:
            last = last.tb_next
        place = f"{Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}"
        return f"raised {kind} at {place}: {' '.join(text.split())[:200]}"
    if not text.isprintable():
        return f"raised {kind} with what a terminal would obey: {text[:200]!r}"
    if len(text) > LONGEST:
        return f"raised {kind} of {len(text)} characters: {text[:200]}"
    return (
        ""
        if path.name in text or str(path.parent) in text or path.name == "address"
        else f"raised {kind} that names no file: {text[:200]}"
    )


def listed(folder: Path) -> set[str]:
    """What is in a folder, without the results of reading."""
    return {str(one) for one in folder.rglob("*") if RESULTS not in one.parts}


def touched(reset: bool = False) -> int:
    """Bytes of memory that the process has touched, at most, since that was reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def cases_of(name: str) -> list[Path]:
    """What once broke a promise of a reader."""
    return sorted((CASES / name.replace(" ", "-")).glob("*"))


def inputs(name: str, kind: str, seeds: list[bytes], first: int, count: int) -> Iterator[bytes]:
    if kind == "mutated":
        yield from (mutated(seeds, number) for number in range(first, first + count))
    elif kind == "cases":
        yield from (path.read_bytes() for path in cases_of(name)[first : first + count])
    else:
        from .grammars.drawing import structured

        yield from structured(name, seeds, first, count)


def guided(trial: Trial, first: int, count: int, say: Callable[[Outcome], None]) -> None:
    """Inputs that libFuzzer makes of those which reached new lines of flowavenet; does not return."""
    import atheris

    corpus = trial.folder.parent / f"{trial.folder.name}.corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(trial.seeds):
        (corpus / f"seed{number}").write_bytes(data)
    atheris.Setup(
        [
            "worker",
            str(corpus),
            f"-runs={count}",
            f"-seed={first + 1}",
            f"-max_len={2 * max(10_000, *map(len, trial.seeds))}",
            "-timeout=0",
            "-rss_limit_mb=0",
            "-handle_xfsz=0",
            f"-artifact_prefix={trial.folder.parent}/",
        ],
        lambda data: say(trial.read(data)),
    )
    atheris.Fuzz()


def main(name: str, kind: str, first: int, count: int, folder: Path) -> None:
    report, sys.stdout = sys.stdout, sys.stderr
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder.parent / ".hypothesis")

    def say(outcome: Outcome) -> None:
        print(json.dumps(outcome), file=report, flush=True)

    if kind == "guided":
        import atheris

        with atheris.instrument_imports(include=["flowavenet"]):
            import flowavenet.batch  # noqa: F401
    import torch

    torch.set_num_threads(1)
    trial = Trial(READERS[name], folder)
    os.chdir(folder)
    if kind == "guided":
        guided(trial, first, count, say)
    for data in inputs(name, kind, trial.seeds, first, count):
        say(trial.read(data))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
