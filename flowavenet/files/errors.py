"""Say in one line what went wrong, and go on past the files that it went wrong with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowavenet.files.writable import Unwritable


def one_line(error: BaseException) -> str:
    """Return the message of an error without line breaks, and without characters that a terminal would obey."""
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


def short_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there was not enough memory, which each library does in its own words."""
    words = re.search("allocate|out of memory|could not create a primitive", str(error))
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and words is not None


def once(path: Any, reason: str) -> str:
    """Put the name of a file before what went wrong with it, unless that names it already."""
    return reason if str(path) in reason else f"{path}: {reason}"


class Failures(dict[Any, str]):
    """Collect what went wrong: a line for each file."""

    @contextmanager
    def noted(self, file: Any, path: Path | None = None) -> Iterator[None]:
        """Work on a file: an error ends the work and is noted, so that the next file can have its turn.

        Where results cannot be written, the next ones could not be either, and the error is raised.

        Args:
            file: it is noted under this, and named as this says.
            path: where it lies for as long as it is worked on, if that is not what the user called it.
        """
        try:
            yield
        except Unwritable:
            raise
        except (ValueError, OSError, RuntimeError, MemoryError) as error:  # torch, too, may be out of memory
            line = one_line(error)
            self[file] = once(file, line.replace(str(path), str(file)) if path else line)
