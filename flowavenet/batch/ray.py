"""Vocode by several processes, actors, which Ray Data keeps alive: folders of any size, on all processors of a machine.

Each actor has a vocoder of its own and does one portion of files at a time, as :class:`~flowavenet.batch.loop.Loop` does. If
one is killed, Ray starts another, which does its portion again: the same samples come out, and as results appear whole or
not at all, it does not matter how far the first had come.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch

from flowavenet.batch.loop import Job, Loop, Report
from flowavenet.batch.plan import File
from flowavenet.batch.sources import Detections
from flowavenet.files import Unwritable, one_line
from flowavenet.vocoder import Vocoder

RETRIES = 2
"""Times that a portion is done again whose actor died: a file that kills one would go on doing so."""
OBJECTS = 100_000_000
"""Bytes of memory that processes share: only paths and notes pass between them."""


class RayEngine:
    """Have actors vocode portions, to the same samples as one process of as many threads as an actor has.

    Args:
        checkpoint, precision: what each actor loads, as for :meth:`Vocoder.from_pretrained`.
        actors: processes; the processors are shared out among them. None: one per processor.

    Raises ValueError for more actors than processors.
    """

    def __init__(self, checkpoint: str | None = None, precision: str = "float32", actors: int | None = None):
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.actors, self.recipe = actors or processors, (checkpoint, precision)
        if self.actors > processors:
            raise ValueError(f"--actors is {actors}, this machine has {processors} processors; use at most that many")
        self.threads = processors // self.actors

    def __call__(
        self, job: Job, portions: Sequence[list[File]], known: Detections,
        progress: Callable[[float, int], None] = lambda done, total: None,
    ) -> Report:
        """Vocode portions, as :class:`~flowavenet.batch.loop.Loop` does.

        Raises ModuleNotFoundError if ray is not there, ValueError if it does not start or gives up, in one line.
        """
        report, left, total = Report(), dict(enumerate(portions)), sum(map(len, portions))
        if not portions:
            return report
        with started(self.actors * self.threads) as ray:
            from ray.data import ActorPoolStrategy, from_items

            # from long to short, so that actors end at about one time
            rows = [{"number": number, "files": pickle.dumps(portions[number])} for number in reversed(left)]
            results = from_items(rows, override_num_blocks=len(rows)).map(
                Actor, fn_constructor_args=(job, known, *self.recipe, self.threads), num_cpus=self.threads,
                compute=ActorPoolStrategy(size=self.actors, max_tasks_in_flight_per_actor=1), max_task_retries=RETRIES,
            )
            try:
                for row in results.iter_rows():
                    result = pickle.loads(row["result"])
                    if isinstance(result, str):
                        raise Unwritable(result)
                    report.add(result)
                    del left[row["number"]]
                    progress(total - sum(map(len, left.values())), total)
            except ray.exceptions.RayError as error:
                said = one_line(error).rpartition("Error: ")[2]
                raise ValueError(f"the actors of ray gave up ({said}); go on with --skip-existing") from None
        why = f"{RETRIES + 1} processes died over it, or over one beside it, perhaps for want of memory; try it by itself"
        report.failed |= {file: f"{file}: {why}" for portion in left.values() for file in portion if not file.done}
        return report


class Actor:
    """Vocode portions in a process of its own."""

    def __init__(self, job: Job, known: Detections, checkpoint: str | None, precision: str, threads: int):
        torch.set_num_threads(threads)
        self.loop, self.job, self.known = Loop(Vocoder.from_pretrained(checkpoint, "cpu", precision)), job, known

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the report of a portion; or what it says where results cannot be written."""
        try:
            result = self.loop(self.job, [pickle.loads(row["files"])], self.known)
        except Unwritable as error:
            result = one_line(error)
        return {"number": row["number"], "result": pickle.dumps(result)}


@contextmanager
def started(processors: int) -> Iterator[Any]:
    """Have Ray on this machine for as long as needed: it reports to nobody, serves no page, and leaves no files.

    Raises ModuleNotFoundError or ValueError, in one line, if it is not there or does not start.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise ModuleNotFoundError("engine ray needs ray: pip install 'flowavenet[ray]'") from None

    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder, ExitStack() as at_end:
        at_end.callback(ray.shutdown)
        os.environ["RAY_TMPDIR"] = folder
        try:
            ray.init(
                address="local", num_cpus=processors, include_dashboard=False, log_to_driver=False,
                object_store_memory=OBJECTS, logging_level=logging.CRITICAL,
            )
        except Exception as error:                                     # what its services may meet is of many kinds
            raise ValueError(f"ray did not start ({one_line(error)[:200]}); try again, or leave the engine out") from error
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars, context.max_errored_blocks = False, -1  # a portion that is given up is no end
        yield ray
