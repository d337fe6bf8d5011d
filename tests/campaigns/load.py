"""Hours of work

What streams or serves for long goes on as it began: after a tenth of the time resident memory grows by no more than 64 MB in
one process or 128 MB in a server, a chunk or a request costs at most twice the CPU at the end, and every request gets its
audio, or, if there are too many, 429 or 503.

- `stream`: `Vocoder.stream` of an endless mel for a minute, chunks of 32 frames; a request is a chunk, and its latency the
  time until it is there. `per s` are chunks made.
- `serve`: `flowavenet serve` for 10 minutes (streams: 2) at 80 % of what it can, mels of 1 to 6 s at random times, from
  `recipes/serving/load.py`; latency is until the first audio, from when a request was due; early is the first tenth of the
  time, late the second half. `per s` are requests that the server can do, before and after.
- `overload`: three times of what it can do, for a minute; early and late are one client's requests before and after it,
  `longest` is of all.

The server gives torch one thread, and so one core; its event loop and the clients, one process with mels made beforehand,
share the other.
"""

from __future__ import annotations

import importlib.util
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

from .attacks import MEL
from .servers import KEY, Server, resident, serving

STREAM, STEADY, OVERLOAD = 1.0, 10.0, 1.0
"""Minutes."""
PARTS = (0.1, 0.4, 0.5)
"""Of that time, after each of which memory is read."""
GROWTH = {"stream": 64, "serve": 128, "overload": 128}
"""MB."""
REST = 2.0
"""Seconds after which a server's memory is read; it gives back what is free after one."""
DEARER = 2.0
"""Times the CPU that the first chunks or requests took; so much may come from others who use the same caches."""
TRIALS = (("lapflow-speech-22k", None, STEADY), ("lapflow-stream-22k", "pcm", 0.2 * STEADY))
"""Checkpoints, how they are asked for audio, and for how many minutes."""
REFUSED = ("429", "503")


def recipe() -> Any:
    """The program ``recipes/serving/load.py``."""
    place = importlib.util.spec_from_file_location("load", Path(__file__).parents[2] / "recipes" / "serving" / "load.py")
    place.loader.exec_module(module := importlib.util.module_from_spec(place))
    return module


@dataclass
class Part:
    """What was asked for in a part of a trial."""

    firsts: list[float]
    """Seconds until the first audio, of each that had any."""
    others: list[str]
    """Statuses of all others."""
    work: float
    """Seconds of CPU that all of it took."""
    memory: int
    """MB at its end."""

    def latency(self, percent: float) -> float:
        return round(1000 * float(np.percentile(self.firsts or [0], percent)), 1)

    @property
    def cost(self) -> float:
        """Seconds of CPU for each."""
        return self.work / max(1, len(self.firsts))


def row(kind: str, name: str, begun: float, parts: list[Part], rates: tuple[float, float]) -> dict[str, Any]:
    """What is to be said of a trial; its first part is compared with its last one."""
    early, late = parts[0], parts[-1]
    others = [status for part in parts for status in part.others]
    failed = sum(status not in REFUSED for status in others)
    if failed:
        print(f"{kind}, {name}: {', '.join(sorted({status for status in others if status not in REFUSED}))}")
    grown = late.memory - early.memory > GROWTH[kind]
    return {
        "trial": kind, "checkpoint": name, "minutes": round((time.perf_counter() - begun) / 60, 1),
        "requests": sum(len(part.firsts) for part in parts) + len(others), "refused": len(others) - failed,
        "p50 early, ms": early.latency(50), "p50 late": late.latency(50), "p99 early": early.latency(99),
        "p99 late": late.latency(99), "longest": max(part.latency(100) for part in parts),
        "per s early": round(rates[0], 1), "late": round(rates[1], 1),
        "CPU early, ms": round(1000 * early.cost, 1), "CPU late": round(1000 * late.cost, 1),
        "MB early": early.memory, "MB between": parts[len(parts) // 2].memory, "MB late": late.memory,
        "broken": failed + grown + (late.cost > DEARER * early.cost),
    }


def streamed(name: str, seconds: float) -> dict[str, Any]:
    """Stream an endless mel in this process."""
    import torch

    from flowavenet import Vocoder

    vocoder, mel = Vocoder.from_pretrained(name), torch.from_numpy(MEL)[None]
    chunks = vocoder.stream(chain.from_iterable(repeat(mel.split(8, dim=2))), 32, seed=0)
    for _ in range(10):
        next(chunks)
    parts, begun = [], time.perf_counter()
    for part in PARTS:
        end, work, latencies = time.perf_counter() + part * seconds, time.process_time(), []
        while not latencies or time.perf_counter() < end:
            asked = time.perf_counter()
            next(chunks)
            latencies.append(time.perf_counter() - asked)
        parts.append(Part(latencies, [], time.process_time() - work, resident()))
    early, late = (len(part.firsts) / sum(part.firsts) for part in (parts[0], parts[-1]))
    return row("stream", name, begun, parts, (early, late))


def served(
    server: Server, share: float, longest: float = 6.0, minutes: float = STEADY, **settings: str | None
) -> Iterator[dict[str, Any]]:
    """Ask a server for audio of so many seconds at most, steadily, and then for too much."""
    load, chance, name = recipe(), random.Random(0), settings["checkpoint"]
    send = load.sender(f"127.0.0.1:{server.port}", longest, 0, **settings)

    def survey() -> float:
        return load.capacity(send, 4, max(0.2, load.SURVEY * share))

    def part(ask: Callable[[], list[Any]]) -> Part:
        work, answers = server.work(), ask()
        firsts = [answer.first for answer in answers if answer.status == "200"]
        others = [answer.status for answer in answers if answer.status != "200"]
        work = server.work() - work
        time.sleep(REST)
        return Part(firsts, others, work, server.memory())

    def steady(times: float, seconds: float) -> Part:
        return part(lambda: load.steady(send, times * max(1.0, most), max(0.2, seconds), chance))

    def one_client() -> Part:
        return part(lambda: [send(time.perf_counter()) for _ in range(max(3, round(40 * share)))])

    one_client()                                                       # everything has been used once
    most, begun = survey(), time.perf_counter()
    parts = [steady(0.8, 60 * minutes * share * of_all) for of_all in PARTS]
    yield row("serve", name, begun, parts, (most, survey()))
    most, begun = survey(), time.perf_counter()
    parts = [one_client(), steady(3.0, 60 * OVERLOAD * share), one_client()]
    yield row("overload", name, begun, parts, (most, survey()))


def campaign(share: float, folder: Path) -> Iterator[dict[str, Any]]:
    os.environ["FLOWAVENET_API_KEY"] = KEY                             # load.py brings it
    for name, _, _ in TRIALS:
        yield streamed(name, 60 * STREAM * share)
    for name, stream, minutes in TRIALS:
        words = "--requests", "128", "--checkpoint", name
        with serving(folder.resolve() / name, *words) as server:
            for found in served(server, share, minutes=minutes, checkpoint=name, stream=stream):
                found["broken"] += len(server.faults())
                yield found
