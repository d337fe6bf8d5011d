"""A thread that does one step of work after the other, always the one that is due first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from heapq import heappop, heappush
from itertools import count
from threading import Condition, Thread
from time import monotonic
from typing import Any

REST = 1.0
"""Seconds without a step after which the thread is at rest."""


class Turns:
    """Steps that wait for their turn, and the thread that does them.

    Args:
        name: of the thread.
        at_rest: what the thread does whenever it comes to rest.
    """

    def __init__(self, name: str, at_rest: Callable[[], Any] = lambda: None):
        self._at_rest = at_rest
        self._steps: list[tuple[float, int, Future, Callable[[], Any]]] = []  # a heap; the number keeps equals in order
        self._numbers, self._change, self._closed = count(), Condition(), False
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, step: Callable[[], Any], due: float) -> Future:
        """Have a step done; ``due`` is a time of the monotonic clock, at which its result is needed."""
        future = Future()
        with self._change:
            if self._closed:
                future.cancel()
            else:
                heappush(self._steps, (due, next(self._numbers), future, step))
                self._change.notify()
        return future

    def late(self) -> int:
        """How many steps are due already."""
        now = monotonic()
        with self._change:
            return sum(due <= now for due, *_ in self._steps)

    def close(self) -> None:
        """End the step at work, and cancel all others."""
        with self._change:
            self._closed = True
            for _, _, future, _ in self._steps:
                future.cancel()
            self._steps.clear()
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        while self._next():
            pass

    def _called(self, timeout: float | None = None) -> bool:
        """Wait until there is something to do."""
        return bool(self._change.wait_for(lambda: self._steps or self._closed, timeout))

    def _next(self) -> bool:
        with self._change:
            called = self._called(REST)
        if not called:
            self._at_rest()
        with self._change:
            self._called()
            if self._closed:
                return False
            _, _, future, step = heappop(self._steps)
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(step())
            except BaseException as error:                             # whoever waits for it must hear of it
                future.set_exception(error)
        return True
