"""Files that appear whole or not at all, whoever is killed while writing them."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flowavenet.files.writable import NoFolder, explained, unwritable

try:
    import fcntl
except ModuleNotFoundError:                                            # Windows
    fcntl = None

UNFINISHED = ".unfinished"
"""A folder beside the files that are being written; it is there for only so long."""


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Lend a hidden place for the file `path`; move it to `path` on success, delete it on any error.

    So nobody ever sees half a file, not even after a crash. What a killed process has left is deleted when another writes
    into the same folder.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with write_atomically(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'

    Raises:
        Unwritable: the disk is full or read-only, or the like; as NoFolder, which is a FileNotFoundError as well: there is
            no such folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise NoFolder(f"{path.parent}: no such folder; create it first")
    with _workplace(path) as temporary:
        with explained(path, temporary):
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # some libraries write files that only their owner may read
        os.replace(temporary, path)


@contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path`: in a folder of one's own, below UNFINISHED, for as long as it is needed.

    Those that dead processes have left there are removed. They are known by their locks, which end with their process,
    however that ends. A lock may not be seen from another machine that shares the disk; hence the machine's name.
    """
    unfinished, machine = path.parent / UNFINISHED, f"{platform.node()}-"
    try:
        folder, lock = _begun(unfinished, machine)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        for other in unfinished.iterdir():
            with suppress(FileNotFoundError):
                if other.name.startswith(machine) and (left := _locked(other, wait=False)):
                    shutil.rmtree(other, ignore_errors=True)
                    _unlock(left)
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)
        with suppress(OSError):                                        # others are at work there
            unfinished.rmdir()


def _begun(unfinished: Path, machine: str) -> tuple[Path, int | None]:
    """A new folder, and its lock."""
    while True:
        with suppress(FileExistsError):
            unfinished.mkdir()
        folder = unfinished / f"{machine}{secrets.token_hex(6)}"
        with suppress(FileNotFoundError):                              # another has just removed it, or `unfinished`
            folder.mkdir()
            lock = _locked(folder, wait=True)
            if folder.is_dir():
                return folder, lock
            _unlock(lock)                                              # that other was faster than our lock


def _locked(folder: Path, wait: bool) -> int | None:
    """Lock a folder, until that which is returned is unlocked; None: there are no locks here, or another has it."""
    if fcntl is None:
        return None
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(opened)
        return None
    return opened


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
