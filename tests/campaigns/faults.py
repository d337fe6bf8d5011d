"""Faults of the machine

Whatever happens around a verb, it ends with one line that says what helps, exit code 2 and no traceback; no file under
its own name is half, none that was there before is lost, and once the cause is gone the same words come to the result of
an undisturbed run. Every verb that writes was run where the disk fills up (no room at all, room for half of the first
file, for all but half of the last), where it is read-only, where a file lies in place of the folder, while its folder, or
half of its inputs, are taken away, and with no more than 100 MB of memory beyond what it has when it begins. It was told
to end by Ctrl-C, by two of them, and by SIGTERM, at moments drawn evenly from the time that it takes: then it ends, in
seconds, with 130 or 143, training with a checkpoint of the step that it is at, and no process stays. And the clock on the
wall was moved by a day, forth and back, five times a second. *one line* is how many ended as they should, or as if
nothing had happened; *went on* how many then came to the result of an undisturbed run (those that had lost inputs: to an
end).
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .killing import OUT, Trial, Verb, files
from .kills import load_checkpoint, make_inputs, trials, unreadable
from .servers import HEADERS, serving

CLIPS = 12
WORKERS = 2
"""Verbs at a time."""
TIMES = 2
"""That each is told to end, of each way."""
PAGE = 4096
PATIENCE = 60.0
"""Seconds in which a verb must end when it is told to: few, on a machine with nothing else to do."""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
SPARE = 100 * 2**20
"""Bytes of memory that a verb may have more than it has when it begins."""
Row = dict[str, Any]
Fault = Callable[["Case"], None]


def campaign(share: float, folder: Path) -> Iterator[Row]:
    inputs = make_inputs(folder / "inputs", CLIPS)
    chosen = subjects(inputs)
    chosen = chosen[:: math.ceil(1 / share)]
    with TemporaryDirectory() as tmp, ThreadPoolExecutor(WORKERS) as pool:
        homes = [folder / "verbs" / str(number) for number in range(len(chosen))]
        wholes = list(pool.map(Whole, chosen, homes, [Path(tmp)] * len(chosen)))
        for name, fault in FAULTS.items():
            if lacking := lacks(fault):
                yield Case(name, f"none: {lacking}", folder).row()
            else:
                yield together([case.row() for case in pool.map(partial(met, name, fault), wholes)])
    yield from (case.row() for case in served(inputs / "tiny", folder / "serve"))


def together(rows: list[Row]) -> Row:
    """One row of all verbs that met a fault."""
    sums = {key: sum(row[key] for row in rows) for key in ("cases", "one line", "went on", "broken")}
    return rows[0] | {"verb": f"{len(rows)} that write"} | sums


def met(name: str, fault: Fault, whole: Whole) -> Case:
    """What comes of a fault that a verb meets."""
    with Case(name, whole.trial.name, whole.folder / "case", whole) as case:
        fault(case)
    return case


def lacks(fault: Fault) -> str:
    """What this machine lacks to have a fault."""
    if fault in (full_disk, read_only) and not may_mount():
        return "this process may not mount disks"
    return "libfaketime is not installed" if fault is clock_jumps and not FAKETIME.exists() else ""


def subjects(inputs: Path) -> list[Trial]:
    """The verbs that write: those that are killed as well, and more."""
    tiny = ["--checkpoint", inputs / "tiny"]
    page = ["--repeats", 1, "--seconds", 0.2, "--report", f"{OUT}/page.md", "--json", f"{OUT}/all.json"]
    return [
        *trials(inputs),
        Trial("vocode --picture", ["vocode", inputs / "mels", "-o", OUT, *tiny, "--picture"]),
        Trial("score --json", ["score", inputs / "corpus", "-o", OUT, *tiny, "--rank", "--json", f"{OUT}/all.json"]),
        Trial("export", ["export", f"{OUT}/model.onnx", *tiny], state=names, wrong=unreadable),
        Trial("benchmark", ["benchmark", inputs / "tiny", *page], state=names, wrong=unreadable),
    ]


def names(folder: Path) -> dict[str, str]:
    """Of results that differ from run to run: only which there are."""
    return dict.fromkeys(files(folder), "")


class Whole:
    """A verb, and what it comes to undisturbed."""

    def __init__(self, trial: Trial, folder: Path, tmp: Path):
        self.trial, self.folder, self.tmp, self.said = trial, folder, tmp, folder / "said.txt"
        self.out = folder / "out"
        self.out.mkdir(parents=True)
        begun = time.monotonic()
        if self.start(self.out).finish() != 0:
            raise RuntimeError(f"{trial.name} fails undisturbed: {self.said.read_text()[-2000:]}")
        self.seconds = time.monotonic() - begun
        self.state = trial.state(self.out)
        by_age = sorted(files(self.out).values(), key=lambda path: path.stat().st_mtime_ns)
        self.sizes = [-(-path.stat().st_size // PAGE) * PAGE for path in by_age]

    def words(self, out: Path, again: bool = False) -> list[str]:
        """Of the command line."""
        return [str(word).replace(OUT, str(out)) for word in [*self.trial.words, *(self.trial.again if again else ())]]

    def start(self, out: Path, again: bool = False) -> Verb:
        return Verb(self.words(out, again), self.said, self.tmp)


class Case:
    """One fault, and one verb that meets it, as often as may be; a row of the table."""

    def __init__(self, fault: str, verb: str, folder: Path, whole: Whole | None = None):
        self.fault, self.verb, self.whole, self.folder, self.out = fault, verb, whole, folder, folder / "out"
        self.cases = self.in_line = self.went_on = 0
        self.broken: list[str] = []

    def __enter__(self) -> Case:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: Any) -> None:
        if self.broken:
            kept = self.folder.with_name(f"broken, {self.fault}, {self.verb}.txt")
            kept.write_text("\n".join(self.broken))

    @property
    def said(self) -> str:
        return self.whole.said.read_text(errors="replace") if self.whole else ""

    def blame(self, what: str) -> None:
        self.broken.append(f"{what}: {self.said[-1500:]}")

    def held(self, promise: bool, otherwise: str) -> None:
        """Count a case that needs no more than to be true."""
        self.cases += 1
        if promise:
            self.in_line += 1
        else:
            self.blame(otherwise)

    def begin(self) -> Verb:
        """Start the verb in an empty folder."""
        self.empty()
        return self.whole.start(self.out)

    def empty(self) -> None:
        if self.out.is_dir():
            shutil.rmtree(self.out)
        self.out.unlink(missing_ok=True)
        self.out.mkdir()

    def refused(self, verb: Verb, *words: str, lines: int = 1) -> None:
        """Hold that a verb ends with so many lines (0: any number), which have these words; or that it was done by then."""
        self.cases += 1
        code = verb.finish()
        found = [line for line in self.said.splitlines() if line.startswith("error: ")]
        if "Traceback" in self.said or "Exception ignored" in self.said:
            self.blame("a traceback")
        elif code not in (0, 2):
            self.blame(f"exit code {code}")
        elif code and not (found and (len(found) == lines or not lines) and all(word in found[0] for word in words)):
            self.blame(f"{len(found)} lines")
        else:
            self.in_line += 1

    def nothing_half(self, hidden: bool = True) -> None:
        """Hold that what is there is whole, and nothing is left behind."""
        if self.out.is_dir():
            for line in self.whole.trial.wrong(self.out, self.whole.state):
                self.blame(line)
            left = [path.name for path in self.out.rglob("*") if path.is_file() and path not in files(self.out).values()]
            if left and hidden:
                self.blame(f"left behind: {', '.join(left)}")

    def goes_on(self, same: bool = True) -> None:
        """Hold that the same words come to an end, and to the result of an undisturbed run."""
        self.out.mkdir(exist_ok=True)
        code = self.whole.start(self.out, again=True).finish()
        if code == 0 and (not same or self.whole.trial.state(self.out) == self.whole.state):
            self.went_on += 1
        else:
            self.blame(f"went on to exit code {code}")

    def row(self) -> Row:
        return {
            "fault": self.fault, "verb": self.verb, "cases": self.cases, "one line": self.in_line,
            "went on": self.went_on, "broken": len(self.broken),
        }


# Disks


class Disk:
    """A small one, in memory; what is left of it can be chosen."""

    def __init__(self, place: Path, size: int):
        self.place, self.size = place, -(-size // PAGE) * PAGE
        self.filler = place.with_name("filler")

    def __enter__(self) -> Disk:
        self.place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.size}", "none", self.place], check=True)
        return self

    def __exit__(self, *_: Any) -> None:
        subprocess.run(["umount", "--lazy", self.place], check=True)

    def read_only(self, how: str = "ro") -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", self.place], check=True)

    @contextmanager
    def with_room_for(self, left: int) -> Iterator[None]:
        filler = self.place / ".filler"
        filler.write_bytes(bytes(self.size - left // PAGE * PAGE))
        yield
        filler.unlink()


def full_disk(case: Case) -> None:
    sizes = case.whole.sizes
    for left in sorted({0, sizes[0] // 2, sum(sizes) - sizes[-1] // 2}):
        with Disk(case.folder / "disk", 4 * sum(sizes) + 2**20) as disk:
            case.out = disk.place / "out"
            with disk.with_room_for(left):
                case.refused(case.begin(), "No space left on device", "free some")
                case.nothing_half()
            case.goes_on()


def read_only(case: Case) -> None:
    with Disk(case.folder / "disk", 4 * sum(case.whole.sizes) + 2**20) as disk:
        case.out = disk.place / "out"
        case.empty()
        disk.read_only()
        case.refused(case.whole.start(case.out), "Read-only file system", "another folder")
        disk.read_only("rw")
        case.goes_on()


def file_in_the_way(case: Case) -> None:
    case.out.write_text("mine")
    case.refused(case.whole.start(case.out), str(case.out))
    if case.out.read_text() != "mine":
        case.blame("the file is overwritten")
    case.empty()
    case.goes_on()


def folder_gone(case: Case) -> None:
    verb = case.begin()
    while not (any(case.out.rglob("*")) or verb.ended(0.005)):
        pass
    shutil.rmtree(case.out, ignore_errors=True)
    case.refused(verb, str(case.out))
    case.goes_on()


def inputs_gone(case: Case) -> None:
    home = next(word for word in case.whole.trial.words if isinstance(word, Path))
    mine = case.folder / "inputs" / home.name
    shutil.copytree(home if home.is_dir() else home.parent, mine if home.is_dir() else mine.parent)
    case.empty()
    verb = Verb([word.replace(str(home), str(mine)) for word in case.whole.words(case.out)], case.whole.said, case.whole.tmp)
    while not (any(case.out.rglob("*")) or verb.ended(0.005)):
        pass
    for path in [path for path in sorted(mine.rglob("*")) if path.is_file()][1::2]:
        path.unlink()
    case.refused(verb, lines=0)
    case.goes_on(same=False)


# Signals


def told_to_end(case: Case, *signals: int) -> None:
    """Ctrl-C goes to all processes of a terminal, SIGTERM to one."""
    for seed in range(TIMES):
        told_once(case, signals, random.Random(f"{case.verb} {signals} {seed}"))


def told_once(case: Case, signals: tuple[int, ...], moment: random.Random) -> None:
    verb = case.begin()
    while not (listens(verb) or verb.ended(0.005)):
        pass
    if verb.process.exitcode is not None:
        case.blame("it never listened")
    done = verb.ended(moment.uniform(0, case.whole.seconds))
    for number in signals:
        if not done:
            (os.killpg if number == signal.SIGINT else os.kill)(verb.process.pid, number)
        done = done or verb.ended(moment.uniform(0, 0.5))
    case.cases += 1
    code = verb.finish(PATIENCE)
    if "Traceback" in case.said or "Exception ignored" in case.said:
        case.blame("a traceback")
    elif code not in (0, 128 + signals[0]):
        case.blame(f"exit code {code}")
    else:
        case.in_line += 1
    for line in verb.orphans():
        case.blame(f"left running: {line}")
    case.nothing_half(hidden=len(signals) == 1)
    if stopped := re.search(r"stopped at step (\d+);", case.said):
        saved = load_checkpoint(case.out)["global_step"]
        if saved != int(stopped[1]):
            case.blame(f"the checkpoint is of step {saved}")
    case.goes_on()


def listens(verb: Verb) -> bool:
    """Whether it has come so far that it hears signals: before, Python itself ends, with a traceback."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{verb.process.pid}/status").read_text())
    return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


# Memory


def memory_short(case: Case) -> None:
    verb = case.begin()
    while not (listens(verb) or verb.ended(0.005)):
        pass
    size = re.search(r"VmSize:\s*(\d+)", Path(f"/proc/{verb.process.pid}/status").read_text())
    if size:
        resource.prlimit(verb.process.pid, resource.RLIMIT_AS, (int(size[1]) * 1024 + SPARE,) * 2)
    case.refused(verb, lines=0)
    case.nothing_half()
    case.goes_on()


# Clocks


@contextmanager
def moving_clock(folder: Path) -> Iterator[dict[str, str]]:
    """Lend an environment in which the clock on the wall moves forth and back by a day; that which only counts does not."""
    when, ended = folder / "clock", threading.Event()
    when.write_text("+0")

    def move() -> None:
        places = itertools.cycle(["+1d", "-1d", "+0"])
        while not ended.wait(0.2):
            (folder / "clock.new").write_text(next(places))
            (folder / "clock.new").replace(when)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield {
            "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(when), "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1", "OMP_NUM_THREADS": "1",
        }
    finally:
        ended.set()
        thread.join()


def clock_jumps(case: Case) -> None:
    case.empty()
    command = [sys.executable, "-m", "flowavenet.cli", *case.whole.words(case.out)]
    with moving_clock(case.folder) as environment, case.whole.said.open("w") as said:
        subprocess.run(command, stdout=said, stderr=said, env=os.environ | environment, timeout=600, check=False)
    durations = [float(text) for text in re.findall(r"(?:RTF|audio in) (-?[\d.]+)", case.said)]
    same = case.whole.trial.state(case.out) == case.whole.state
    case.held(same and all(0 <= seconds < 1000 for seconds in durations), f"another result, or durations {durations}")
    case.went_on += same


# The service


def served(checkpoint: Path, folder: Path) -> Iterator[Case]:
    """What a server does while the clock jumps, and when it is told to end while it sends."""
    import numpy as np

    mel = folder / "long.npy"
    folder.mkdir(parents=True)
    np.save(mel, np.zeros((80, 4000), np.float32))
    words = ["--checkpoint", str(checkpoint), "--rate", "5"]
    with Case("clock jumps", "serve --rate 5", folder / "case") as case, moving_clock(folder) as environment:
        os.environ |= environment
        try:
            with serving(folder / "jumping", *words) as server:
                begun = time.monotonic()
                answers = [server.ask("/v1/checkpoints")[0] for _ in range(30)]
                allowed = 5 * (time.monotonic() - begun + 1) + 1
                busy = json.loads(server.ask("/healthz")[1])["busy_seconds"]
                case.held(set(answers) <= {200, 429}, f"answers {answers}")
                case.held(5 <= answers.count(200) <= allowed, f"{answers.count(200)} requests came in, {allowed:.0f} may")
                case.held(0 <= busy < 60, f"busy for {busy} s")
        finally:
            for name in environment:
                os.environ.pop(name)
    yield case
    with Case("SIGTERM", "serve, sending", folder / "case") as case, serving(folder / "draining", *words) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
        connection.request("POST", "/v1/vocode?stream=pcm&mel_convention=hifigan", mel.read_bytes(), HEADERS)
        answer = connection.getresponse()
        first = answer.read(1000)
        server.process.send_signal(signal.SIGTERM)
        got = len(first) + len(answer.read())
        case.held(got == 4000 * 256 * 2, f"{got} bytes came, {4000 * 256 * 2} were promised")
        case.held(server.process.wait(PATIENCE) == 0, f"it ended with {server.process.returncode}")
        case.held("Traceback" not in server.log.read_text(), "a traceback")
    yield case


FAULTS: dict[str, Fault] = {
    "disk full": full_disk, "disk read-only": read_only, "a file for a folder": file_in_the_way, "folder lost": folder_gone,
    "inputs lost": inputs_gone, "memory short": memory_short, "Ctrl-C": lambda case: told_to_end(case, signal.SIGINT),
    "Ctrl-C twice": lambda case: told_to_end(case, signal.SIGINT, signal.SIGINT),
    "SIGTERM": lambda case: told_to_end(case, signal.SIGTERM), "clock jumps": clock_jumps,
}


def may_mount() -> bool:
    """Whether this process may have disks of its own."""
    with TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "none", folder], stderr=subprocess.DEVNULL).returncode == 0
        return mounted and subprocess.run(["umount", folder]).returncode == 0
