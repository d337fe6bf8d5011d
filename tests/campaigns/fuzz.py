"""Hostile files

Whatever is in a file, it is read right, or refused by an error that the command line prints as one line with the file's
name; nothing in it is run, nothing is written, no process dies, no file of a few kB takes more than 10 s of a processor or
300 MB. Each reader got hundreds of files, of three kinds: valid ones *mutated* at random (bits flipped, parts cut,
repeated, joined, numbers made extreme); *structured* ones, well formed but hostile in what they say (shapes, types, names,
depths, bombs), drawn by hypothesis; and *guided* ones, which libFuzzer bred by the lines of flowavenet that they reach
(atheris). *Cases* broke a promise once. They were read by the functions that the verbs call, in processes of their own,
where an audit hook saw what they do; recipes, which may name any class, only as far as naming. *Command line*: folders with
such files among good ones, through `flowavenet` itself: exit code 2, no traceback, every good file done, nothing else left
behind. *Slowest* is in seconds of the processor, *memory* what one file took at most.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from .mutations import mutated
from .readers import READERS
from .worker import Outcome, cases_of

ROOT = Path(__file__).parents[2]
COUNTS = {"mutated": 330, "structured": 170, "guided": 300}
"""Inputs for each reader; those that take their time get a part of them."""
FOLDERS = 5
"""For each verb of the command line, of 3 to 6 bad files each."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
VERBS = {
    "vocode": ["vocode", "{good}", "-o", "{out}", "--match", "0"],
    "mel": ["mel", "{good}", "-o", "{out}"],
    "prepare": ["prepare", "{good}", "{out}"],
    "evaluate": ["evaluate", "{good}", "{copies}", "-o", "{out}"],
    "score": ["score", "{good}", "-o", "{out}"],
    "convert": ["convert", "{bad}", "-o", "{out}"],
}
"""What the command line is tried with."""


def campaign(share: float, folder: Path) -> Iterator[dict[str, Any]]:
    folder = folder.absolute()
    for name, reader in READERS.items():
        counts = {kind: max(1, round(share * count / reader.cost)) for kind, count in COUNTS.items()}
        outcomes = [one for kind, count in counts.items() for one in trial(name, kind, count, folder)]
        cases = list(trial(name, "cases", len(cases_of(name)), folder))
        yield row(name, counts | {"cases": len(cases)}, outcomes + cases)
    folders = range(len(VERBS) * max(1, round(share * FOLDERS)))
    outcomes = [outcome for number in folders for outcome in through_the_command_line(number, folder)]
    yield row("command line", {"mutated": len(outcomes), "structured": 0, "guided": 0, "cases": 0}, outcomes)


def row(name: str, counts: dict[str, int], outcomes: list[Outcome]) -> dict[str, Any]:
    results = [outcome.result for outcome in outcomes]
    read, refused = results.count("read"), results.count("refused")
    return (
        {"reader": name}
        | counts
        | {
            "read": read,
            "refused": refused,
            "slowest (s)": round(max(one.seconds for one in outcomes), 2),
            "memory (MB)": round(max(one.megabytes for one in outcomes)),
            "broken": len(results) - read - refused,
        }
    )


def trial(name: str, kind: str, count: int, folder: Path) -> Iterator[Outcome]:
    """Have a reader read so many inputs of a kind, by as many processes as it takes; what broke a promise is kept."""
    at, home = 0, folder / name.replace(" ", "-") / kind
    while at < count:
        command = [sys.executable, "-m", "tests.campaigns.worker", name, kind, str(at), str(count - at), str(home)]
        begun = at
        errors = home.with_suffix(".err")
        errors.parent.mkdir(parents=True, exist_ok=True)
        with (
            errors.open("wb") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env=os.environ | ENVIRONMENT) as process,
        ):
            for line in process.stdout:
                outcome = Outcome(*json.loads(line))
                at += 1
                yield outcome
        if at < count and (process.returncode or begun == at):  # it died of this one
            path = home / READERS[name].file
            if begun == at and b"Traceback" in errors.read_bytes():  # or of a mistake of ours
                raise RuntimeError(errors.read_text()[-2000:])
            keep(path.read_bytes(), home.parent, f"{kind}-{at}", f"died of signal {-process.returncode}")
            at += 1
            yield Outcome(f"died of signal {-process.returncode}", 0.0, 0.0)


def keep(data: bytes, folder: Path, name: str, reason: str) -> None:
    (folder / name).write_bytes(data)
    (folder / f"{name}.txt").write_text(reason + "\n")


def through_the_command_line(number: int, folder: Path) -> Iterator[Outcome]:
    """One folder of good and bad files, by one verb; an outcome for each bad file."""
    random = Random(number)
    verb = list(VERBS)[number % len(VERBS)]
    home = folder / "command-line" / str(number)
    places = {key: home / key for key in ("good", "copies", "out", "bad")}
    for key in ("good", "copies"):
        places[key].mkdir(parents=True)
    kinds = {"vocode": ("wav", "flac", "ogg", "mel npy", "mel pt", "mel safetensors"), "convert": ("published pt",)}
    kinds["mel"] = kinds["vocode"]
    bad = []
    for count, name in enumerate(kinds.get(verb, ("wav", "flac", "ogg", "mp3"))):
        reader = READERS[name]
        seeds, suffix = reader.seeds(home), Path(reader.file).suffix
        path = places["good"] / f"bad{count}{suffix}"
        path.write_bytes(mutated(seeds, random.randrange(10**6)))
        if verb == "evaluate":
            (places["copies"] / path.name).write_bytes(path.read_bytes())
        bad.append(path)
    if verb == "convert":
        places["bad"] = bad[0]
    good = recordings(places)
    words = [word.format(**places) for word in VERBS[verb]]
    done = subprocess.run(
        [sys.executable, "-m", "flowavenet.cli", *words],
        cwd=home,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        errors="replace",
    )
    hidden = [path for path in home.rglob(".*") if path.name != ".hypothesis"]
    undone = [] if verb == "convert" else [stem for stem in good if not made(places["out"], stem, verb)]
    wrong = ""
    if done.returncode not in (0, 2) or "Traceback" in done.stderr:
        wrong = f"{verb}: exit code {done.returncode}: {done.stderr[-300:]}"
    elif hidden or undone:
        wrong = f"{verb}: left {hidden}, not done {undone}"
    if wrong:
        (home / "wrong.txt").write_text(f"{wrong}\n{done.stderr}")
    for path in bad:
        refused = re.search(rf"error: .*{re.escape(path.name)}", done.stderr)
        yield Outcome(wrong or ("refused" if refused else "read"), 0.0, 0.0)


def recordings(places: dict[str, Path]) -> list[str]:
    """Put good files among the bad ones; their stems."""
    stems = []
    for clip in sorted((ROOT / "tests" / "data").glob("*.flac"))[:2]:
        for key in ("good", "copies"):
            (places[key] / clip.name).symlink_to(clip)
        stems.append(clip.stem)
    return stems


def made(out: Path, stem: str, verb: str) -> bool:
    """Whether there is a result of a good file."""
    if verb == "evaluate":
        return stem in (out / "scores.csv").read_text() if (out / "scores.csv").exists() else False
    return any(path.stem == stem for path in out.rglob("*"))
