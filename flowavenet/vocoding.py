"""Folders to audio: any number of mels and recordings, of any length, in memory that grows with neither.

Reading, synthesis and writing overlap: one thread reads a few files ahead, one writes behind, and torch has the main thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowavenet.audio import (
    MEL_SUFFIXES,
    MelFile,
    MelSettings,
    MelSpectrogram,
    audio_blocks,
    audio_info,
    save_audio,
)
from flowavenet.batch import Failures, in_background
from flowavenet.meldetect import Detection, detect_together, identify
from flowavenet.meldetect.source import ENOUGH
from flowavenet.plots import save_spectrograms
from flowavenet.streaming import mel_in_pieces
from flowavenet.vocoder import Vocoder

BLOCK = 1024
"""Frames that are read, or analysed, at a time."""
AHEAD = 4
"""Batches that are read ahead of synthesis, and files that wait to be written, if that is done elsewhere than on the CPU."""
PORTION = 30.0
"""Seconds of audio that are handed over at a time, at least, where others do the work or the files are elsewhere."""


class Mel:
    """A mel file to vocode: its number of frames, by its beginning, and the mel in pieces of at most BLOCK frames.

    What a thread can do ahead, ``read``, is apart from what torch then does with it, ``mel``.

    Args:
        path: the file.
        wanted: settings of the mels that the vocoder takes.
        convention, level_db, together: what the file holds, see :func:`~flowavenet.meldetect.identify`.
    """

    def __init__(
        self, path: Path, wanted: MelSettings, convention: str | MelSettings | None = None, level_db: float = 0.0,
        together: Detection | None = None,
    ):
        self.path = path
        self.file = MelFile(path)
        self.source = identify(self.file.beginning(ENOUGH), wanted, convention, level_db, together)
        self.given = self.file.frames(self.source.layout)
        self.frames = self.source.frames(self.given)

    def read(self) -> Iterator[Tensor]:
        layout = self.source.layout
        return (self.file.read(layout, start, start + BLOCK) for start in range(0, self.given, BLOCK))

    def mel(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        return self.source.stream(pieces)


class Recording:
    """A recording to make anew, as :class:`Mel`: read as pieces of its wave, which are then analysed."""

    def __init__(self, path: Path, spectrogram: MelSpectrogram):
        self.path, self.spectrogram = path, spectrogram
        settings = spectrogram.settings
        self.frames = settings.frames(round(audio_info(path).seconds * settings.sample_rate))

    def read(self) -> Iterator[Tensor]:
        settings, peak = self.spectrogram.settings, None
        if settings.peak is not None:                                  # to be known before the first piece
            peaks = [block.abs().amax(1, keepdim=True) for block in audio_blocks(self.path, settings.sample_rate)]
            peak = torch.stack(peaks).amax(0)
        for block in audio_blocks(self.path, settings.sample_rate):
            yield self.spectrogram.normalise(block, peak)

    def mel(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        return mel_in_pieces(pieces, self.spectrogram, BLOCK)


Source = Mel | Recording
Pack = list[tuple[Source, Tensor]]
"""Sources and their mels, all of one length."""


def portions(groups: Iterable[list[Source]], vocoder: Vocoder) -> Iterator[list[Source]]:
    """Groups that are handed over together.

    From a portion its groups can be formed anew as they were, since of each length all but the last are full.
    """
    portion: list[Source] = []
    enough = PORTION * vocoder.sample_rate / vocoder.settings.hop_length
    for group in groups:
        portion = portion + group
        if sum(source.frames for source in portion) >= enough:
            yield portion
            portion = []
    if portion:
        yield portion


class Made(NamedTuple):
    """Audio made of a source: all of it; or of a long one the first tile, and the others as they are asked for."""

    source: Source
    mel: Tensor
    wave: Tensor
    rest: Iterable[Tensor] = ()


class Vocoding:
    """Vocode files to ``out/<stem>.wav``, past bad ones.

    What a file becomes does not depend on its company. Hence only mels of equally many frames share a batch, since padding
    would change what the last frames see, and each is given the noise that it would have alone. Long mels are streamed
    into their files, tile by tile. What would exceed full scale is made quieter, a long one as its first tile wants.

    To the last bit, that is so for the same batches and as many threads, as sums are rounded by the order of their terms.
    Batches follow from all the files that are given, whether or not some are bad, or there already.

    Args:
        vocoder: does the work.
        out: a folder.
        batch: files of one length that are synthesised together, at most.
        picture: also write ``out/<stem>.png``, the mel asked for and that of the result; of a long file, of its first tile.
        seed: of the noise.
        progress: is told after each step how many frames of audio are made, and of how many.
        convention, level_db: what mel files hold, see :func:`~flowavenet.meldetect.identify`.
        skip: leave a file alone whose result is there, and not older than itself: since results appear whole or not at all,
            this goes on with a run that was killed.
        together: what mels are that lie together, by folder and suffix, where that is known already.
        how: ``temperature``, ``match``, ``denoise`` and ``speaker`` as for :meth:`Vocoder.forward`.
    """

    def __init__(
        self, vocoder: Vocoder, out: Path, batch: int = 1, picture: bool = False, seed: int = 0,
        progress: Callable[[int, int], None] = lambda done, total: None,
        convention: str | MelSettings | None = None, level_db: float = 0.0, skip: bool = False,
        together: dict[tuple[Path, str], Detection | None] | None = None, **how: Any,
    ):
        self.vocoder, self.out, self.batch, self.picture = vocoder, out, batch, picture
        self.seed, self.progress = seed, progress
        self.convention, self.level_db = convention, level_db
        self.skip, self.together = skip, {} if together is None else dict(together)
        self.how = how | {"speaker": vocoder.voice(how.get("speaker"))}  # one that is wrong is so for every file
        self.tile = vocoder.tile(how.get("match"), how.get("denoise", 0) > 0)
        self.failed = Failures()
        self.notes: dict[Path, str] = {}
        """What a user should know of mels that are not, or not surely, the vocoder's own; a line each."""
        self.made = self.total = 0
        """Frames of audio."""
        self.spent = 0.0
        """Seconds of synthesis."""
        self.skipped = 0
        """Files whose results were there."""

    def run(self, files: Iterable[Path]) -> None:
        """Vocode the files, from short to long."""
        groups = self.groups(files)
        self.total = sum(source.frames for group in groups for source in group)
        short = [group for group in groups if not self._is_long(group[0])]
        for made, written in in_background(self._made(self._packs(short)), self._write, self._ahead):
            with self.failed.noted(made.source.path):
                written.result()
        for (source,) in groups[len(short) :]:
            with self.failed.noted(source.path):
                self._write(self._begun(source))

    def groups(self, files: Iterable[Path]) -> list[list[Source]]:
        """What is to be done, from short to long, in groups that are synthesised together."""
        groups: list[list[Source]] = []
        for source in sorted(self._opened(files), key=lambda source: source.frames):
            last = groups[-1] if groups else []
            if last and source.frames == last[0].frames and len(last) < self.batch and not self._is_long(source):
                last.append(source)
            else:
                groups.append([source])
        there = {source.path for group in groups for source in group if self._is_there(source.path)}
        self.skipped += len(there)
        return [group for group in groups if not all(source.path in there for source in group)]

    @property
    def _ahead(self) -> int:
        """None on a CPU: a thread for files holds up one of torch's, and all others wait for that. It halved the speed."""
        return 0 if self.vocoder.device.type == "cpu" else AHEAD

    def _is_long(self, source: Source) -> bool:
        """Too long for a batch."""
        return source.frames > 1.5 * self.tile

    def _is_there(self, file: Path) -> bool:
        """Whether the results of a file can be left as they are."""
        results = [self.out / f"{file.stem}{suffix}" for suffix in (".wav", ".png")[: 1 + self.picture]]
        return self.skip and all(one.exists() and one.stat().st_mtime >= file.stat().st_mtime for one in results)

    def _opened(self, files: Iterable[Path]) -> Iterator[Source]:
        for (folder, suffix), group in groupby(files, lambda file: (file.parent, file.suffix.lower())):
            if suffix not in MEL_SUFFIXES:
                for file in group:
                    with self.failed.noted(file):
                        yield Recording(file, self.vocoder.spectrogram)
                continue
            beside = list(group)
            if (folder, suffix) not in self.together:
                finding = None if self.convention else detect_together(beside, self.vocoder.settings)
                self.together[folder, suffix] = finding
            for file in beside:
                with self.failed.noted(file):
                    together = self.together[folder, suffix]
                    mel = Mel(file, self.vocoder.settings, self.convention, self.level_db, together)
                    if note := mel.source.notes(mel.given):
                        self.notes[file] = note
                    yield mel

    def _read(self, group: list[Source]) -> list[tuple[Source, list[Tensor]]]:
        """Those of a group that can be read."""
        read = []
        for source in group:
            with self.failed.noted(source.path):
                read.append((source, list(source.read())))
        return read

    def _packs(self, groups: Iterable[list[Source]]) -> Iterator[Pack]:
        for _, read in in_background(groups, self._read, self._ahead):
            pack: Pack = []
            for source, pieces in read.result():
                with self.failed.noted(source.path):
                    mel = torch.cat(list(source.mel(pieces)), dim=-1)
                    if pack and mel.shape != pack[0][1].shape:         # a header was wrong
                        yield pack
                        pack = []
                    pack.append((source, mel))
            if pack:
                yield pack

    def _made(self, packs: Iterable[Pack]) -> Iterator[Made]:
        for pack in packs:
            try:
                yield from self._together(pack)
            except RuntimeError:                                       # too much at once for this memory, perhaps
                for source, mel in pack:
                    with self.failed.noted(source.path):
                        yield from self._together([(source, mel)])

    def _together(self, pack: Pack) -> list[Made]:
        mels = torch.cat([mel for _, mel in pack])
        waves = next(self._chunks(mels, mels.shape[-1], len(pack)))
        return [Made(source, mel, wave[None]) for (source, mel), wave in zip(pack, waves, strict=True)]

    def _begun(self, source: Source) -> Made:
        mel = source.mel(source.read())
        first = next(mel)
        chunks = self._chunks(chain([first], mel), self.tile)
        return Made(source, first, next(chunks), chunks)

    def _chunks(self, mel: Tensor | Iterable[Tensor], frames: int, rows: int = 1) -> Iterator[Tensor]:
        """The audio of a mel, so many frames at a time, on the CPU; keeps count of what is made and how long it takes."""
        chunks = self.vocoder.stream(mel, frames, seed=[self.seed] * rows, **self.how)
        while True:
            start = perf_counter()
            chunk = next(chunks, None)
            if chunk is None:
                return
            chunk = chunk.cpu()                                        # waits until a GPU is done
            self.spent += perf_counter() - start
            self.made += chunk.numel() // self.vocoder.settings.hop_length
            self.progress(self.made, self.total)
            yield chunk

    def _write(self, made: Made) -> None:
        path, stem = made.source.path, made.source.path.stem
        if self._is_there(path):                                       # was synthesised for the sake of its company
            return
        loudest, pieces = made.wave.abs().max().item(), chain([made.wave], made.rest)
        if loudest > 1:                                                # clipping would spoil it
            quieter = 20 * math.log10(loudest)
            said = f"its speech would peak at {loudest:.2f}, beyond full scale, and is made {quieter:.1f} dB quieter"
            noted = replace(made.source.source, level_note=said).notes(made.source.given) if path in self.notes else said
            self.notes[path] = noted                                   # one statement about level: this one
            pieces = (piece / loudest for piece in pieces)
        save_audio(self.out / f"{stem}.wav", pieces, self.vocoder.sample_rate)
        if self.picture:
            panels = [("asked for", made.mel[0]), ("made", self.vocoder.mel(made.wave)[0])]
            save_spectrograms(self.out / f"{stem}.png", panels, self.vocoder.settings)
