"""How much one server takes on: what exceeds it is refused at once, with when to come again, so that the rest goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

KNOWN = 4096
"""Clients whose last requests are remembered."""


@dataclass(frozen=True)
class Limits:
    """The most that a server does for its clients."""

    seconds: float = 60.0
    """Of audio in one request or utterance."""
    bytes: int = 20 * 2**20
    """Of an upload; a minute of stereo in 48 kHz and 24 bits fits."""
    requests: int = 32
    """Under way at once; each may hold an upload and its audio in memory."""
    share: int = 16
    """Of those, for one client: half, so that no one client shuts the others out."""
    rate: float = 20.0
    """Requests per second of one client, in the long run; a second's worth may come at once."""
    wait: float = 5.0
    """Seconds that a request may have to wait for its turn; while it would be longer, none is taken."""
    patience: float = 120.0
    """Seconds in which a request must be done, upload and download included."""
    idle: float = 30.0
    """Seconds that a WebSocket may be silent, or not take its audio."""


class Refused(Exception):
    """A request that is not served; the message is for its client.

    Args:
        status: of HTTP.
        message: one line that says what helps.
        retry_after: seconds after which it may be served.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.status = status
        self.headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}


class Admission:
    """Who may come in: so many requests at once, so many per second of each client, and none that would wait for long.

    Args:
        limits: how many, and how long.
        wait: says how many seconds a request would have to wait.
    """

    def __init__(self, limits: Limits, wait: Callable[[], float] = lambda: 0.0):
        self.limits, self.wait = limits, wait
        self.inside: dict[str, int] = {}
        """Requests under way, by client."""
        self._due: dict[str, float] = {}                               # when a client that kept to its rate would be here

    @property
    def full(self) -> bool:
        return sum(self.inside.values()) >= self.limits.requests or self.wait() > self.limits.wait

    def pace(self, client: str, now: float | None = None) -> None:
        """Count a request of a client. Raises :class:`Refused` if it comes too early for the client's rate.

        Each request moves the time at which the client would be due by 1 / rate; it may be ahead of that by one second.
        This is the leaky bucket, kept as one number (ITU-T I.371, "generic cell rate algorithm").
        """
        now = monotonic() if now is None else now
        due = max(self._due.pop(client, now), now)
        self._due[client] = due                                        # the last one heard of is the last in the dict
        if len(self._due) > KNOWN:
            del self._due[next(iter(self._due))]
        if due - now > 1 - 1 / self.limits.rate + 1e-9:
            raise Refused(429, f"more than {self.limits.rate:g} requests per second; send fewer", due - now)
        self._due[client] = due + 1 / self.limits.rate

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Hold a place for a request. Raises :class:`Refused` if there is none left."""
        mine = self.inside.get(client, 0)
        if mine >= self.limits.share:
            raise Refused(429, f"{mine} of your requests are under way, the most for one client; wait for one", 1)
        if self.full:
            busy = f"the server is busy with {sum(self.inside.values())} requests; try again in a moment"
            raise Refused(503, busy, max(1, self.wait() - self.limits.wait))
        self.inside[client] = mine + 1
        try:
            yield
        finally:
            self.inside[client] -= 1
            if not self.inside[client]:
                del self.inside[client]
