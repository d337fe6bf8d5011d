"""A corpus in shards: a few thousand clips to a tar file, for corpora that are too many files, or too large for one disk.

A shard is read from its beginning to its end, so it may as well lie on a slow disk, or behind a network. The layout is that
of WebDataset; clips lie in random order, so that each shard is a random sample of the corpus:

    shards.json          the index: sample rate, speakers; of each shard its split, clips, seconds, sha256
    train-000000.tar     000000.flac, 000000.json (name, speaker, split, seconds, text), 000000.npy (its predicted mel), ...
    train-000000.json    its line of the index, and the names of its clips: what a restart goes by
    valid-000000.tar     ...

sharding.py writes them.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from flowavenet.training.corpus import Clip

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
                hashed = Hashed(stream)
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


class Hashed:
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
    return webdataset().gopen(source) if _is_remote(source) else open(source, "rb")


def webdataset() -> Any:
    """The package, or which extra to install."""
    try:
        import webdataset
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a corpus in shards needs webdataset: pip install 'flowavenet[shards]'") from None
    return webdataset
