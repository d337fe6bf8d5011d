"""Read what is to be vocoded, mel files and recordings, in pieces, so that memory does not grow with their length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from flowavenet.audio import MEL_SUFFIXES, MelFile, MelSettings, MelSpectrogram, audio_blocks, audio_info
from flowavenet.batch.plan import File, is_url
from flowavenet.files import Failures
from flowavenet.meldetect import Detection, detect_together, identify
from flowavenet.meldetect.source import ENOUGH, OTHER, TOGETHER
from flowavenet.streaming import mel_in_pieces

BLOCK = 1024
"""Frames that are read, or analysed, at a time."""

Detections = Mapping[tuple[str, str], Detection | None]
"""What the mels of a folder were detected to be together, by folder and suffix."""


class Mel:
    """Open a mel file: its number of frames follows from its beginning, the rest is read in pieces.

    Args:
        path: the file.
        wanted: settings of the mels that the vocoder takes.
        convention, level_db: what the file holds, see :func:`~flowavenet.meldetect.identify`.
        together: what the mels of its folder were detected to be, together.
    """

    def __init__(
        self, path: Path, wanted: MelSettings, convention: str | MelSettings | None = None, level_db: float = 0.0,
        together: Detection | None = None,
    ):
        self.path, self.file = path, MelFile(path)
        self.source = identify(self.file.beginning(ENOUGH), wanted, convention, level_db, together)
        self.given = self.file.frames(self.source.layout)
        self.frames = self.source.frames(self.given)

    def mel(self) -> Iterator[Tensor]:
        """Yield the mel in the vocoder's convention, (1, n_mels, at most BLOCK frames)."""
        starts = range(0, self.given, BLOCK)
        return self.source.stream(self.file.read(self.source.layout, start, start + BLOCK) for start in starts)

    @property
    def note(self) -> str:
        """What a user should know of this mel, in a few words; empty: it is what the vocoder takes, for sure."""
        source = self.source
        if not source.note:
            return ""
        name = "another convention" if source.name == OTHER else source.name
        doubtful = not source.sure
        converted = f"the mel is converted from {name}" if source.converts else f"the mel is taken as {name}" * doubtful
        return converted + ", which is not certain" * doubtful


class Recording:
    """Open a recording to make it anew, as :class:`Mel`: its wave is read in pieces, and analysed."""

    def __init__(self, path: Path, spectrogram: MelSpectrogram):
        self.path, self.spectrogram = path, spectrogram
        settings = spectrogram.settings
        self.frames = settings.frames(round(audio_info(path).seconds * settings.sample_rate))

    def mel(self) -> Iterator[Tensor]:
        """Yield its mel, (1, n_mels, at most BLOCK frames)."""
        rate, peak = self.spectrogram.settings.sample_rate, None
        if self.spectrogram.settings.peak is not None:                 # to be known before the first piece
            peak = torch.stack([block.abs().amax(1, keepdim=True) for block in audio_blocks(self.path, rate)]).amax(0)
        blocks = (self.spectrogram.normalise(block, peak) for block in audio_blocks(self.path, rate))
        return mel_in_pieces(blocks, self.spectrogram, BLOCK)


def bring(files: Iterable[File], folder: Path, failed: Failures) -> dict[File, Path]:
    """Return where files lie on this machine; those in stores are copied into a folder first, past those that cannot be."""
    paths = {file: Path(file.place) for file in files}
    there = {file: folder / f"{n}{file.kind[1]}" for n, file in enumerate(file for file in paths if is_url(file.place))}
    if there:
        from flowavenet.batch.stores import fetch

        fetch(there, failed)
    return {file: there.get(file, path) for file, path in paths.items() if file not in failed}


def detect_folders(files: Iterable[File], wanted: MelSettings) -> Detections:
    """Detect what the mel files of each folder are, by a few of them, which together show more than each alone."""
    found: dict[tuple[str, str], Detection | None] = {}
    kinds: dict[tuple[str, str], list[File]] = {}
    for file in files:
        kinds.setdefault(file.kind, []).append(file)
    for kind, beside in kinds.items():
        if kind[1] in MEL_SUFFIXES and len(beside) > 1:
            with TemporaryDirectory(prefix="flowavenet-") as folder:   # what cannot be read is said when its turn comes
                paths = bring(beside[:: -(-len(beside) // TOGETHER)], Path(folder), Failures())
                found[kind] = detect_together(list(paths.values()), wanted)
    return found
