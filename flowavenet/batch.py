"""Many files at once: find them, work on each, go on past bad ones, and say at the end what went wrong."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def find_files(inputs: Iterable[Path], more_suffixes: tuple[str, ...] = ()) -> list[Path]:
    """Files as given, and of folders all audio (and mel) files in them."""
    from flowavenet.audio.files import AUDIO_SUFFIXES, list_files

    files: list[Path] = []
    for path in inputs:
        if not path.is_dir():
            files.append(path)
            continue
        found = list_files(path, AUDIO_SUFFIXES + more_suffixes)
        if not found:
            raise ValueError(f"{path}: no audio{' or mel' if more_suffixes else ''} files in this folder or below")
        files += found
    return files


def unique_stems(files: list[Path]) -> list[Path]:
    """Refuse two inputs whose results would have one name."""
    seen: dict[str, Path] = {}
    for file in files:
        if file.stem in seen:
            raise ValueError(f"{file}: its result would overwrite that of {seen[file.stem]}; vocode them into two folders")
        seen[file.stem] = file
    return files


def spare(files: list[Path], out: Path, suffix: str) -> None:
    """Refuse inputs that their own results, ``out/<stem><suffix>``, would replace."""
    for file in files:
        result = out / f"{file.stem}{suffix}"
        if result.exists() and file.exists() and result.samefile(file):
            raise ValueError(f"{file}: its result would replace it; choose another folder for results")


def for_each(files: list[Path], work: Callable[[Path], None]) -> list[str]:
    """Do the work on every file, past bad ones; what went wrong, a line each."""
    failed = Failures()
    for file in files:
        with failed.noted(file):
            work(file)
    return list(failed.values())


class Failures(dict[Path, str]):
    """What went wrong, by file, a line each."""

    @contextmanager
    def noted(self, file: Path) -> Iterator[None]:
        """Work on a file: an error ends the work and is noted, so that the next file can have its turn.

        Where results cannot be written, the next ones could not be either, and the error is raised.
        """
        from flowavenet.files import Unwritable

        try:
            yield
        except Unwritable:
            raise
        except (ValueError, OSError, RuntimeError, MemoryError) as error:  # torch, too, may be out of memory
            self[file] = once(file, one_line(error))


def in_background(
    items: Iterable[Item], work: Callable[[Item], Result], count: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Do the work on one item after the other in a thread of its own, while the caller does something else.

    Yields each item, in order, with its future: ``result()`` waits until the work is done, and raises what went wrong. At
    most ``count`` items are under way or done beyond those yielded, so that what they hold stays bounded; if it is 0, there
    is no other thread, and each item is done before it is yielded.
    """
    if not count:
        for item in items:
            yield item, _done(work, item)
        return
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(1) as thread:
        for item in items:
            waiting.append((item, thread.submit(work, item)))
            if len(waiting) > count:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


def _done(work: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Work that was done just now."""
    future = Future()
    try:
        future.set_result(work(item))
    except Exception as error:
        future.set_exception(error)
    return future


def end_with_parent() -> None:
    """Have this process, a worker, end with the one that started it, however that ends; else it waits for work, for ever.

    Ctrl-C, which reaches all processes of a terminal, is that one's to heed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def progress_bar() -> Any:
    """A progress bar on a terminal's stderr, gone when done; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def end(failed: list[str], total: int) -> None:
    """List the failures, if any, and leave with exit code 2."""
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {total} files failed", file=sys.stderr)
        sys.exit(2)


def say(notes: Mapping[Path, str]) -> None:
    """Tell the user what was noted of files, those that differ in nothing but numbers in one line."""
    alike: dict[str, list[Path]] = {}
    for file, note in notes.items():
        alike.setdefault(re.sub(r"[\d.]+", "", note), []).append(file)
    for first, *more in alike.values():
        company = f" (and {len(more)} more)" if more else ""
        print(f"note: {first}{company}: {notes[first]}", file=sys.stderr)


def once(path: Path, reason: str) -> str:
    """What went wrong with a file, naming it once."""
    return reason if str(path) in reason else f"{path}: {reason}"


def short_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, which each library does in its own words."""
    words = re.search("allocate|out of memory|could not create a primitive", str(error))
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and words is not None


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, and without what a terminal would obey."""
    text = str(error)
    if short_of_memory(error):
        amount = re.search(r"[\d.]+ ([KMGT]i?B|bytes)", text)
        return f"not enough memory{f' for {amount[0]} more' if amount else ''}; free some, or give it less at once"
    if "Original Traceback" in text:                                   # from a data worker: its last line says what it was
        text = text.strip().splitlines()[-1].partition(": ")[2]
    elif isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    line = " ".join(text.split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)  # of a hostile file
