"""Vocode portions of files on this machine, in memory that grows neither with their number nor with their length.

A portion goes through three stages: its files are read, made audio, and written. Where the audio is made on a GPU, or files
are in a store, a thread reads the next portion meanwhile, and another writes the last one.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor

from flowavenet.audio import MEL_SUFFIXES, MelSettings, save_audio
from flowavenet.batch.plan import File, is_url
from flowavenet.batch.sources import Detections, Mel, Recording, bring
from flowavenet.files import Failures
from flowavenet.plots import save_spectrograms
from flowavenet.vocoder import Vocoder

Item = TypeVar("Item")
Result = TypeVar("Result")

@dataclass(frozen=True)
class Job:
    """What to do with every file of a batch, as plain values."""

    out: str
    """Folder for results, a path or an address."""
    batch: int = 1
    """Files of one length that are synthesised together, at most."""
    picture: bool = False
    """Also write ``<name>.png``, the mel asked for and that of the result; of a long file, of its first tile."""
    seed: int = 0
    """Of the noise; each file is given the noise that it would have alone."""
    convention: str | MelSettings | None = None
    """What mel files hold, a convention's name or YAML file, or settings; None: that is detected."""
    level_db: float = 0.0
    """Added to the level of mels, dB."""
    how: dict[str, Any] = field(default_factory=dict)
    """``temperature``, ``match``, ``denoise`` and ``speaker``, as for :meth:`Vocoder.forward`."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the results of a file."""
        return (".wav", ".png") if self.picture else (".wav",)


@dataclass
class Report:
    """What became of files."""

    failed: Failures = field(default_factory=Failures)
    """What went wrong, by file; a line each."""
    notes: dict[File, str] = field(default_factory=dict)
    """What a user should know of a file, in a few words."""
    details: dict[File, str] = field(default_factory=dict)
    """What was found out of a mel, at length."""
    frames: int = 0
    """Frames of audio that were made."""
    seconds: float = 0.0
    """Seconds of synthesis."""
    skipped: int = 0
    """Files whose results were there."""

    def add(self, other: Report) -> None:
        """Take over what became of other files."""
        self.failed |= other.failed
        self.notes |= other.notes
        self.details |= other.details
        self.frames += other.frames
        self.seconds += other.seconds


Source = Mel | Recording


@dataclass
class Portion:
    """Files on their way through the loop."""

    files: list[File]
    folder: Path
    """On this machine, for what is fetched, and for what is to be put."""
    mels: dict[File, Mel] = field(default_factory=dict)
    """Those that are mel files, opened."""
    packs: list[list[tuple[File, Tensor]]] = field(default_factory=list)
    """Mels (1, n_mels, frames) of equal length."""
    long: list[tuple[File, Source]] = field(default_factory=list)
    """What is too long for a batch, and is read while it is made."""
    made: list[tuple[File, Tensor, Tensor]] = field(default_factory=list)
    """Mels, and waves (1, samples) that are to be written."""
    written: dict[Path, tuple[File, str]] = field(default_factory=dict)
    """Results, and what they are called below the folder for results."""


class Loop:
    """Vocode portions of files in this process.

    What a file becomes does not depend on the files beside it. Hence only mels of equally many frames share a batch, since
    padding would change what the last frames see, and each is given the noise that it would have alone. Long mels are
    streamed into their files, tile by tile. What would exceed full scale is made quieter, a long file by its first tile.
    """

    def __init__(self, vocoder: Vocoder):
        self.vocoder = vocoder

    def __call__(
        self, job: Job, portions: Sequence[list[File]], known: Detections,
        progress: Callable[[float, int], None] = lambda done, total: None,
    ) -> Report:
        """Vocode portions, past bad files.

        Args:
            job: what to do with each file.
            portions: files that are opened together, as :func:`~flowavenet.batch.plan.divide` makes them.
            known: what the mels of each folder are.
            progress: is told how many files are made, and of how many.
        """
        self.job, self.known, self.report, self.made = job, known, Report(), 0.0
        self.progress = lambda: progress(self.made, sum(map(len, portions)))
        self.tile = self.vocoder.tile(job.how.get("match"), job.how.get("denoise", 0) > 0)
        # Not on a CPU: a thread for files holds up one of torch's, and all others wait for that. It halved the speed.
        beside = self.vocoder.device.type != "cpu"
        elsewhere = any(is_url(file.place) for portion in portions for file in portion)
        with TemporaryDirectory(prefix="flowavenet-") as self.desk:
            read = (in_background if beside or elsewhere else map)(self._read, portions)
            made = map(self._make, read)
            for _ in (in_background if beside or is_url(job.out) else map)(self._write, made):
                pass
        return self.report

    def _read(self, files: list[File]) -> Portion:
        """Open files, put those of one length together, and read them, but for what is done already."""
        portion = Portion(files, Path(mkdtemp(dir=self.desk)))
        opened: list[tuple[File, Source]] = []
        for file, path in bring(files, portion.folder, self.report.failed).items():
            with self.report.failed.noted(file, path):
                opened.append((file, self._open(file, path)))
        portion.mels = {file: source for file, source in opened if isinstance(source, Mel)}
        opened.sort(key=lambda one: one[1].frames)
        for frames, group in groupby(opened, lambda one: one[1].frames):
            alike = list(group)
            if frames > 1.5 * self.tile:
                portion.long += [one for one in alike if not one[0].done]
                continue
            for start in range(0, len(alike), self.job.batch):
                pack = alike[start : start + self.job.batch]
                if not all(file.done for file, _ in pack):
                    mels = sorted(self._mels(pack), key=lambda one: one[1].shape[-1])
                    # mostly of one length, but a header may have been wrong
                    portion.packs += [list(same) for _, same in groupby(mels, lambda one: one[1].shape[-1])]
        return portion

    def _open(self, file: File, path: Path) -> Source:
        if file.kind[1] not in MEL_SUFFIXES:
            return Recording(path, self.vocoder.spectrogram)
        mel = Mel(path, self.vocoder.settings, self.job.convention, self.job.level_db, self.known.get(file.kind))
        if details := mel.source.notes(mel.given):
            self.report.details[file] = details
        if mel.note:
            self.report.notes[file] = mel.note
        return mel

    def _mels(self, pack: list[tuple[File, Source]]) -> Iterator[tuple[File, Tensor]]:
        for file, source in pack:
            with self.report.failed.noted(file, source.path):
                yield file, torch.cat(list(source.mel()), dim=-1).to(self.vocoder.device)

    def _make(self, portion: Portion) -> Portion:
        """Make the audio of a portion. Long files are written at once, tile by tile."""
        before = self.made
        for pack in portion.packs:
            try:
                portion.made += self._together(pack)
            except RuntimeError:                                       # too much at once for this memory, perhaps
                for one in pack:
                    with self.report.failed.noted(one[0]):
                        portion.made += self._together([one])
        for file, source in portion.long:
            with self.report.failed.noted(file, source.path):
                mel = source.mel()
                first = next(mel)
                tiles = self._tiles(chain([first], mel), self.tile, source.frames)
                self._save(portion, file, first, next(tiles), tiles)
        self.made = before + len(portion.files)
        self.progress()
        return portion

    def _together(self, mels: list[tuple[File, Tensor]]) -> list[tuple[File, Tensor, Tensor]]:
        mel = torch.cat([mel for _, mel in mels])
        waves = next(self._tiles(mel, mel.shape[-1], mel.shape[-1], len(mels)))
        return [(file, mel, wave[None]) for (file, mel), wave in zip(mels, waves, strict=True)]

    def _tiles(self, mel: Tensor | Iterable[Tensor], tile: int, frames: int, files: int = 1) -> Iterator[Tensor]:
        """Yield the audio of files of so many frames, a tile at a time, on the CPU; count frames and seconds."""
        chunks = self.vocoder.stream(mel, tile, seed=[self.job.seed] * files, **self.job.how)
        while True:
            start = perf_counter()
            chunk = next(chunks, None)
            if chunk is None:
                return
            chunk = chunk.cpu()                                        # waits until a GPU is done
            self.report.seconds += perf_counter() - start
            made = chunk.numel() // self.vocoder.settings.hop_length
            self.report.frames += made
            self.made += made / frames
            self.progress()
            yield chunk

    def _write(self, portion: Portion) -> None:
        """Write what was made; put it where results go, if that is elsewhere, and clear the folder."""
        for file, mel, wave in portion.made:
            if not file.done:                                          # else it was made for the sake of its batch
                with self.report.failed.noted(file):
                    self._save(portion, file, mel, wave)
        if is_url(self.job.out) and portion.written:
            from flowavenet.batch.stores import put

            put(portion.written, self.job.out, self.report.failed)
        shutil.rmtree(portion.folder)

    def _save(self, portion: Portion, file: File, mel: Tensor, wave: Tensor, rest: Iterable[Tensor] = ()) -> None:
        loudest, pieces = wave.abs().max().item(), chain([wave], rest)
        if loudest > 1:                                                # clipping would spoil it
            said = f"its audio is made {20 * math.log10(loudest):.1f} dB quieter, to stay below full scale"
            self.report.notes[file] = "; ".join(filter(None, [self.report.notes.get(file), said]))
            if file in self.report.details:                            # one statement about level: this one
                mel_file = portion.mels[file]
                self.report.details[file] = replace(mel_file.source, level_note="").notes(mel_file.given)
            pieces = (piece / loudest for piece in pieces)
        home = Path(self.job.out)
        if is_url(self.job.out):                                       # from where it will be put
            home = portion.folder / "results"
            (home / file.name).parent.mkdir(parents=True, exist_ok=True)
        save_audio(home / f"{file.name}.wav", pieces, self.vocoder.sample_rate)
        if self.job.picture:
            panels = [("asked for", mel[0]), ("made", self.vocoder.mel(wave)[0])]
            save_spectrograms(home / f"{file.name}.png", panels, self.vocoder.settings)
        for name in (f"{file.name}{suffix}" for suffix in self.job.suffixes):
            portion.written[home / name] = file, name


def in_background(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Do the work on one item after the other, as `map`, but in a thread, one item ahead, beside what the caller does."""
    with ThreadPoolExecutor(1) as thread:
        last = None
        for item in items:
            coming = thread.submit(work, item)
            if last:
                yield last.result()
            last = coming
        if last:
            yield last.result()
