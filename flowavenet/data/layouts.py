"""Recognise how a corpus lies on disk: every usual layout becomes the same list of entries, before any audio is read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flowavenet.audio import list_audio
from flowavenet.files import read_table, read_text

MANIFEST = "manifest.csv"
COLUMNS = ("path", "speaker", "split", "seconds", "mel")


@dataclass(frozen=True)
class Entry:
    """Describe a clip as its corpus does, before anything is read or decided."""

    path: Path
    name: str  # relative path without suffix: the split is drawn from it, a prepared corpus files it so
    speaker: str
    split: str = ""  # "": not said
    seconds: float | None = None
    row: str = ""  # where it is named, such as "manifest.csv row 3"; "" if it was found
    mel: Path | None = None  # predicted for it
    text: str = ""  # what is said


def entries_of(source: Path) -> list[Entry]:
    """List the entries of a corpus, whatever its layout.

    Raises FileNotFoundError or ValueError: there is no corpus, no audio in it, or a faulty row in its manifest.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such folder or manifest")
    source = Path(os.path.abspath(source))
    if source.is_file():
        entries = list(_from_manifest(source))
    elif (source / MANIFEST).is_file():
        entries = list(_from_manifest(source / MANIFEST))
    elif (source / "metadata.csv").is_file() and (source / "wavs").is_dir():
        entries = list(_from_ljspeech(source))
    elif vctk := sorted(path for path in source.glob("wav48*") if path.is_dir()):
        entries = list(_from_vctk(source, vctk[-1]))  # the last: wav48_silence_trimmed rather than wav48
    else:
        found = list_audio(source)
        entries = [Entry(path, _name(path, source), _first_folder(path, source)) for path in found]
    if not entries:
        raise ValueError(f"{source}: no audio there; give a folder of wav, flac, ogg or mp3, or a manifest")
    return entries


def _from_manifest(manifest: Path) -> Iterator[Entry]:
    seen: dict[Path, int] = {}
    columns, rows = read_table(manifest)
    if "path" not in columns:
        has = ", ".join(columns) or "nothing"
        raise ValueError(f"{manifest}: has no column path, only {has}; begin it with path,speaker,split")
    for number, values in rows:
        row = f"{manifest} row {number}"
        given, speaker, split, seconds, mel = ((values.get(column) or "").strip() for column in COLUMNS)
        if not given:
            raise ValueError(f"{row}: has no path; fill it in or remove the row")
        path = Path(os.path.abspath(manifest.parent / given))
        if path in seen:
            raise ValueError(f"{row}: {given} is in row {seen[path]} already; remove one")
        if split not in ("", "train", "valid"):
            raise ValueError(f"{row}: split is {split!r}, must be train or valid, or empty")
        seen[path] = number
        try:
            duration = float(seconds) if seconds else None
        except ValueError:
            duration = math.nan
        if duration is not None and not 0 < duration < math.inf:
            raise ValueError(f"{row}: seconds is {seconds!r}, must be a number above 0, or empty")
        predicted = Path(os.path.abspath(manifest.parent / mel)) if mel else None
        text = (values.get("text") or "").strip()
        yield Entry(path, _name(path, manifest.parent), speaker, split, duration, row, predicted, text)


def _from_ljspeech(root: Path) -> Iterator[Entry]:
    found = {path.stem: path for path in list_audio(root / "wavs")}
    lines = read_text(root / "metadata.csv").splitlines()
    for number, line in enumerate(lines, start=1):
        stem, *texts = (part.strip() for part in line.split("|"))
        if stem:
            path = found.get(stem, root / "wavs" / f"{stem}.wav")
            text = texts[-1] if texts else ""                          # the last: with numbers spelt out
            yield Entry(path, _name(path, root), "", row=f"{root / 'metadata.csv'} row {number}", text=text)


def _from_vctk(root: Path, folder: Path) -> Iterator[Entry]:
    paths = list_audio(folder)
    names = {_name(path, folder) for path in paths}
    for path in paths:
        second = path.stem.endswith("_mic2")
        if not (second and _name(path, folder).removesuffix("2") + "1" in names):
            yield Entry(path, _name(path, root), _first_folder(path, folder))


def _name(path: Path, root: Path) -> str:
    inside = path.relative_to(root if path.is_relative_to(root) else path.anchor)
    return inside.with_suffix("").as_posix()


def _first_folder(path: Path, root: Path) -> str:
    inside = path.relative_to(root).parts
    return inside[0] if len(inside) > 1 else ""
