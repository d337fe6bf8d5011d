"""A corpus in shards: a few thousand clips to a tar file, for corpora that are too many files, or too large for one disk.

A shard is read from its beginning to its end, so it may as well lie on a slow disk, or behind a network. The layout is that
of WebDataset; clips lie in random order, so that each shard is a random sample of the corpus:

    shards.json          the index: sample rate, speakers; of each shard its split, clips, seconds, sha256
    train-000000.tar     000000.flac, 000000.json (name, speaker, split, seconds, text), 000000.npy (its predicted mel), ...
    train-000000.json    its line of the index, and the names of its clips: what a restart goes by
    valid-000000.tar     ...
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from flowavenet.audio import write_atomically
from flowavenet.training.corpus import Clip, Preparation, PrepareReport, lot, unmixed, with_splits
from flowavenet.training.layouts import Entry
from flowavenet.training.pairs import Pairs

INDEX = "shards.json"
NAME = re.compile(r"(train|valid)-\d{6}\.tar")


@dataclass(frozen=True)
class Shard:
    """A line of the index."""

    name: str
    """Such as train-000000.tar."""
    clips: int
    seconds: float
    """Of all its clips together."""
    nameless: int
    """Clips of which no speaker is known."""
    sha256: str

    @property
    def split(self) -> str:
        return self.name.partition("-")[0]


@dataclass(frozen=True)
class Packed:
    """A clip as it lies in a shard."""

    clip: Clip
    """Its path says shard and name; there is no such file."""
    flac: bytes
    npy: bytes | None
    """Its predicted mel."""


@dataclass(frozen=True)
class ShardedCorpus:
    """What the index says, and where the shards are."""

    location: str
    """A folder; a URL of one; or `pipe:` and a command that prints the file whose name takes the place of {}."""
    sample_rate: int
    """Hz."""
    paired: bool
    """Every clip has a predicted mel."""
    speakers: list[str]
    """Sorted; "" is among them if some are not known."""
    shards: list[Shard]

    def read(self, shard: Shard) -> list[Packed]:
        """The clips of a shard, not decoded.

        Raises ValueError: it cannot be read, or is not what the index says.
        """
        source = _place(self.location, shard.name)
        try:
            with _opened(source) as stream:
                hashed = _Hashed(stream)
                clips = [_packed(sample, shard) for sample in _samples(hashed, source)]
                hashed.read_rest()
        except (OSError, tarfile.TarError, KeyError, ValueError) as error:
            raise ValueError(f"{source}: cannot be read as a shard ({error.args[0]}); copy it again") from None
        if (len(clips), hashed.sha.hexdigest()) != (shard.clips, shard.sha256):
            raise ValueError(
                f"{source}: has {len(clips)} clips and sha256 {hashed.sha.hexdigest()[:8]}, {INDEX} says {shard.clips} and "
                f"{shard.sha256[:8]}; copy it again"
            )
        return clips

    def unpack(self, split: str, folder: Path) -> list[Clip]:
        """The clips of one split as files in a folder."""
        clips = []
        for shard in (shard for shard in self.shards if shard.split == split):
            for packed in self.read(shard):
                path, mel = folder / f"{len(clips):06}.flac", None
                path.write_bytes(packed.flac)
                if packed.npy:
                    mel = path.with_suffix(".npy")
                    mel.write_bytes(packed.npy)
                clips.append(Clip(path, packed.clip.speaker, split, packed.clip.seconds, mel))
        return clips


def is_sharded(corpus: str) -> bool:
    """Whether this names a corpus in shards, rather than one of files."""
    return _is_remote(corpus) or (Path(corpus) / INDEX).is_file()


def read_index(location: str) -> ShardedCorpus:
    """Read the index of a corpus in shards.

    Raises ValueError or OSError: there is none, or it is faulty.
    """
    source = _place(location, INDEX)
    with _opened(source) as stream:
        text = stream.read()
    try:
        index = json.loads(text)
        shards = [Shard(**shard) for shard in index.pop("shards")]
        if bad := next((shard.name for shard in shards if not NAME.fullmatch(shard.name)), None):
            raise ValueError(f"{bad!r} is no name of a shard")         # it might lead elsewhere, or be a command
        return ShardedCorpus(location, **index, shards=shards)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{source}: is no index of shards ({error}); write one by flowavenet prepare --shards") from None


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
    out.mkdir(parents=True, exist_ok=True)
    sidecars = [json.loads(path.with_suffix(".json").read_bytes()) for path in _whole(out)]
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
        tar = _webdataset().TarWriter(file, encoder=False, mtime=0, user="", group="")
        for number, entry in enumerate(entries):
            said = {"name": entry.name, "speaker": entry.speaker, "split": entry.split, "seconds": round(entry.seconds, 3)}
            said |= {"text": entry.text} if entry.text else {}
            sample = {"__key__": f"{number:06}", "json": json.dumps(said).encode()}
            tar.write(sample | {one.suffix[1:]: one.read_bytes() for one in _files(staging, entry) if one.exists()})
        tar.close()
    with path.open("rb") as file:
        hashed = _Hashed(file)
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


def _whole(out: Path) -> list[Path]:
    """The shards that a call has finished: those with a sidecar, which is written after them."""
    return sorted(path for path in out.glob("*.tar") if NAME.fullmatch(path.name) and path.with_suffix(".json").is_file())


def _files(staging: Path, entry: Entry) -> list[Path]:
    return [staging / f"{entry.name}{suffix}" for suffix in (".flac", ".npy")]


def _save(path: Path, content: dict[str, Any]) -> None:
    with write_atomically(path) as part:
        part.write_text(json.dumps(content, indent=1), "utf-8")


class _Hashed:
    """A stream that adds up the sha256 of what is read from it."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.sha = stream, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.sha.update(data)
        return data

    def read_rest(self) -> None:
        while self.read(1 << 16):
            pass


def _samples(stream: Any, source: str) -> Iterator[dict[str, Any]]:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    return group_by_keys(tar_file_expander([{"url": source, "stream": stream}]))


def _packed(sample: dict[str, Any], shard: Shard) -> Packed:
    said = json.loads(sample["json"])
    path = Path(shard.name, f"{said['name']}.flac")
    mel = path.with_suffix(".npy") if "npy" in sample else None
    return Packed(Clip(path, said["speaker"], said["split"], said["seconds"], mel), sample["flac"], sample.get("npy"))


def _is_remote(location: str) -> bool:
    return location.startswith("pipe:") or "://" in location


def _place(location: str, name: str) -> str:
    if "{}" in location:
        return location.replace("{}", name)
    return f"{location.rstrip('/')}/{name}"


def _opened(source: str) -> Any:
    return _webdataset().gopen(source) if _is_remote(source) else open(source, "rb")


def _webdataset() -> Any:
    try:
        import webdataset
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a corpus in shards needs webdataset: pip install 'flowavenet[shards]'") from None
    return webdataset
