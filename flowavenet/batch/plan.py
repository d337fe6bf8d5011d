"""Plan a batch: find the files, name their results, see which are there, and divide the work into portions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

SMALL, LARGE = 1_000_000, 16_000_000
"""Bytes of files in a portion: at least, about half a minute of audio, if that many make whole batches; and at most."""
UNKNOWN = 100_000
"""Bytes that a file is taken to have if its store does not tell: a mel of 4 s."""


@dataclass(frozen=True)
class File:
    """A file to work on, here or in a store."""

    place: str
    """Its path, or its address, as ``s3://bucket/mels/a.npy``."""
    name: str
    """The path of its result below the folder for results, without suffix."""
    size: int | None = field(default=None, compare=False)
    """Bytes; None: unknown."""
    modified: float | None = field(default=None, compare=False)
    """Time of the last change, seconds since 1970; None: unknown."""
    done: bool = field(default=False, compare=False)
    """Its results are there."""

    def __str__(self) -> str:
        return self.place

    @property
    def kind(self) -> tuple[str, str]:
        """The folder that it lies in, and its suffix in lower case: files of one kind are mostly of one origin."""
        return self.place.rpartition("/")[0], PurePosixPath(self.place).suffix.lower()


def is_url(place: str) -> bool:
    """Return whether this is an address, ``protocol://...``, rather than a path.

    >>> is_url("s3://bucket/mels"), is_url("bucket/mels")
    (True, False)
    """
    return "://" in place


def list_folder(folder: str) -> Mapping[str, tuple[int | None, float | None]]:
    """List the files in a folder and below it, without hidden ones: size and time of the last change, by path from there.

    Sorted as paths are; empty if there is no such folder.
    """
    if is_url(folder):
        from flowavenet.batch.stores import list_store

        found = list_store(folder)
    else:
        paths = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
        found = {name: (path.stat().st_size, path.stat().st_mtime) for name, path in paths.items()}
    split = sorted(name.split("/") for name in found)
    return {name: found[name] for name in map("/".join, (s for s in split if not any(part[:1] == "." for part in s)))}


def find_files(places: Iterable[str | Path], suffixes: Collection[str]) -> list[File]:
    """Find files, by path or address: those that are named, and of folders all with one of the suffixes, in them and below.

    The result of a file in a folder keeps the sub-folders below that; that of a file which is named is called as it is.
    Where two results would be called the same, the name of the folder that was given goes before.

    Raises ValueError or OSError, in one line: a folder has no such files, a store cannot be listed, or two results would
    still be called the same.
    """
    found: list[tuple[str, str, int | None, float | None]] = []        # a folder, a path from there, size, time
    for place in map(str, places):
        path = Path(place)
        if is_url(place) and PurePosixPath(place).suffix.lower() in suffixes:
            folder, _, name = place.rpartition("/")
            found.append((folder, name, None, None))                   # finding out more would be a request for each
        elif not is_url(place) and not path.is_dir():                  # if it is not there, that is said when its turn comes
            about = path.stat() if path.exists() else None
            found.append((str(path.parent), path.name, about and about.st_size, about and about.st_mtime))
        else:
            below = [(place, name, *about) for name, about in list_folder(place).items()]
            below = [one for one in below if PurePosixPath(one[1]).suffix.lower() in suffixes]
            if not below:
                raise ValueError(f"{place}: there are no {' '.join(suffixes)} files in this folder or below it")
            found += below
    names = [str(PurePosixPath(name).with_suffix("")) for _, name, *_ in found]
    often, files = Counter(names), {}
    for (folder, path, *about), name in zip(found, names, strict=True):
        if often[name] > 1:
            name = f"{PurePosixPath(folder if is_url(folder) else Path(folder).resolve()).name}/{name}"
        place = f"{folder.rstrip('/')}/{path}" if is_url(folder) else str(Path(folder, path))
        if name in files:
            raise ValueError(f"{place}: its result would overwrite that of {files[name]}; use two folders for results")
        files[name] = File(place, name, *about)
    return list(files.values())


def refuse_overwriting(files: Iterable[File], out: str | Path, suffix: str) -> None:
    """Refuse files that their own results, ``out/<name><suffix>``, would replace. Raises ValueError, in one line."""
    for file in files:
        result = f"{str(out).rstrip('/')}/{file.name}{suffix}"
        here = not is_url(result) and Path(result).exists() and Path(file.place).exists()
        if result == file.place or here and Path(result).samefile(file.place):
            raise ValueError(f"{file}: its result would replace it; choose another folder for results")


def find_done(files: Iterable[File], out: str, suffixes: Sequence[str]) -> set[File]:
    """Return the files whose results are all there and none older than its file; the folder for results is listed once.

    Where either time is unknown, it is enough that a result is there.
    """
    there = {name: modified for name, (_, modified) in list_folder(out).items()}

    def is_done(file: File, result: str) -> bool:
        made = there.get(result)
        return result in there and (made is None or file.modified is None or made >= file.modified)

    return {file for file in files if all(is_done(file, f"{file.name}{suffix}") for suffix in suffixes)}


def divide(files: Iterable[File], batch: int) -> Iterator[list[File]]:
    """Divide files into portions, from small ones to large ones, since mels of equal length mostly have equal size.

    A portion is a multiple of `batch` files, unless they are large.
    """
    portion, size = [], 0
    for file in sorted(files, key=lambda file: file.size or UNKNOWN):
        portion.append(file)
        size += file.size or UNKNOWN
        if size >= LARGE or (size >= SMALL and len(portion) % batch == 0):
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
