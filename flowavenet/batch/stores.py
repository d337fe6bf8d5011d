"""Copy files from and to object stores and servers, by fsspec: wherever that has a protocol for, as ``s3://bucket/mels``.

Keys and addresses of stores are fsspec's own matter: its configuration files, and the variables that a store's tools use.
What fails is tried once more, beyond what the libraries of stores do by themselves, and is then an error of one line.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flowavenet.batch.plan import File
from flowavenet.files import Failures, NoFolder, Unwritable, one_line

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci"}
"""Protocols of stores where an object that is put appears whole; elsewhere a file is renamed into its place."""
TIMES = "mtime", "LastModified", "last_modified", "updated", "modified", "created"
"""What stores call the time of the last change; the first that is told counts."""


def list_store(folder: str) -> dict[str, tuple[int | None, float | None]]:
    """List all files in a folder and below it: size and time of the last change, if told, by path from there.

    Raises ModuleNotFoundError, ValueError or OSError, in one line.
    """
    store, root = open_store(folder)
    root = root.rstrip("/")
    store.invalidate_cache()                                           # others may write there as well
    with suppress(FileNotFoundError), _explained(folder, "list"):
        found = store.find(root, detail=True)
        return {name.removeprefix(root).lstrip("/"): (said.get("size"), _time(said)) for name, said in found.items()}
    return {}


def fetch(paths: Mapping[File, Path], failed: Failures) -> None:
    """Copy files to paths of this machine, several at once where a store is made for that, past those that fail."""
    places = {file: open_store(file.place) for file in paths}
    for store in {id(store): store for store, _ in places.values()}.values():
        here = [file for file in paths if places[file][0] is store]
        try:
            store.get([places[file][1] for file in here], [str(paths[file]) for file in here])
        except Exception:                                              # of some: each by itself tells which
            for file in here:
                with failed.noted(file), _explained(file.place, "read"):
                    store.get_file(places[file][1], str(paths[file]))


def put(results: Mapping[Path, tuple[File, str]], out: str, failed: Failures) -> None:
    """Copy results, by path, to their names below a folder, where each appears whole or not at all, past those that fail.

    Raises Unwritable, in one line, for what concerns every file there.
    """
    store, root = open_store(out)
    targets = {path: f"{root.rstrip('/')}/{name}" for path, (_, name) in results.items()}
    protocols = {store.protocol} if isinstance(store.protocol, str) else set(store.protocol)
    send = _put_aside if OBJECT_STORES.isdisjoint(protocols) else _put_whole
    try:
        send(store, targets)
    except Exception:                                                  # of some: each by itself tells which
        for path, (file, name) in results.items():
            with failed.noted(file), _explained(f"{out.rstrip('/')}/{name}", "write"):
                send(store, {path: targets[path]})


def _put_whole(store: Any, targets: Mapping[Path, str]) -> None:
    store.put([str(path) for path in targets], list(targets.values()))


def _put_aside(store: Any, targets: Mapping[Path, str]) -> None:
    for path, target in targets.items():
        parent = target.rpartition("/")[0]
        temporary = f"{parent}/.{secrets.token_hex(6)}{path.suffix}"
        store.makedirs(parent, exist_ok=True)
        try:
            store.put_file(str(path), temporary)
            store.mv(temporary, target)
        except BaseException:
            with suppress(Exception):
                store.rm_file(temporary)
            raise


def open_store(place: str) -> tuple[Any, str]:
    """Return the file system of an address, of which fsspec keeps one, and the path that it has there.

    Raises ModuleNotFoundError or ValueError, in one line.
    """
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(place)
    except ImportError as error:                                       # of fsspec, or of what a store wants beside it
        said, cure = one_line(error).rstrip("."), "get it by pip, as pip install 'flowavenet[remote]'"
        raise ModuleNotFoundError(f"{place}: its store needs a package that is not here ({said}); {cure}") from None
    except ValueError as error:
        raise ValueError(f"{place}: {one_line(error)}; give an address that fsspec knows, as s3://bucket/folder") from None


def _time(said: Mapping[str, Any]) -> float | None:
    """Return the time of the last change that a store tells of a file, seconds since 1970."""
    told = next((said[name] for name in TIMES if said.get(name)), None)
    if isinstance(told, str):
        told = datetime.fromisoformat(told.replace("Z", "+00:00"))
    if isinstance(told, datetime):
        told = (told if told.tzinfo else told.replace(tzinfo=timezone.utc)).timestamp()
    return told


@contextmanager
def _explained(place: str, what: str) -> Iterator[None]:
    """Read, write or list a place; an error of one line names it, what failed, and the cure."""
    try:
        yield
    except FileNotFoundError:
        if what == "write":
            raise NoFolder(f"{place}: there is no such bucket or folder; check its address") from None
        raise FileNotFoundError(f"{place}: there is no such file; check its address") from None
    except PermissionError as error:
        said = f"{place}: you may not {what} it ({one_line(error)}); log in, or set the keys that its store wants"
        raise (Unwritable if what == "write" else PermissionError)(said) from None
    except Exception as error:                                         # of some transport: stores have their own kinds
        cure = "see that it can be reached and knows your keys, then go on with --skip-existing"
        raise OSError(f"{place}: flowavenet could not {what} it ({one_line(error)}); {cure}") from error
