"""Load a running server with requests for audio, steadily, and say how long they wait for the first of it.

    flowavenet serve --rate 1000 &
    python recipes/serving/load.py --minutes 10

First as much as the server can do is found: so many clients, each asking again as soon as it is answered. Then requests come
at random times, on average at a share of that rate, whether earlier ones are answered or not, as those of people do; each
latency counts from the time at which the request was to be sent, so that a server that falls behind cannot hide it.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import numpy as np

MEL = Path(__file__).parents[2] / "tests" / "data" / "tacotron2.npy"
HOP_SECONDS = 256 / 22050
MELS = 64
"""Different ones."""
SURVEY = 15
"""Seconds in which the capacity is found."""


class Answer(NamedTuple):
    """How a request went."""

    status: str
    first: float
    """Seconds until the first audio."""
    last: float
    """Seconds until the last."""
    audio: float
    """Seconds of it."""


def bodies(longest: float, seed: int) -> list[bytes]:
    """Mels of 1 to ``longest`` seconds, each length equally often; made before they are sent, which is to cost little."""
    mel, chance = np.load(MEL).squeeze().astype(np.float32), random.Random(seed)
    made = []
    for _ in range(MELS):
        frames, body = round(chance.uniform(1, longest) / HOP_SECONDS), BytesIO()
        np.save(body, np.tile(mel, 1 + frames // mel.shape[1])[:, :frames])
        made.append(body.getvalue())
    return made


def sender(address: str, longest: float, seed: int, **settings: str | None) -> Callable[[float], Answer]:
    """What sends one request after the other, from any thread, no two alike; each is given when it is due."""
    mels, numbers = bodies(longest, seed), count()
    given = {name: value for name, value in settings.items() if value is not None}
    fixed = urlencode({"mel_convention": "tacotron2"} | given)

    def send(due: float) -> Answer:
        number = next(numbers)
        return ask(address, f"/v1/vocode?{fixed}&seed={number}", mels[number % MELS], due)

    return send


def ask(address: str, path: str, body: bytes, due: float) -> Answer:
    """Send one request, and take its answer."""
    headers = {"Authorization": f"Bearer {os.environ.get('FLOWAVENET_API_KEY', '')}"}
    connection = HTTPConnection(address, timeout=120)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        beginning = answer.read(1000)
        first = time.perf_counter() - due
        audio = len(beginning) + len(answer.read())
        return Answer(str(answer.status), first, time.perf_counter() - due, audio / 2 / 22050 if answer.status == 200 else 0)
    except (OSError, HTTPException) as error:
        return Answer(type(error).__name__, 0, 0, 0)
    finally:
        connection.close()


def capacity(send: Callable[[float], Answer], clients: int, seconds: float) -> float:
    """Requests per second that are answered if there is always another one."""
    end = time.perf_counter() + seconds

    def client() -> int:
        answered = 0
        while (now := time.perf_counter()) < end:
            answered += send(now).status == "200"
        return answered

    with ThreadPoolExecutor(clients) as threads:
        return sum(one.result() for one in [threads.submit(client) for _ in range(clients)]) / seconds


def steady(send: Callable[[float], Answer], rate: float, seconds: float, chance: random.Random) -> list[Answer]:
    """Requests at random times, so many per second on average (a Poisson process)."""
    answers, due = [], time.perf_counter()
    end = due + seconds
    with ThreadPoolExecutor(256) as threads:
        while (due := due + chance.expovariate(rate)) < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            answers.append(threads.submit(send, due))
        return [one.result() for one in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--checkpoint", help="one that the server has  [its default]")
    parser.add_argument("--stream", choices=["wav", "pcm"], help="ask for audio while it is made  [whole]")
    parser.add_argument("--longest", type=float, default=6.0, help="seconds of audio, the shortest 1  [%(default)g]")
    parser.add_argument("--clients", type=int, default=4, help="to find the capacity with  [%(default)s]")
    parser.add_argument("--share", type=float, default=0.8, help="of the capacity  [%(default)s]")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    address = urlsplit(options.url).netloc
    send = sender(address, options.longest, options.seed, checkpoint=options.checkpoint, stream=options.stream)
    most = capacity(send, options.clients, SURVEY)
    answers = steady(send, options.share * most, 60 * options.minutes, random.Random(options.seed))
    good = [answer for answer in answers if answer.status == "200"]
    audio = sum(answer.audio for answer in good)
    after = capacity(send, options.clients, SURVEY)                    # else the machine had something else to do
    print(f"capacity {most:.1f} requests/s before, {after:.1f} after")
    print(f"{len(answers)} requests in {options.minutes:g} min, {audio:.0f} s of audio")
    print(f"answers: {', '.join(f'{number} x {status}' for status, number in Counter(a.status for a in answers).items())}")
    for name in ("first", "last"):
        values = 1000 * np.array([getattr(answer, name) for answer in good])
        p50, p99 = np.percentile(values, [50, 99])
        print(f"{name} audio: p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {values.max():.0f} ms")


if __name__ == "__main__":
    main()
