"""Vocoding by several processes, which Ray Data keeps alive: folders of any size, on all processors of a machine.

Each process, an actor, has a vocoder of its own, and works as vocoding does without Ray on a few files at a time. If
one is killed, Ray starts another, which does those files again: the same samples come out, and as results appear whole or
not at all, it does not matter how far the first had come.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import torch

from flowavenet.batch import one_line
from flowavenet.files import Unwritable
from flowavenet.remote import RemoteFile
from flowavenet.vocoder import Vocoder
from flowavenet.vocoding import Vocoding, portions

LIVES = 3
"""Processes that may die over a task: a file that kills one would go on doing so."""
SERVICES = "gcs_server", "raylet"
"""Ray's own processes without which it is nothing."""
LOST = "10"
"""Seconds after which Ray gives one of them up; it would not come back."""
OBJECTS = 100_000_000
"""Bytes of memory that processes share: only paths and notes pass between them."""


class RayVocoding:
    """Let actors do the work of a vocoding, with the same samples as that has with as many threads as an actor.

    Args:
        work: what is to be done, which also takes down how it goes; ``progress`` is told after each task. Its vocoder
            decides what is done with which file; the actors load their own.
        checkpoint, precision: it was loaded from, and computes in, as for :meth:`Vocoder.from_pretrained`.
        actors: processes; the processors are shared out among them. None: one per processor.

    Raises:
        ModuleNotFoundError: ray is not there.
        ValueError: more actors than processors, or a vocoder that is not on the CPU.
    """

    def __init__(
        self, work: Vocoding, checkpoint: str | None = None, precision: str = "float32", actors: int | None = None
    ):
        if work.vocoder.device.type != "cpu":
            raise ValueError(f"engine ray shares out processors, not {work.vocoder.device}; leave the engine out")
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.work, self.actors = work, actors or processors
        if self.actors > processors:
            raise ValueError(f"--actors is {actors}, this machine has {processors} processors; use at most that many")
        self.threads = processors // self.actors
        self.recipe = checkpoint, precision

    def run(self, files: Iterable[Path | RemoteFile]) -> None:
        work = self.work
        tasks = list(portions(work.groups(files), work.vocoder))[::-1]  # from long to short: actors end at about one time
        lengths = [sum(source.frames for source in task) for task in tasks]
        work.total, done = sum(lengths), 0
        if not tasks:
            return
        with ray_cluster(self.actors * self.threads) as (ray, folder):
            from ray.data import ActorPoolStrategy, from_items

            rows = [
                {"number": number, "files": pickle.dumps([source.path for source in task]), "tries": f"{folder}/{number}"}
                for number, task in enumerate(tasks)
            ]
            results = from_items(rows, override_num_blocks=len(rows)).map(
                Actor, fn_constructor_args=(type(work), _how(work), *self.recipe, self.threads), num_cpus=self.threads,
                compute=ActorPoolStrategy(size=self.actors),           # which starts anew those that die
            )
            try:
                for result in results.iter_rows():
                    self._note(**pickle.loads(result["result"]))
                    done += lengths[result["number"]]
                    work.progress(done, work.total)
            except ray.exceptions.RayError as error:
                said = one_line(error).rpartition("Error: ")[2]
                raise ValueError(f"the actors of ray gave up ({said}); go on with --skip-existing") from None

    def _note(self, notes: dict, failed: dict, made: int = 0, spent: float = 0.0, ended: str = "") -> None:
        if ended:
            raise Unwritable(ended)
        self.work.notes |= notes
        self.work.failed |= failed
        self.work.made += made
        self.work.spent += spent


def _how(work: Vocoding) -> dict[str, Any]:
    """What another vocoding is made from that does the same."""
    names = "out", "batch", "picture", "seed", "skip", "convention", "level_db", "together"
    return {name: getattr(work, name) for name in names} | work.how


class Actor:
    """What runs in each process: a vocoder, and a vocoding for each task."""

    def __init__(self, kind: type[Vocoding], how: dict[str, Any], checkpoint: str | None, precision: str, threads: int):
        torch.set_num_threads(threads)
        self.vocoder, self.kind, self.how = Vocoder.from_pretrained(checkpoint, "cpu", precision), kind, how

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        return {"number": task["number"], "result": pickle.dumps(self._result(pickle.loads(task["files"]), task["tries"]))}

    def _result(self, files: list[Path | RemoteFile], tries: str) -> dict[str, Any]:
        with open(tries, "ab") as marks:
            marks.write(b".")
            if marks.tell() > LIVES:
                said = f"{LIVES} processes died over it, or over one beside it, perhaps for want of memory; try it by itself"
                return {"notes": {}, "failed": {file: f"{file}: {said}" for file in files}}
        work = self.kind(self.vocoder, **self.how)
        try:
            work.run(files)
        except Unwritable as error:
            return {"notes": {}, "failed": {}, "ended": one_line(error)}
        return {"notes": work.notes, "failed": dict(work.failed), "made": work.made, "spent": work.spent}


@contextmanager
def ray_cluster(processors: int) -> Iterator[tuple[Any, Path]]:
    """Ray on this machine, and a folder, for as long as needed: it reports to nobody, serves no page, and leaves no files.

    Raises ValueError if it does not start. If one of its own processes dies later, this one ends with code 2 and one line:
    Ray would end it within seconds, without a word.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    os.environ["RAY_gcs_rpc_server_reconnect_timeout_s"] = LOST
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise ModuleNotFoundError("engine ray needs ray: pip install 'flowavenet[ray]'") from None

    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder, _watched(ray, folder):
        try:
            ray.init(
                address="local", num_cpus=processors, include_dashboard=False, log_to_driver=False, _temp_dir=folder,
                object_store_memory=OBJECTS, logging_level=logging.ERROR,
            )
        except Exception as error:                                     # what its services may meet is of many kinds
            raise ValueError(f"ray did not start ({one_line(error)[:200]}); try again, or leave the engine out") from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        (tries := Path(folder, "tries")).mkdir()
        yield ray, tries


@contextmanager
def _watched(ray: Any, folder: str) -> Iterator[None]:
    """Ray, until it is shut down at the end; if it loses one of its services, its folder goes, and this process ends."""
    ended = Event()

    def watch() -> None:
        while not ended.wait(0.3):
            node = ray._private.worker._global_node                    # nothing public tells
            if node and (lost := [kind for kind, _ in node.dead_processes() if kind in SERVICES]) and not ended.is_set():
                with suppress(Exception):                              # its folder goes in any case
                    node.kill_all_processes(check_alive=False)
                shutil.rmtree(folder, ignore_errors=True)
                print(f"error: ray lost its {lost[0]}; go on with --skip-existing", file=sys.stderr, flush=True)
                os._exit(2)

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        ray.shutdown()
