"""Write and stream a corpus in shards: a few thousand clips to a tar file, for corpora too large for one disk.

A shard is read from its beginning to its end, so it may lie on a slow disk or behind a network. The layout is that of
WebDataset. Clips lie in random order, so that each shard is a random sample of the corpus:

    shards.json          the index: sample rate, speakers; of each shard its split, clips, seconds, sha256
    train-000000.tar     000000.flac, 000000.json (name, speaker, split, seconds, text), 000000.npy (its predicted mel), ...
    train-000000.json    its line of the index, and the names of its clips: what a restart goes by
    valid-000000.tar     ...

The readers of a run are the worker processes of all its training processes together. In each epoch all shards are dealt out
to them in random order. A reader goes through its own one after the other, and draws from each as many random crops as make
up its seconds.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flowavenet.audio import MelSpectrogram
from flowavenet.data.corpus import Clip, Preparation, PrepareReport, lot, unmixed, with_splits
from flowavenet.data.crops import INT16, Crops
from flowavenet.data.layouts import Entry
from flowavenet.data.pairs import Pairs
from flowavenet.files import parse_npy, ready_folder, write_atomically

INDEX = "shards.json"
NAME = re.compile(r"(train|valid)-\d{6}\.tar")


@dataclass(frozen=True)
class Shard:
    """Describe a shard: its line of the index."""

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
    """Hold a clip as it lies in a shard. The clip's path names shard and clip; there is no such file."""

    clip: Clip
    flac: bytes
    npy: bytes | None
    """Its predicted mel."""


# Reading


@dataclass(frozen=True)
class ShardedCorpus:
    """Describe a corpus in shards: what the index says, and where the shards are."""

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
        """Read the clips of a shard, without decoding them.

        Raises ValueError: it cannot be read, or is not what the index says.
        """
        from webdataset.tariterators import group_by_keys, tar_file_expander

        source = _place(self.location, shard.name)
        try:
            with _opened(source) as stream:
                hashed = _Hashed(stream)
                samples = group_by_keys(tar_file_expander([{"url": source, "stream": hashed}]))
                clips = [_packed(sample, shard) for sample in samples]
                digest = hashed.digest()
        except (OSError, tarfile.TarError, KeyError, ValueError) as error:
            raise ValueError(f"{source}: cannot be read as a shard ({error.args[0]}); copy it again") from None
        if (len(clips), digest) != (shard.clips, shard.sha256):
            raise ValueError(
                f"{source}: has {len(clips)} clips and sha256 {digest[:8]}, {INDEX} says {shard.clips} and "
                f"{shard.sha256[:8]}; copy it again"
            )
        return clips

    def unpack(self, split: str, folder: Path) -> list[Clip]:
        """Write the clips of one split as files into a folder; return them."""
        clips = []
        for packed in itertools.chain.from_iterable(self.read(shard) for shard in self.shards if shard.split == split):
            path, mel = folder / f"{len(clips):06}.flac", None
            path.write_bytes(packed.flac)
            if packed.npy:
                mel = path.with_suffix(".npy")
                mel.write_bytes(packed.npy)
            clips.append(Clip(path, packed.clip.speaker, split, packed.clip.seconds, mel))
        return clips


def is_sharded(corpus: str) -> bool:
    """Return whether this names a corpus in shards, rather than one of files."""
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


class _Hashed:
    """Read from a stream and add up the sha256 of what was read."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.sha = stream, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.sha.update(data)
        return data

    def digest(self) -> str:
        """Read what is left; return the sha256 of the whole."""
        while self.read(1 << 16):
            pass
        return self.sha.hexdigest()


def _packed(sample: dict[str, Any], shard: Shard) -> Packed:
    said = json.loads(sample["json"])
    path = Path(shard.name, f"{said['name']}.flac")
    mel = path.with_suffix(".npy") if "npy" in sample else None
    return Packed(Clip(path, said["speaker"], said["split"], said["seconds"], mel), sample["flac"], sample.get("npy"))


def _is_remote(location: str) -> bool:
    return location.startswith("pipe:") or "://" in location


def _place(location: str, name: str) -> str:
    return location.replace("{}", name) if "{}" in location else f"{location.rstrip('/')}/{name}"


def _opened(source: str) -> Any:
    return _webdataset().gopen(source) if _is_remote(source) else open(source, "rb")


def _webdataset() -> Any:
    try:
        import webdataset
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a corpus in shards needs webdataset: pip install 'flowavenet[shards]'") from None
    return webdataset


# Crops


class PackedWave:
    """Give the samples of a packed clip as :meth:`Crops.wave` does, int16, decoding only those that are asked for."""

    def __init__(self, packed: Packed, mel: MelSpectrogram):
        import soundfile

        self.packed, self.mel = packed, mel
        self.file = soundfile.SoundFile(io.BytesIO(packed.flac))
        self.whole: Tensor | None = None

    def __len__(self) -> int:
        settings = self.mel.settings
        return settings.frames(self.file.frames) * settings.hop_length + sum(settings.context)

    def __getitem__(self, part: slice) -> Tensor:
        before, _ = self.mel.settings.context
        start, stop = part.start - before, part.stop - before
        if 0 <= start and stop <= self.file.frames and self.mel.settings.peak is None:
            return torch.from_numpy(self._decoded(start, stop))
        if self.whole is None:                                         # near its ends, what is added there is asked for
            wave = torch.from_numpy(self._decoded(0, self.file.frames)).float()[None] / INT16
            padded = self.mel.pad(self.mel.normalise(wave))[0] * INT16
            self.whole = padded.round().clamp(-INT16, INT16 - 1).to(torch.int16)
        return self.whole[part]

    def _decoded(self, start: int, stop: int) -> np.ndarray:
        try:
            self.file.seek(start)
            return self.file.read(stop - start, dtype="int16")
        except RuntimeError as error:
            raise ValueError(f"{self.packed.clip.path}: cannot be decoded ({error}); prepare its shard again") from None


class ShardCrops(Crops):
    """Draw crops of one shard, which is in memory as it lies on the disk."""

    def __init__(self, packed: Sequence[Packed], *options: Any):
        super().__init__([one.clip for one in packed], *options)
        self.packed = packed
        self.last: tuple[int, PackedWave] | None = None                # drawn, then cut: the same clip twice in a row

    def wave(self, clip: int) -> PackedWave:
        if self.last is None or self.last[0] != clip:
            self.last = clip, PackedWave(self.packed[clip], self.mel)
        return self.last[1]

    def predicted_mel(self, clip: int) -> Tensor:
        try:
            return torch.from_numpy(parse_npy(self.packed[clip].npy)).float()
        except ValueError as error:
            raise ValueError(f"{self.packed[clip].clip.path}: its mel {error}; prepare its shard again") from None


class StreamedCrops(Dataset):
    """Draw the ``index``-th crop of the run, as :class:`Crops` has it, from a shard that follows from its batch.

    A batch whose first index is ``i`` belongs to reader ``b % readers``, as its step ``b // readers``, where
    ``b = i // batch_size``. Batches may be asked for in any order. A process that asks for those of one reader, one after
    the other, holds one shard and reads the next ahead: that is what each worker of a DataLoader with FromPosition does,
    wherever the run stands when it begins.

    Args:
        corpus: its training shards are used.
        mel, frames, seed, silence_db, predicted_share: as for Crops.
        batch_size: of FromPosition.
        readers: processes times workers.
    """

    def __init__(
        self, corpus: ShardedCorpus, mel: MelSpectrogram, frames: int, seed: int, silence_db: float,
        predicted_share: float, batch_size: int, readers: int,
    ):
        self.corpus, self.seed, self.batch_size, self.readers = corpus, seed, batch_size, readers
        self.options = mel, frames, seed, silence_db, corpus.speakers, predicted_share
        self.batch_seconds = batch_size * frames * mel.settings.hop_length / mel.settings.sample_rate
        self.shards = [shard for shard in corpus.shards if shard.split == "train"]
        if len(self.shards) < readers:
            raise ValueError(
                f"{corpus.location}: has {len(self.shards)} shards to train on, fewer than the {readers} readers (processes "
                f"times data.workers); write smaller ones, by prepare --shard-mb, or lower data.workers"
            )
        self.at: tuple[int, range] = 0, range(0)                       # the reader and the steps that `crops` are for
        self.crops: ShardCrops | None = None
        self.following: Shard | None = None
        self.ahead: Future[list[Packed]] | None = None                 # of the following shard

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self._opened(index)[index]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]]:
        """Draw a batch, as a DataLoader asks for it; while it is used, the next shard is read."""
        crops = self._opened(indices[0])
        if self.ahead is None:                                         # not before a DataLoader's worker has been forked
            thread = ThreadPoolExecutor(1)
            self.ahead = thread.submit(self.corpus.read, self.following)
            thread.shutdown(wait=False)
        return [crops[index] for index in indices]

    def schedule(self, reader: int) -> Iterator[tuple[range, Shard]]:
        """Yield the shards that a reader reads, without end, each with the steps that it is there for."""
        first = 0
        for epoch in itertools.count():
            order = np.random.default_rng([self.seed, epoch, 2]).permutation(len(self.shards))
            for number in order[reader :: self.readers]:
                steps = max(1, round(self.shards[number].seconds / self.batch_seconds))
                yield range(first, first + steps), self.shards[number]
                first += steps

    def _opened(self, index: int) -> ShardCrops:
        """Return the crops of the shard for a batch with this first index."""
        step, reader = divmod(index // self.batch_size, self.readers)
        if self.crops is None or reader != self.at[0] or step not in self.at[1]:
            rest = (one for one in self.schedule(reader) if step < one[0].stop)
            steps, shard = next(rest)
            self.crops = None                                          # two shards in memory, never three
            packed = self.ahead.result() if self.ahead and shard == self.following else self.corpus.read(shard)
            self.at, self.crops = (reader, steps), ShardCrops(packed, *self.options)
            self.following, self.ahead = next(rest)[1], None
        return self.crops


# Writing


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
    """Check and convert a corpus as :func:`~flowavenet.data.corpus.prepare_corpus` does, but into shards.

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
    kinds = {True: "with mels", False: "without mels"}
    for sidecar in sidecars:
        if (sidecar["sample_rate"], sidecar["paired"]) != (sample_rate, bool(pairs)):
            raise ValueError(
                f"{out}: holds shards at {sidecar['sample_rate']} Hz {kinds[bool(sidecar['paired'])]}, now it is "
                f"{sample_rate} Hz {kinds[bool(pairs)]}; choose another folder"
            )
    there = {name for sidecar in sidecars for name in sidecar["names"]}
    todo = sorted((e for e in entries if e.name not in there), key=lambda e: (e.split, lot(e.name, "order")))
    staging = out / ".staging"
    shutil.rmtree(staging, ignore_errors=True)                         # of a call that was killed
    work = Preparation(entries, staging, sample_rate, pairs, workers, min_seconds, progress)
    try:
        for together in _together(work.kept(todo), staging, shard_mb * 1e6):
            split = together[0].split
            name = f"{split}-{sum(sidecar['name'].startswith(split) for sidecar in sidecars):06}.tar"
            sidecars.append(_write(together, staging, out / name, sample_rate, bool(pairs)))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if not sidecars:
        raise ValueError(f"{source}: none of {len(entries)} clips is usable; the first: {work.skipped[0][1]}")
    shards = sorted(({key: sidecar[key] for key in FIELDS} for sidecar in sidecars), key=lambda shard: shard["name"])
    speakers = sorted({name for sidecar in sidecars for name in sidecar["speakers"]})
    _save(out / INDEX, {"sample_rate": sample_rate, "paired": bool(pairs), "speakers": speakers, "shards": shards})
    clips, seconds = (sum(shard[key] for shard in shards) for key in ("clips", "seconds"))
    return PrepareReport(clips, seconds, work.skipped, work.doubtful)


FIELDS = tuple(Shard.__dataclass_fields__)


def _together(kept: Iterable[Entry], staging: Path, limit: float) -> Iterator[list[Entry]]:
    """Yield entries for one shard after the other: of one split, and of so many bytes."""
    pack: list[Entry] = []
    size = 0
    for entry in kept:
        if pack and (size >= limit or entry.split != pack[0].split):
            yield pack
            pack, size = [], 0
        pack.append(entry)
        size += sum(path.stat().st_size for path in _files(staging, entry))
    if pack:
        yield pack


def _write(entries: list[Entry], staging: Path, path: Path, sample_rate: int, paired: bool) -> dict[str, Any]:
    """Move prepared clips into a shard; write and return its sidecar."""
    with write_atomically(path) as part, part.open("wb") as file:
        tar = _webdataset().TarWriter(file, encoder=False, mtime=0, user="", group="")
        for number, entry in enumerate(entries):
            said = {"name": entry.name, "speaker": entry.speaker, "split": entry.split, "seconds": round(entry.seconds, 3)}
            said |= {"text": entry.text} if entry.text else {}
            sample = {"__key__": f"{number:06}", "json": json.dumps(said).encode()}
            tar.write(sample | {one.suffix[1:]: one.read_bytes() for one in _files(staging, entry)})
        tar.close()
    with path.open("rb") as file:
        digest = _Hashed(file).digest()
    seconds = round(sum(entry.seconds for entry in entries), 3)
    shard = Shard(path.name, len(entries), seconds, sum(not entry.speaker for entry in entries), digest)
    sidecar = asdict(shard) | {
        "sample_rate": sample_rate, "paired": paired, "speakers": sorted({entry.speaker for entry in entries}),
        "names": [entry.name for entry in entries],
    }
    _save(path.with_suffix(".json"), sidecar)
    for one in itertools.chain.from_iterable(_files(staging, entry) for entry in entries):
        one.unlink()
    return sidecar


def read_sidecars(out: Path) -> list[dict[str, Any]]:
    """Read the sidecars of the shards that calls have finished; a sidecar is written after its shard.

    Raises ValueError for a sidecar that is none.
    """
    sidecars = []
    for path in (tar.with_suffix(".json") for tar in sorted(out.glob("*.tar")) if NAME.fullmatch(tar.name)):
        if not path.is_file():
            continue
        try:
            sidecar = json.loads(path.read_bytes())
            Shard(**{key: sidecar[key] for key in FIELDS})
            sidecar["sample_rate"], sidecar["paired"], set(sidecar["names"]), sorted(sidecar["speakers"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{path}: is no sidecar of a shard ({error}); delete it and its shard") from None
        sidecars.append(sidecar)
    return sidecars


def _files(staging: Path, entry: Entry) -> list[Path]:
    """Return the files that a prepared clip has: its recording and, if it is paired, its mel."""
    files = (staging / f"{entry.name}{suffix}" for suffix in (".flac", ".npy"))
    return [file for file in files if file.exists()]


def _save(path: Path, content: dict[str, Any]) -> None:
    with write_atomically(path) as part:
        part.write_text(json.dumps(content, indent=1), "utf-8")
