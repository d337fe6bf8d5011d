"""Files elsewhere: in object stores, on servers, anywhere that fsspec has a protocol for, as ``s3://bucket/mels``.

Three things can be done with them: list a folder, in one request or as many as its pages need; fetch a file; put one, which
then appears whole or not at all. What fails is tried again a few times, and what fails for good is an error of one line.
Keys and addresses of stores are fsspec's own matter: its configuration files, and the variables that a store's tools use.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from flowavenet.batch import one_line
from flowavenet.files import NoFolder, Unwritable

Result = TypeVar("Result")

PAUSES = 1.0, 4.0, 16.0
"""Seconds before what failed is tried again."""
TRANSFERS = 8
"""Files that are on their way at once, where a store is made for that."""
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci"}
"""Protocols of stores where an object that is put appears whole; elsewhere a file is renamed into its place."""
TIMES = "mtime", "LastModified", "last_modified", "updated", "modified", "created"
"""What stores call the time of the last change; the first that is told counts."""


@dataclass(frozen=True)
class RemoteFile:
    """A file elsewhere, as its folder lists it; named as a ``Path`` names its parts."""

    folder: str
    """Its address, as it was given."""
    path: str
    """From there."""
    size: int | None = field(default=None, compare=False)
    """Bytes; None: the store does not tell."""
    modified: float | None = field(default=None, compare=False)
    """Seconds since 1970; None: the store does not tell."""
    there: bool | None = field(default=None, compare=False)
    """Whether its results are there already; None: nobody has looked."""

    def __str__(self) -> str:
        return f"{self.folder}/{self.path}"

    @property
    def parent(self) -> str:
        return str(self).rpartition("/")[0]

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix


def is_url(place: str) -> bool:
    """Whether this is an address, ``protocol://...``, rather than a path.

    >>> is_url("s3://bucket/mels"), is_url("bucket/mels")
    (True, False)
    """
    return "://" in place


def find_remote(places: Iterable[str], suffixes: tuple[str, ...]) -> list[RemoteFile]:
    """Files with one of the suffixes, by address or by path: as given, and of folders all in them and below.

    Raises ModuleNotFoundError, ValueError or OSError, in one line.
    """
    files: list[RemoteFile] = []
    for place in places:
        folder, root, name = place.rpartition("/")
        if PurePosixPath(name).suffix.lower() in suffixes:             # which needs no request to find out
            files.append(_file(place, folder or root or ".", name))
            continue
        found = [file for file in list_remote(place) if file.suffix.lower() in suffixes]
        if not found:
            raise ValueError(f"{place}: no {', '.join(suffixes)} files in this folder or below; check its address")
        files += found
    return files


def list_remote(folder: str) -> list[RemoteFile]:
    """All files in a folder and below, sorted as paths are, without hidden ones; none if there is no such folder."""
    store, root = _store(folder)
    root, folder = root.rstrip("/"), folder.rstrip("/")
    store.invalidate_cache()                                           # others may write there as well
    with suppress(FileNotFoundError):
        found = _tried(folder, "list", lambda: store.find(root, detail=True))
        paths = {name.removeprefix(root).lstrip("/"): about for name, about in found.items()}
        shown = sorted((path.split("/"), path) for path in paths if not any(part[:1] == "." for part in path.split("/")))
        return [RemoteFile(folder, path, paths[path].get("size"), _modified(paths[path])) for _, path in shown]
    return []


def fetch(file: RemoteFile, path: Path) -> None:
    """Copy a file to a path of this machine. Raises OSError, in one line."""
    store, root = _store(file.folder)

    def whole() -> None:
        store.get_file(f"{root.rstrip('/')}/{file.path}", str(path))
        present = path.stat().st_size
        if file.size not in (None, present):
            raise OSError(f"{present} of {file.size} bytes came")

    _tried(str(file), "read", whole)


def put(path: Path, folder: str) -> None:
    """Copy a file of this machine into a folder, in which it appears whole or not at all.

    Raises Unwritable for what concerns every file there, else OSError; in one line.
    """
    store, root = _store(folder)
    target = f"{root.rstrip('/')}/{path.name}"

    def whole() -> None:
        if not OBJECT_STORES.isdisjoint(_protocols(store)):
            store.put_file(str(path), target)
            return
        temporary = f"{root.rstrip('/')}/.{secrets.token_hex(6)}{path.suffix}"
        store.makedirs(root, exist_ok=True)
        try:
            store.put_file(str(path), temporary)
            store.mv(temporary, target)
        except BaseException:
            with suppress(Exception):
                store.rm_file(temporary)
            raise

    _tried(f"{folder.rstrip('/')}/{path.name}", "write", whole)


def transfers(places: Iterable[str]) -> int:
    """How many files may be on their way from or to these places at once."""
    return min((TRANSFERS if _store(place)[0].async_impl else 1 for place in places), default=1)


def check_results(folder: str, files: Iterable[RemoteFile], suffix: str) -> None:
    """Refuse a folder that is only for reading, or in which results would replace their inputs, as they have a suffix.

    Raises as :func:`find_remote`.
    """
    store, root = _store(folder)
    if {"http", "https"} & _protocols(store):
        raise ValueError(f"{folder}: can be read, but not be written to; give a folder, or an address as s3://bucket/folder")
    endangered = {file.parent: file for file in files if file.suffix == suffix}
    for parent, file in endangered.items():
        where, inside = _store(parent)
        if type(where) is type(store) and inside.rstrip("/") == root.rstrip("/"):
            raise ValueError(f"{file}: its result would replace it; choose another folder for results")


def _store(place: str) -> tuple[Any, str]:
    """The file system of an address or path, and the path that it has there. fsspec keeps those that were made."""
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{place}: addresses need fsspec: pip install 'flowavenet[remote]'") from None
    try:
        return url_to_fs(place)
    except ImportError as error:                                       # which says what to install
        said = one_line(error).rstrip(".")
        raise ModuleNotFoundError(f"{place}: its store needs a package that is not here ({said}); get it by pip") from None
    except ValueError as error:
        raise ValueError(f"{place}: {one_line(error)}; give an address that fsspec knows, as s3://bucket/folder") from None


def _protocols(store: Any) -> set[str]:
    return {store.protocol} if isinstance(store.protocol, str) else set(store.protocol)


def _file(place: str, folder: str, name: str) -> RemoteFile:
    """A file that was named: what its store knows of it, if it can be asked."""
    store, path = _store(place)
    about: dict[str, Any] = {}
    with suppress(OSError):                                            # will be said when its turn comes
        about = _tried(place, "read", lambda: store.info(path))
    return RemoteFile(folder, name, about.get("size"), _modified(about))


def _modified(about: dict[str, Any]) -> float | None:
    told = next((about[name] for name in TIMES if about.get(name)), None)
    if isinstance(told, str):
        told = datetime.fromisoformat(told.replace("Z", "+00:00"))
    if isinstance(told, datetime):
        told = (told if told.tzinfo else told.replace(tzinfo=timezone.utc)).timestamp()
    return told


def _tried(place: str, what: str, action: Callable[[], Result]) -> Result:
    """Do it, again after a while if it fails; an error of one line names the place, what failed, and the cure."""
    for pause in (*PAUSES, None):
        try:
            return action()
        except FileNotFoundError:
            if what == "write":
                raise NoFolder(f"{place}: no such bucket or folder; check its address") from None
            raise FileNotFoundError(f"{place}: no such file; check its address") from None
        except PermissionError as error:
            said = f"{place}: you may not {what} it ({one_line(error)}); log in, or set the keys that its store wants"
            raise (Unwritable if what == "write" else PermissionError)(said) from None
        except Exception as error:                                     # of some transport: stores have their own kinds
            if pause is None:
                said = f"could not {what} it, {len(PAUSES) + 1} times ({one_line(error)})"
                cure = "see that it can be reached and knows your keys, then go on with --skip-existing"
                raise OSError(f"{place}: {said}; {cure}") from error
            time.sleep(pause)
    raise AssertionError
