"""Hostile requests

A running `flowavenet serve` stays as it is whatever is sent to it: no answer of 500 and above but 503, none that takes more
than 10 s or names a path, no traceback in its log, no file left, no place taken for ever, not more than 128 MB above what
it needed after one in twenty requests of each kind; and all the while good requests get the same bytes. There are two
servers, one for each of two checkpoints, and three clients at a time. `described` is what schemathesis makes of the
server's own `/openapi.json`, with all of its checks but that random bytes be taken for audio. `HTTP` are requests with
bytes changed, cut, sent slowly or again before there is an answer, or of wrong length. `WebSocket` are sessions with
messages changed, left out or swapped, or with bytes changed on the wire. `uploads` are mels and recordings of all kinds
with bytes changed, and odd settings. One in nine is followed by a good one. An answer is late if the server has also used
10 s of its CPU meanwhile, or after a minute; a WebSocket's farewell that is not returned is waited for 10 s. `hung up`: no
answer but the end of the connection, as is right where there is no request.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlencode

from .attacks import ATTACKS, MEL, Attack, npy
from .servers import KEY, LOST, Server, serving

AMOUNTS = {"described": 400, "HTTP": 1500, "WebSocket": 1000, "uploads": 1500}
"""Requests of each kind at share 1; one server more gets a quarter of it."""
CLIENTS = 3
LATE = 10
"""Seconds."""
GROWTH = 128
"""MB."""
SECRET = re.compile(rf"Traceback|site-packages|/tmp|{re.escape(str(Path.cwd()))}|{KEY}")
"""What is none of a client's."""


@dataclass
class Tally:
    """How requests of one kind were answered, and what was not as promised."""

    statuses: list[int | None] = field(default_factory=list)
    slowest: float = 0.0
    good: int = 0
    broken: list[str] = field(default_factory=list)

    def add(self, status: int | None, said: bytes, seconds: float, work: float, name: str) -> None:
        self.statuses.append(status)
        self.slowest = max(self.slowest, seconds)
        wrong = {
            f"status {status}": status == 0 or (status is not None and status >= 500 and status != 503),
            f"{seconds:.1f} s": seconds > LOST or (seconds > LATE and work > LATE),
            f"said {said[:300]!r}": status != 200 and SECRET.search(said.decode(errors="replace")),
        }
        self.broken += [f"{name}: {what}" for what, so in wrong.items() if so]

    def row(self) -> dict[str, Any]:
        hundreds = Counter(0 if status is None else status // 100 for status in self.statuses)
        return {
            "requests": len(self.statuses), "answered": hundreds[1] + hundreds[2], "refused": hundreds[4] + hundreds[5],
            "hung up": hundreds[0], "good between": self.good, "slowest, s": round(self.slowest, 1),
        }


def described(server: Server, amount: int, folder: Path) -> Tally:
    """Have schemathesis try what the server says of itself."""
    tally, reports = Tally(), folder / "schemathesis"
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/openapi.json",
        "--header", f"Authorization: Bearer {KEY}", "--checks", "all", "--exclude-checks", "positive_data_acceptance",
        "--max-examples", str(amount), "--seed", "0", "--continue-on-failure", "--request-timeout", str(LOST), "--no-color",
        "--report", "har,json", "--report-har-path", f"{reports}.har", "--report-json-path", f"{reports}.json",
    ]
    if amount < 10:
        command += ["--phases", "fuzzing"]                             # else all corners of all parameters come first
    with Path(f"{reports}.txt").open("w") as said:
        subprocess.run(command, stdout=said, stderr=said, cwd=folder)
    for number, entry in enumerate(json.loads(Path(f"{reports}.har").read_text())["log"]["entries"]):
        answer = entry["response"]
        said = answer["content"].get("text", "").encode()
        tally.add(answer["status"], said, entry["time"] / 1000, 0, f"described {number}")
    found = json.loads(Path(f"{reports}.json").read_text())
    tally.broken += [f"described: {one['title']}: {', '.join(one['operations'])}" for one in found["failures"]]
    tally.broken += [f"described: {one}" for one in found["errors"]]
    return tally


class Good:
    """A request whose answer is known."""

    def __init__(self, server: Server):
        self.server, self.lock = server, Lock()                        # two at once would be rendered together
        self.path = "/v1/vocode?" + urlencode({"mel_convention": "tacotron2", "seed": 7})
        self.body = npy(MEL[:, :67])                                   # a length of its own, so that it is rendered alone
        self.expected = server.ask(self.path, self.body)

    def faults(self, after: str) -> list[str]:
        with self.lock:
            status, said = self.server.ask(self.path, self.body)
        same = (status, said) == self.expected and status == 200
        return [] if same else [f"{after}: then a good request got {status}, or other bytes"]


def attacked(good: Good, kind: str, attack: Attack, numbers: range) -> Tally:
    """Send requests of a kind, and after every ninth a good one."""
    tally, server = Tally(), good.server

    def one(number: int) -> None:
        begun, work, name = time.perf_counter(), server.work(), f"{kind} {number}"
        status, said = attack(server, random.Random(name))
        tally.add(status, said, time.perf_counter() - begun, server.work() - work, name)
        if number % 9 == 0:
            tally.good += 1
            tally.broken += good.faults(name)

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(one, numbers))
    return tally


def tried(server: Server, share: float, folder: Path) -> Iterator[dict[str, Any]]:
    """Attack one server in all ways."""
    counts = {kind: max(1, round(share * amount)) for kind, amount in AMOUNTS.items()}
    good, before_all = Good(server), []
    for kind, attack in ATTACKS.items():                               # from here on it has all that it needs
        before_all += attacked(good, kind, attack, range(-max(2, counts[kind] // 20), 0)).broken
    for kind, count in counts.items():
        before, attack = server.memory(), ATTACKS.get(kind)
        tally = attacked(good, kind, attack, range(count)) if attack else described(server, count, folder)
        tally.broken += before_all + good.faults(f"all of {kind}") + server.faults()
        after, before_all = server.memory(), []
        if after - before > GROWTH:
            tally.broken.append(f"{kind}: {before} MB became {after} MB")
        with (folder / "broken.txt").open("a") as file:
            file.writelines(f"{line}\n" for line in tally.broken)
        memory = {"MB before": before, "MB after": after}
        yield {"server": folder.name, "kind": kind, **tally.row(), **memory, "broken": len(tally.broken)}
        if server.process.poll() is not None:
            return


def campaign(share: float, folder: Path) -> Iterator[dict[str, Any]]:
    for name, part in (("lapflow-stream-22k", 1), ("lapflow-speech-22k", 0.25)):
        with serving(folder.resolve() / name, "--checkpoint", name) as server:
            yield from tried(server, share * part, folder.resolve() / name)
