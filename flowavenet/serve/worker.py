"""One thread does all of torch's work, in steps of one chunk of audio, for whoever needs it first.

Torch uses all cores for one piece of work, so two at once would only be in each other's way. A step is due when its audio is
needed: the first of a request at once, each other when what was made before it has been heard (earliest deadline first: Liu
and Layland, 1973). So a long request does not keep a short one waiting, nor does a stream that is ahead of its listener keep
one from beginning. Requests for mels of one length and the same settings that wait at the same time are rendered together;
none waits for company.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock
from time import monotonic, perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor

from flowavenet.audio import MelSettings
from flowavenet.serve.metrics import Metrics
from flowavenet.serve.turns import Turns
from flowavenet.vocoder import Vocoder

Result = TypeVar("Result")
LATELY = 20
"""Steps that the usual duration of one is judged by."""


class Worker:
    """The thread, the steps that wait for it, and the batches that can still be joined.

    Args:
        metrics: are told of steps and audio.
        batch: mels that are rendered together, at most.
    """

    def __init__(self, metrics: Metrics, batch: int):
        self.metrics, self.batch = metrics, batch
        self._turns = Turns("vocoder", give_back)
        self._joinable: dict[tuple, Batch] = {}
        self._lock = Lock()
        self._since: float | None = None                               # when the step at work began
        self._usual = 0.0                                              # seconds of a step, a running mean

    @property
    def stuck(self) -> float:
        """Seconds that the step at work has taken so far."""
        since = self._since
        return 0.0 if since is None else monotonic() - since

    def wait(self, more: int = 0) -> float:
        """Seconds that a new request would wait for its turn, behind so many more steps than are due: an estimate."""
        return (self._turns.late() + more) * self._usual

    def close(self) -> None:
        self._turns.close()

    def do(self, step: Callable[..., Result], *given: Any, due: float = 0.0) -> Future[Result]:
        """Let the thread do a step when its turn has come; by default it is the next."""

        def timed() -> Result:
            self.metrics.waiting.dec()
            self._since, start = monotonic(), perf_counter()
            try:
                return step(*given)
            finally:
                self._since, took = None, perf_counter() - start
                self._usual += (took - self._usual) / LATELY
                self.metrics.work.inc(took)

        self.metrics.waiting.inc()
        return self._turns.do(timed, due)

    def vocode(
        self, vocoder: Vocoder, mel: Tensor, chunk_frames: int | None, seed: int, **how: Any
    ) -> AsyncIterator[Tensor]:
        """Make audio of a whole mel (1, n_mels, frames): (1, samples), as soon as each chunk is made.

        Args:
            chunk_frames: frames per chunk; None: as few chunks as memory allows.
            seed, how: as for :meth:`Vocoder.stream`.
        """
        if chunk_frames is None:
            tile = vocoder.tile(how.get("match"), how.get("denoise", 0) > 0)
            chunk_frames = tile if mel.shape[2] > 1.5 * tile else mel.shape[2]
        order = Order(mel, seed)
        key = id(vocoder), mel.shape, chunk_frames, *sorted(how.items())
        with self._lock:
            batch = self._joinable.get(key)
            if batch is None or len(batch.orders) >= self.batch:
                batch = self._joinable[key] = Batch(self, vocoder, chunk_frames, how)
                self.do(batch.begin, key, due=batch.due)
            batch.orders.append(order)
        return order.chunks()

    def taken(self, key: tuple, batch: Batch) -> list[Order]:
        """The orders of a batch, which none can join any more."""
        with self._lock:
            if self._joinable.get(key) is batch:                       # else a full one, that another has followed
                del self._joinable[key]
            return [order for order in batch.orders if not order.left]

    def made(self, vocoder: Vocoder, chunk: Tensor, due: float) -> float:
        """Count audio (batch, samples) that was due at a time; when the next is, as this has been heard then."""
        self.metrics.audio.inc(chunk.numel() / vocoder.sample_rate)
        return max(due, monotonic()) + chunk.shape[1] / vocoder.sample_rate


def give_back() -> None:
    """Let the system have the memory that is free but kept: glibc parts only with what ends a heap. After a minute of far
    too many requests that is 200 MB; it takes milliseconds."""
    with suppress(AttributeError, OSError, TypeError):                 # another C library, which does as it does
        ctypes.CDLL(None).malloc_trim(0)


class Order:
    """One request's mel and seed, and the way of its audio from the thread of work to the event loop."""

    def __init__(self, mel: Tensor, seed: int):
        self.mel, self.seed, self.left = mel, seed, False
        self._loop, self._made = asyncio.get_running_loop(), asyncio.Queue()

    def put(self, made: Tensor | Exception | None) -> None:
        """Hand over a chunk, what went wrong, or None at the end; from any thread."""
        with suppress(RuntimeError):                                   # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._made.put_nowait, made)

    async def chunks(self) -> AsyncIterator[Tensor]:
        try:
            while (made := await self._made.get()) is not None:
                if isinstance(made, Exception):
                    raise made
                yield made
        finally:
            self.left = True                                           # so that no more is made for it


class Batch:
    """Orders of mels of one length, rendered together, chunk by chunk; each gets what it would get alone."""

    def __init__(self, worker: Worker, vocoder: Vocoder, chunk_frames: int, how: dict[str, Any]):
        self.worker, self.vocoder, self.chunk_frames, self.how = worker, vocoder, chunk_frames, how
        self.orders: list[Order] = []
        self.due, self.frames = monotonic(), 0                         # of the next chunk; made so far

    def begin(self, key: tuple) -> None:
        """The first step."""
        self.orders = self.worker.taken(key, self)
        if self.orders:
            self.worker.metrics.together.observe(len(self.orders))
            self.chunks = self._chunks()
            self.go_on()

    def go_on(self) -> None:
        """Another step, and so on until all is made or nobody waits for it."""
        try:
            chunk = next(self.chunks)
        except Exception as error:                                     # whatever it is, those who wait must hear of it
            for order in self.orders:
                order.put(error)
            return
        self.frames += chunk.shape[1] // self.vocoder.settings.hop_length
        ended = self.frames >= self.orders[0].mel.shape[2]             # said at once, not when another turn has come
        for order, row in zip(self.orders, chunk.cpu().split(1), strict=True):
            order.put(row)
            if ended:
                order.put(None)
        self.due = self.worker.made(self.vocoder, chunk, self.due)
        if ended or all(order.left for order in self.orders):
            self.chunks.close()                                        # it and this hold each other, and much memory
        else:
            self.worker.do(self.go_on, due=self.due)

    def _chunks(self) -> Iterator[Tensor]:
        mels, seeds = torch.cat([order.mel for order in self.orders]), [order.seed for order in self.orders]
        yield from self.vocoder.stream(mels, self.chunk_frames, seed=seeds, **self.how)


class Remote:
    """A vocoder whose work is done by the thread of work: ``stream`` as of :class:`Vocoder`, from any other thread."""

    def __init__(self, vocoder: Vocoder, worker: Worker):
        self.vocoder, self.worker = vocoder, worker

    @property
    def settings(self) -> MelSettings:
        return self.vocoder.settings

    def stream(self, mel: Iterable[Tensor], chunk_frames: int = 32, **how: Any) -> Iterator[Tensor]:
        """As :meth:`Vocoder.stream`, of pieces that are waited for here: a step begins when all that it reads is there."""
        held: deque[Tensor] = deque()

        def at_hand() -> Iterator[Tensor]:
            while held:
                yield held.popleft()

        chunks = self.vocoder.stream(at_hand(), chunk_frames, **how)
        wanted = chunk_frames + self.vocoder.receptive_field(how.get("match"), how.get("denoise", 0) > 0)[1]
        arrived, made, due = 0, 0, 0.0

        def another() -> Tensor:
            nonlocal made, due
            chunk = self.worker.do(next, chunks, due=due or monotonic()).result()
            due = self.worker.made(self.vocoder, chunk, due)
            made += chunk.shape[1] // self.settings.hop_length
            return chunk.cpu()

        for piece in mel:
            held.append(piece)
            arrived += piece.shape[2]
            while arrived >= wanted:
                yield another()
                wanted += chunk_frames
        while made < arrived:
            yield another()
