"""Many files at once: find them, work on each, go on past bad ones, and say at the end what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def find_files(inputs: Iterable[Path], more_suffixes: tuple[str, ...] = ()) -> list[Path]:
    """Files as given, and of folders all audio (and mel) files in them."""
    from flowavenet.audio import list_audio

    files: list[Path] = []
    for path in inputs:
        if not path.is_dir():
            files.append(path)
            continue
        found = list_audio(path) + [file for file in path.rglob("*") if file.suffix.lower() in more_suffixes]
        if not found:
            raise ValueError(f"{path}: no audio{' or mel' if more_suffixes else ''} files in this folder or below")
        files += sorted(found)
    return files


def unique_stems(files: list[Path]) -> list[Path]:
    """Refuse two inputs whose results would have one name."""
    seen: dict[str, Path] = {}
    for file in files:
        if file.stem in seen:
            raise ValueError(f"{file}: its result would overwrite that of {seen[file.stem]}; vocode them into two folders")
        seen[file.stem] = file
    return files


def for_each(files: list[Path], work: Callable[[Path], None], title: str = "") -> list[str]:
    """Do the work on every file, past bad ones; what went wrong, a line each."""
    failed = []
    with progress_bar(disable=not title) as bar:
        for file in bar.track(files, description=title):
            try:
                work(file)
            except (ValueError, OSError, RuntimeError) as error:       # the last: torch is out of memory
                failed.append(once(file, one_line(error)))
    return failed


def progress_bar(disable: bool = False) -> Any:
    """A progress bar on a terminal's stderr, gone when done; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), disable=disable or not sys.stderr.isatty(), transient=True)


def end(failed: list[str], total: int) -> None:
    """List the failures, if any, and leave with exit code 2."""
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {total} files failed", file=sys.stderr)
        sys.exit(2)


def once(path: Path, reason: str) -> str:
    """What went wrong with a file, naming it once."""
    return reason if str(path) in reason else f"{path}: {reason}"


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks."""
    text = str(error)
    if "Original Traceback" in text:                                   # from a data worker: its last line says what it was
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split()) or type(error).__name__
