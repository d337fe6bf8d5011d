"""Writes a corpus in shards (shards.py), clip by clip, so that it need not be anywhere else as a whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowavenet.files import ready_folder, write_atomically
from flowavenet.training.corpus import Preparation, PrepareReport, lot, unmixed, with_splits
from flowavenet.training.layouts import Entry
from flowavenet.training.pairs import Pairs
from flowavenet.training.shards import INDEX, NAME, Hashed, Shard, webdataset


def prepare_shards(
    source: str | Path,
    out: str | Path,
    sample_rate: int,
    shard_mb: float = 200,
    *,
    pairs: Pairs | None = None,
    workers: int | None = None,
    min_seconds: float = 0.1,
    valid_fraction: float = 0.02,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PrepareReport:
    """Check and convert a corpus as :func:`~flowavenet.training.corpus.prepare_corpus` does, but into shards.

    Needs no more room than the shards and one beside them. Interrupted, call it again: whole shards stay, and it goes on
    with the clips that are in none; the result is, byte for byte, that of an uninterrupted call.

    Args:
        shard_mb: about how large a shard becomes, 10^6 bytes; a process that reads holds two.
        The others: as for prepare_corpus.

    Raises:
        ValueError: `out` is `source` or inside it, or has shards at another sample rate; or no clip was usable.
    """
    out = Path(out)
    entries = with_splits(unmixed(Path(source), out), valid_fraction, seed, source)
    ready_folder(out)
    sidecars = read_sidecars(out)
    for sidecar in sidecars:
        if (sidecar["sample_rate"], sidecar["paired"]) != (sample_rate, bool(pairs)):
            raise ValueError(
                f"{out}: holds shards at {sidecar['sample_rate']} Hz {'with' if sidecar['paired'] else 'without'} mels, now "
                f"it is {sample_rate} Hz {'with' if pairs else 'without'}; choose another folder"
            )
    there = {name for sidecar in sidecars for name in sidecar["names"]}
    todo = sorted((e for e in entries if e.name not in there), key=lambda e: (e.split, lot(e.name, "order")))
    staging = out / ".staging"
    shutil.rmtree(staging, ignore_errors=True)                         # of a call that was killed
    work = Preparation(entries, staging, sample_rate, pairs, workers, min_seconds, progress)
    try:
        for entries_together in _together(work.kept(todo), staging, shard_mb * 1e6):
            split = entries_together[0].split
            name = f"{split}-{sum(sidecar['name'].startswith(split) for sidecar in sidecars):06}.tar"
            sidecars.append(_write(entries_together, staging, out / name, sample_rate, bool(pairs)))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if not sidecars:
        raise ValueError(f"{source}: none of {len(entries)} clips is usable; the first: {work.skipped[0][1]}")
    shards = [{key: sidecar[key] for key in Shard.__dataclass_fields__} for sidecar in sidecars]
    speakers = sorted({name for sidecar in sidecars for name in sidecar["speakers"]})
    index = {"sample_rate": sample_rate, "paired": bool(pairs), "speakers": speakers}
    _save(out / INDEX, index | {"shards": sorted(shards, key=lambda shard: shard["name"])})
    clips, seconds = (sum(shard[key] for shard in shards) for key in ("clips", "seconds"))
    return PrepareReport(clips, seconds, work.skipped, work.doubtful)


def _together(kept: Iterable[Entry], staging: Path, limit: float) -> Iterator[list[Entry]]:
    """Entries for one shard after the other: of one split, and so many bytes."""
    pack: list[Entry] = []
    size = 0
    for entry in kept:
        if pack and (size >= limit or entry.split != pack[0].split):
            yield pack
            pack, size = [], 0
        pack.append(entry)
        size += sum(path.stat().st_size for path in _files(staging, entry) if path.exists())
    if pack:
        yield pack


def _write(entries: list[Entry], staging: Path, path: Path, sample_rate: int, paired: bool) -> dict[str, Any]:
    """Move prepared clips into a shard; return what its sidecar says."""
    with write_atomically(path) as part, part.open("wb") as file:
        tar = webdataset().TarWriter(file, encoder=False, mtime=0, user="", group="")
        for number, entry in enumerate(entries):
            said = {"name": entry.name, "speaker": entry.speaker, "split": entry.split, "seconds": round(entry.seconds, 3)}
            said |= {"text": entry.text} if entry.text else {}
            sample = {"__key__": f"{number:06}", "json": json.dumps(said).encode()}
            tar.write(sample | {one.suffix[1:]: one.read_bytes() for one in _files(staging, entry) if one.exists()})
        tar.close()
    with path.open("rb") as file:
        hashed = Hashed(file)
        hashed.read_rest()
    seconds = round(sum(entry.seconds for entry in entries), 3)
    shard = Shard(path.name, len(entries), seconds, sum(not entry.speaker for entry in entries), hashed.sha.hexdigest())
    speakers, names = sorted({entry.speaker for entry in entries}), [entry.name for entry in entries]
    sidecar = asdict(shard) | {"sample_rate": sample_rate, "paired": paired, "speakers": speakers, "names": names}
    _save(path.with_suffix(".json"), sidecar)
    for entry in entries:
        for one in _files(staging, entry):
            one.unlink(missing_ok=True)
    return sidecar


def read_sidecars(out: Path) -> list[dict[str, Any]]:
    """What is known of the shards that calls have finished. Raises ValueError for a sidecar that is none."""
    sidecars = []
    for path in (path.with_suffix(".json") for path in _whole(out)):
        try:
            sidecar = json.loads(path.read_bytes())
            Shard(**{key: sidecar[key] for key in Shard.__dataclass_fields__})
            sidecar["sample_rate"], sidecar["paired"], set(sidecar["names"]), sorted(sidecar["speakers"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{path}: is no sidecar of a shard ({error}); delete it and its shard") from None
        sidecars.append(sidecar)
    return sidecars


def _whole(out: Path) -> list[Path]:
    """The shards that a call has finished: those with a sidecar, which is written after them."""
    return sorted(path for path in out.glob("*.tar") if NAME.fullmatch(path.name) and path.with_suffix(".json").is_file())


def _files(staging: Path, entry: Entry) -> list[Path]:
    return [staging / f"{entry.name}{suffix}" for suffix in (".flac", ".npy")]


def _save(path: Path, content: dict[str, Any]) -> None:
    with write_atomically(path) as part:
        part.write_text(json.dumps(content, indent=1), "utf-8")
