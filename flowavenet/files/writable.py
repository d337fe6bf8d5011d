"""Where results cannot be written: said in one line, with what helps, and before the work rather than after it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

PROBE = bytes(1 << 16)
FULL = (errno.ENOSPC, errno.EDQUOT)
CURES = dict.fromkeys(FULL, "free some space, and run it again") | {
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), and run it again",
    errno.ENOENT: "its folder was taken away; run it again",
    errno.ENAMETOOLONG: "give it a shorter name",
}
"""What helps where a file cannot be written; else another folder."""


class Unwritable(OSError):
    """The place for results cannot be written to: what is left to do would only fail as well."""


class NoFolder(Unwritable, FileNotFoundError):
    """The folder for results is not there, or not any more."""


@contextmanager
def explained(path: Path, temporary: Path) -> Iterator[None]:
    """Write a file under a temporary name; if it is for want of a place that this fails, raise :class:`Unwritable`.

    Libraries tell of a full disk in words of their own, so whatever they raise, the disk itself is asked.
    """
    try:
        yield
    except Exception as error:
        own = isinstance(error, OSError) and (error.errno in FULL or str(error.filename) == str(temporary))
        refusal = error if own else _refusal(temporary)
        if refusal is None:
            raise
        raise unwritable(path, refusal) from error


def ready_folder(folder: str | Path) -> None:
    """Make a folder if it is not there, and see that files can be written to it. Raises :class:`Unwritable`."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder, buffering=0) as file:
            file.write(PROBE[:1])
    except OSError as error:
        raise unwritable(folder, error) from error


def _refusal(path: Path) -> OSError | None:
    """What the system says if a file is to be continued; None: it does that."""
    try:
        with path.open("r+b", buffering=0) as file:
            file.seek(0, os.SEEK_END)
            left = len(PROBE)
            while left:
                left -= file.write(PROBE[:left])
    except OSError as error:
        return error
    return None


def unwritable(path: Path, error: OSError) -> Unwritable:
    """What to raise where the system refuses a file, with what helps."""
    in_the_way = next((place for place in (path, *path.parents) if place.exists()), path)
    if in_the_way.is_file() and error.errno in (errno.EEXIST, errno.ENOTDIR):
        return Unwritable(f"{in_the_way}: is a file; name a folder")
    return Unwritable(f"{path}: cannot be written ({error.strerror}); {CURES.get(error.errno, 'choose another folder')}")
