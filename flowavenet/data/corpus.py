"""List the clips of a corpus, each with its speaker and its side of the train / valid split; check and convert them.

`read_corpus` makes the list from whatever folder there is; `prepare_corpus` makes a folder that is fit to
train on: every clip decoded once and checked, one sample rate, and a manifest.csv that says what is there:

    path,speaker,split,seconds
    anna/0001.flac,anna,train,3.482

Where a front-end predicted a mel of every recording (pairs.py), the column mel names it.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from flowavenet.audio import audio_info, load_audio, save_audio
from flowavenet.data.layouts import COLUMNS, MANIFEST, Entry, entries_of
from flowavenet.data.pairs import Pairs
from flowavenet.files import Unwritable, one_line, ready_folder, write_atomically

FULL_SCALE = 32767 / 32768  # the highest value of 16 bits
CLIPPED_SHARE = 0.001  # of all samples at full scale: more than that is heard
CHUNK = 256  # clips that are under way at the same time, at most
SILENT_PEAK = 0.001  # -60 dB re full scale: what 16 bits leave of such a clip is mostly rounding


@dataclass(frozen=True)
class Clip:
    """Describe one recording of a corpus."""

    path: Path
    """Absolute."""
    speaker: str
    """"" if unknown."""
    split: str
    """train or valid."""
    seconds: float
    """Duration."""
    mel: Path | None = None
    """Predicted for it by a front-end, (n_mels, frames)."""


@dataclass(frozen=True)
class PrepareReport:
    """Tell what `prepare_corpus` did: how much it kept, which clips are skipped or doubtful, and why."""

    kept: int
    seconds: float
    skipped: list[tuple[Path, str]]
    doubtful: list[tuple[Path, str]]
    """Kept, but listen to them (clipped). Only of the clips converted now, not of those found converted."""


def read_corpus(source: str | Path, valid_fraction: float = 0.02, seed: int = 0) -> list[Clip]:
    """List the clips of a corpus, in any of the usual layouts, in a fixed order.

    - a folder with a manifest.csv, or a CSV file: columns `path[,speaker][,split][,seconds][,mel]`, paths from there
    - LJSpeech: metadata.csv and wavs/
    - VCTK: ``wav48*/<speaker>/``; of two microphones the first
    - else every audio file below the folder; the first sub-folder is the speaker

    Where no split is given, a clip is valid if a hash of the seed and its name, in [0, 1), is less than
    `valid_fraction`: adding clips does not move others. If that selects none, the least hash is taken.

    Args:
        source: folder or CSV file.
        valid_fraction: share of clips to validate on, in [0, 1).
        seed: another seed selects other clips.

    Raises:
        FileNotFoundError: no such source, or a clip that it names is missing.
        ValueError: no audio there, a faulty manifest, a faulty file, or no clip left to train on.
    """
    entries = entries_of(Path(source))
    for entry in entries:
        for path in (entry.path, entry.mel) if entry.row else ():
            if path and not path.is_file():
                raise FileNotFoundError(f"{entry.row}: no file {path}; correct or remove the row")
    entries = with_splits(entries, valid_fraction, seed, source)
    clips = []
    for e in entries:
        seconds = audio_info(e.path).seconds if e.seconds is None else e.seconds
        clips.append(Clip(e.path, e.speaker, e.split, seconds, e.mel))
    return clips


def prepare_corpus(
    source: str | Path,
    out: str | Path,
    sample_rate: int,
    *,
    pairs: Pairs | None = None,
    workers: int | None = None,
    min_seconds: float = 0.1,
    valid_fraction: float = 0.02,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PrepareReport:
    """Convert a corpus to mono 16-bit FLAC at one sample rate, checking every clip, and write its manifest.

    A clip that cannot be read, is too short or next to silent is skipped, and reported. The manifest is
    written last. Interrupted, call it again: clips already converted, and newer than their source, stay.

    Args:
        source: as for `read_corpus`, which also explains `valid_fraction` and `seed`.
        out: folder for ``<name>.flac``, by the same relative names, and manifest.csv.
        sample_rate: Hz.
        pairs: predicted mels, which become ``<name>.npy``; a clip without one, or with one that is not its own, is skipped.
            Then every clip is converted anew, as their convention may move the recordings.
        workers: clips converted at the same time; None: one per processor.
        min_seconds: shortest clip to keep.
        progress: called with the numbers of clips done and of all.

    Raises:
        ValueError: `out` is `source` or inside it, or no clip was usable.
    """
    source, out = Path(source), Path(out)
    entries = unmixed(source, out)
    work = Preparation(entries, out, sample_rate, pairs, workers, min_seconds, progress)
    kept = list(work.kept(entries))
    if not kept:
        raise ValueError(f"{source}: none of {len(entries)} clips is usable; the first: {work.skipped[0][1]}")
    kept = with_splits(kept, valid_fraction, seed, source)
    with write_atomically(out / MANIFEST) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS if pairs else COLUMNS[:-1])
        for entry in kept:
            path = _target(out, entry).relative_to(out)
            mel = [path.with_suffix(".npy").as_posix()] if pairs else []
            writer.writerow([path.as_posix(), entry.speaker, entry.split, f"{entry.seconds:.3f}", *mel])
    return PrepareReport(len(kept), sum(entry.seconds or 0.0 for entry in kept), work.skipped, work.doubtful)


class Preparation:
    """Convert clips to ``out/<name>.flac``, and their mels to ``out/<name>.npy``, past bad ones, which it remembers.

    Args:
        entries: of the whole corpus.
        The others: as for :func:`prepare_corpus`.
    """

    def __init__(
        self, entries: list[Entry], out: Path, sample_rate: int, pairs: Pairs | None, workers: int | None,
        min_seconds: float, progress: Callable[[int, int], None] | None,
    ):
        self.out, self.sample_rate, self.pairs = out, sample_rate, pairs
        self.workers, self.min_seconds, self.progress = workers or os.cpu_count() or 1, min_seconds, progress
        self.total = len(entries)
        self.taken: dict[str, Path] = {}
        for entry in entries:
            self.taken.setdefault(entry.name, entry.path)
        self.skipped: list[tuple[Path, str]] = []
        self.doubtful: list[tuple[Path, str]] = []

    def kept(self, entries: list[Entry]) -> Iterator[Entry]:
        """Convert these entries; yield the usable ones, with their seconds."""
        done = self.total - len(entries)
        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(entries), CHUNK):
                some = entries[start : start + CHUNK]
                for entry, (seconds, reason, doubt) in zip(some, pool.map(self._convert, some), strict=True):
                    if reason:
                        self.skipped.append((entry.path, reason))
                    if doubt:
                        self.doubtful.append((entry.path, doubt))
                    done += 1
                    if self.progress:
                        self.progress(done, self.total)
                    if not reason:
                        yield replace(entry, seconds=seconds)

    def _convert(self, entry: Entry) -> tuple[float, str, str]:
        """Return its seconds, why it is skipped ("" if kept), and what is doubtful about it (or "")."""
        try:
            return self._checked(entry)
        except Unwritable:
            raise
        except (ValueError, OSError, RuntimeError, MemoryError) as error:  # torch, too, may be out of memory
            return 0.0, one_line(error), ""

    def _checked(self, entry: Entry) -> tuple[float, str, str]:
        if self.taken[entry.name] != entry.path:
            return 0.0, f"would become the same file as {self.taken[entry.name]}; rename one", ""
        target, pairs = _target(self.out, entry), self.pairs
        seconds = 0.0 if pairs else _converted(entry.path, target, self.sample_rate)
        wave = None if seconds else load_audio(entry.path, self.sample_rate)
        samples = round(seconds * self.sample_rate) if wave is None else wave.shape[1]
        shortest = math.ceil(self.min_seconds * self.sample_rate)
        if samples < shortest:
            return 0.0, f"has {samples} samples, shorter than {shortest} ({self.min_seconds:g} s)", ""
        if wave is None:
            return seconds, "", ""
        level = wave.abs()
        if level.max() < SILENT_PEAK:
            return 0.0, f"next to silent, its peak is {level.max():.1e} of full scale", ""
        clipped = (level >= FULL_SCALE).float().mean().item()
        doubts = [f"clipped, {clipped:.1%} of its samples are at full scale"] if clipped > CLIPPED_SHARE else []
        ready_folder(target.parent)
        if pairs:
            wave = pairs.delayed(wave)
            doubts += pairs.save(entry.name, wave, target.with_suffix(".npy"))
        save_audio(target, wave, self.sample_rate)
        return wave.shape[1] / self.sample_rate, "", "; ".join(doubts)


def unmixed(source: Path, out: Path) -> list[Entry]:
    """Return the entries of a corpus; refuse a folder for results that lies among them, with a ValueError."""
    entries = entries_of(source)
    root = source if source.is_dir() else source.parent
    if out.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{out}: is in the source {root}; choose another folder, to keep the originals")
    return entries


def _target(out: Path, entry: Entry) -> Path:
    return out / f"{entry.name}.flac"


def _converted(path: Path, target: Path, sample_rate: int) -> float:
    """Return the seconds of an already converted clip; 0 if it has to be done."""
    if not target.is_file() or not path.is_file() or target.stat().st_mtime < path.stat().st_mtime:
        return 0.0
    try:
        # It was written atomically, so it is whole, if the machine did not lose power right after.
        info = audio_info(target)
    except ValueError:
        return 0.0
    return info.seconds if info.sample_rate == sample_rate else 0.0


def with_splits(entries: list[Entry], valid_fraction: float, seed: int, source: object) -> list[Entry]:
    """Decide on the split of every entry that has none."""
    if not 0 <= valid_fraction < 1:
        raise ValueError(f"valid_fraction is {valid_fraction}, must be at least 0 and below 1")
    lots = {e.name: lot(e.name, seed) for e in entries if not e.split}
    valid = {name for name, lot in lots.items() if lot < valid_fraction}
    if lots and not valid and all(e.split != "valid" for e in entries):
        valid = {min(lots, key=lots.__getitem__)}
    entries = [e if e.split else replace(e, split="valid" if e.name in valid else "train") for e in entries]
    if all(e.split == "valid" for e in entries):
        raise ValueError(f"{source}: has no clip to train on, all {len(entries)} are valid; add clips")
    return entries


def lot(name: str, seed: int | str) -> float:
    """Return a number in [0, 1) that is random in the name, and the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:6], "big") / 2**48
