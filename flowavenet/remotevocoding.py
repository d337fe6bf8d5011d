"""Vocoding from and to object stores and servers: by portions that are fetched, vocoded on this disk, and put.

A portion is about half a minute of audio. While one is vocoded, the next is fetched and the last is put, so that neither the
disk's room nor the latency of a store matters much. Its files are vocoded as files of this machine are (vocoding.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import NamedTuple

from flowavenet.audio import MEL_SUFFIXES
from flowavenet.batch import in_background
from flowavenet.meldetect import Detection, detect_together
from flowavenet.meldetect.source import TOGETHER
from flowavenet.remote import RemoteFile, fetch, list_remote, put, transfers
from flowavenet.vocoding import Source, Vocoding, portions

FRAME = 320
"""Bytes that are taken for a frame where only a file's size is known: 80 bands, float32."""
UNKNOWN = 100_000
"""Bytes that a file is taken to have if its store does not tell: a mel of 4 s."""


class Elsewhere(NamedTuple):
    """A file to be fetched, and how long it is: guessed by its size, which is exact for the order of mels of one type."""

    path: RemoteFile
    frames: float


class Portion(NamedTuple):
    """Files that have been fetched, or made, and the folder of this machine that holds them."""

    folder: Path
    files: dict[Path, RemoteFile]


class RemoteVocoding(Vocoding):
    """As :class:`Vocoding`, for :class:`RemoteFile`, and into a folder by its address.

    The samples are those that it makes of the same files in a folder here; at a batch of more than one so far as equal size
    means equal length, as for mels of one type, since lengths are not known before files are fetched. Progress and total are
    in frames guessed by sizes. With ``skip``, the folder of results is listed once.

    Raises Unwritable, and ends, if it may not write there, or there is no such place.
    """

    out: str

    def groups(self, files: Iterable[RemoteFile]) -> list[list[Source]]:
        files = list(files)
        if self.skip and any(file.there is None for file in files):
            results = {file.path: file.modified for file in list_remote(self.out)}
            fresh = (all(_is_fresh(file, name, results) for name in self._results(file)) for file in files)
            files = [replace(file, there=there) for file, there in zip(files, fresh, strict=True)]
        groups = super().groups(files)
        if groups and not self.convention:
            self._detect(files)
        return groups

    def run(self, files: Iterable[RemoteFile]) -> None:
        groups = self.groups(files)
        self.total = sum(source.frames for group in groups for source in group)
        with TemporaryDirectory(prefix="flowavenet-") as self.desk:
            fetched = in_background(portions(groups, self.vocoder), self._fetched, 1)
            for _, is_put in in_background(self._vocoded(fetched), self._put, 1):
                is_put.result()

    def _is_there(self, file: RemoteFile) -> bool:
        return self.skip and bool(file.there)

    def _opened(self, files: Iterable[RemoteFile]) -> Iterator[Source]:
        return (Elsewhere(file, (file.size or UNKNOWN) / FRAME) for file in files)

    def _detect(self, files: list[RemoteFile]) -> None:
        """Find out what the mels of each folder are."""
        for (folder, suffix), beside in groupby(files, lambda file: (file.parent, file.suffix.lower())):
            if suffix in MEL_SUFFIXES and (folder, suffix) not in self.together:
                self.together[folder, suffix] = self._detected(list(beside))

    def _detected(self, beside: list[RemoteFile]) -> Detection | None:
        """What mels of one folder are, by those that would be looked at were they here."""
        with TemporaryDirectory(prefix="flowavenet-") as folder:
            paths = {file: Path(folder) / file.name for file in beside[:: -(-len(beside) // TOGETHER)]}

            def bring(file: RemoteFile) -> None:
                with suppress(OSError):                                # will be said when its turn comes
                    fetch(file, paths[file])

            _at_once(bring, paths, [beside[0].folder])
            return detect_together(list(paths.values()), self.vocoder.settings)

    def _fetched(self, sources: list[Source]) -> Portion:
        """Those files of a portion that can be fetched, side by side as they were."""
        here, files = Path(mkdtemp(dir=self.desk)), [source.path for source in sources]
        homes = {parent: here / str(number) for number, parent in enumerate({file.parent: None for file in files})}
        for home in homes.values():
            home.mkdir()
        paths = {file: homes[file.parent] / file.name for file in files}

        def bring(file: RemoteFile) -> None:
            with self.failed.noted(file):
                fetch(file, paths[file])

        _at_once(bring, files, {file.folder for file in files})
        return Portion(here, {paths[file]: file for file in files if file not in self.failed})

    def _vocoded(self, fetched: Iterable[tuple[list[Source], Future[Portion]]]) -> Iterator[Portion]:
        done = 0.0
        for sources, portion in fetched:
            here, files = portion.result()
            together = {}
            for path, file in files.items():
                suffix = file.suffix.lower()
                together[path.parent, suffix] = self.together.get((file.parent, suffix))
            work = Vocoding(
                self.vocoder, here, self.batch, self.picture, self.seed, convention=self.convention, level_db=self.level_db,
                together=together, **self.how,
            )
            work.run(files)
            self.failed |= {files[path]: line.replace(str(path), str(files[path])) for path, line in work.failed.items()}
            self.notes |= {files[path]: line.replace(str(path), str(files[path])) for path, line in work.notes.items()}
            self.made += work.made
            self.spent += work.spent
            done += sum(source.frames for source in sources)
            self.progress(done, self.total)
            wanted = {path: file for path, file in files.items() if path not in work.failed and not self._is_there(file)}
            yield Portion(here, wanted)

    def _put(self, portion: Portion) -> None:
        def send(file: RemoteFile) -> None:
            with self.failed.noted(file):
                for name in self._results(file):
                    put(portion.folder / name, self.out)

        _at_once(send, portion.files.values(), [self.out])
        shutil.rmtree(portion.folder)

    def _results(self, file: RemoteFile) -> list[str]:
        return [f"{file.stem}{suffix}" for suffix in (".wav", ".png")[: 1 + self.picture]]


def _is_fresh(file: RemoteFile, name: str, results: dict[str, float | None]) -> bool:
    """Whether a result is there and not older than its file; if either store tells no time, that it is there must do."""
    if name not in results:
        return False
    modified = results[name]
    return modified is None or file.modified is None or modified >= file.modified


def _at_once(work: Callable[[RemoteFile], None], files: Iterable[RemoteFile], places: Iterable[str]) -> None:
    """Work on some files at a time; what goes wrong is raised when all is done."""
    with ThreadPoolExecutor(transfers(places)) as pool:
        for done in [pool.submit(work, file) for file in files]:
            done.result()
