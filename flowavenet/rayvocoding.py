"""Vocoding by several processes, which Ray Data keeps alive: folders of any size, on all processors of a machine.

Each process, an actor, has a vocoder of its own, and works as plain vocoding does (vocoding.py) on a few files at a time. If
one is killed, Ray starts another, which does those files again: the same samples come out, and as each result is written
under a temporary name and then renamed, it does not matter how far the first had come. (The temporary file, hidden, stays.)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from flowavenet.batch import one_line
from flowavenet.vocoder import Vocoder
from flowavenet.vocoding import Source, Vocoding

TASK = 30.0
"""Seconds of audio that an actor is given at a time, at least: handing them out takes milliseconds."""
LIVES = 3
"""Processes that may die over a task: a file that kills one would go on doing so."""
OBJECTS = 100_000_000
"""Bytes of memory that processes share: only paths and notes pass between them."""


class RayVocoding(Vocoding):
    """As :class:`Vocoding`, and with the same samples as that has with as many threads as an actor.

    Args:
        vocoder: decides what is done with which file; the actors load their own.
        checkpoint, precision: it was loaded from, and computes in, as for :meth:`Vocoder.from_pretrained`.
        actors: processes; the processors are shared out among them. None: one per processor.
        The others: as for Vocoding; ``progress`` is told after each task.

    Raises:
        ModuleNotFoundError: ray is not there.
        ValueError: more actors than processors, or a vocoder that is not on the CPU.
    """

    def __init__(
        self, vocoder: Vocoder, *arguments: Any, checkpoint: str | None = None, precision: str = "float32",
        actors: int | None = None, **options: Any,
    ):
        super().__init__(vocoder, *arguments, **options)
        if vocoder.device.type != "cpu":
            raise ValueError(f"engine ray shares out processors, not {vocoder.device}; leave the engine out")
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.actors = actors or processors
        if self.actors > processors:
            raise ValueError(f"--actors is {actors}, this machine has {processors} processors; use at most that many")
        self.threads = processors // self.actors
        self.recipe = checkpoint, precision

    def run(self, files: Iterable[Path]) -> None:
        groups = self.groups(files)
        self.total = sum(source.frames for group in groups for source in group)
        if not groups:
            return
        how = {
            "out": self.out, "batch": self.batch, "picture": self.picture, "seed": self.seed, "skip": self.skip,
            "convention": self.convention, "level_db": self.level_db, "company": self.company, **self.how,
        }
        with ray_cluster(self.actors * self.threads) as ray, TemporaryDirectory() as folder:
            from ray.data import ActorPoolStrategy, from_items

            files = [[str(source.path) for source in task] for task in self._tasks(groups)]
            tasks = [{"files": some, "tries": f"{folder}/{number}"} for number, some in enumerate(files)]
            results = from_items(tasks, override_num_blocks=len(tasks)).map(
                Actor, fn_constructor_args=(*self.recipe, self.threads, how), num_cpus=self.threads,
                compute=ActorPoolStrategy(size=self.actors),           # which starts anew those that die
            )
            try:
                for result in results.iter_rows():
                    self._note(result)
            except ray.exceptions.RayError as error:
                said = one_line(error).rpartition("Error: ")[2]
                raise ValueError(f"the actors of ray gave up ({said}); go on with --skip-existing") from None

    def _tasks(self, groups: list[list[Source]]) -> Iterator[list[Source]]:
        """Groups together, from long to short, so that the actors end at about the same time."""
        task: list[Source] = []
        enough = TASK * self.vocoder.sample_rate / self.vocoder.settings.hop_length
        for group in reversed(groups):
            # An actor forms groups anew: as all but the last of a length are full, they come out as they are here.
            if sum(source.frames for source in task) >= enough:
                yield task
                task = []
            task = [*group, *task]
        if task:
            yield task

    def _note(self, result: dict[str, Any]) -> None:
        self.notes |= {Path(file): note for file, note in result["notes"]}
        self.failed |= {Path(file): line for file, line in result["failed"]}
        self.made += result["made"]
        self.spent += result["spent"]
        self.progress(self.made, self.total)


class Actor:
    """What runs in each process: a vocoder, and a plain vocoding for each task."""

    def __init__(self, checkpoint: str | None, precision: str, threads: int, how: dict[str, Any]):
        torch.set_num_threads(threads)
        self.vocoder, self.how = Vocoder.from_pretrained(checkpoint, "cpu", precision), how

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        with open(task["tries"], "ab") as tries:
            tries.write(b".")
            if tries.tell() > LIVES:
                said = f"{LIVES} processes died over it, or over one beside it, perhaps for want of memory; try it by itself"
                failed = [[file, f"{file}: {said}"] for file in task["files"]]
                return {"notes": [], "failed": failed, "made": 0, "spent": 0.0}
        work = Vocoding(self.vocoder, **self.how)
        work.run([Path(file) for file in task["files"]])
        notes, failed = ([[str(file), line] for file, line in what.items()] for what in (work.notes, work.failed))
        return {"notes": notes, "failed": failed, "made": work.made, "spent": work.spent}


@contextmanager
def ray_cluster(processors: int) -> Iterator[Any]:
    """Ray on this machine, for as long as needed: it reports to nobody, serves no page, and leaves no files."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise ModuleNotFoundError("engine ray needs ray: pip install 'flowavenet[ray]'") from None

    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        try:
            ray.init(
                address="local", num_cpus=processors, include_dashboard=False, log_to_driver=False, _temp_dir=folder,
                object_store_memory=OBJECTS, logging_level=logging.ERROR,
            )
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            ray.data.DataContext.get_current().enable_progress_bars = False
            yield ray
        finally:
            ray.shutdown()
