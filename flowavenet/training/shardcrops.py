"""Random crops of a corpus in shards: each a function of a seed and its position in the run, and shards are read in order.

The readers are the worker processes of all training processes together. In each epoch all shards are dealt out to them, in
random order; a reader goes through its own, one after the other, then through those of its next epoch. With a shard at
hand, it draws as many crops of it, at random, as make up its seconds.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flowavenet.audio import MelSpectrogram
from flowavenet.files import parse_npy
from flowavenet.training.crops import INT16, Crops
from flowavenet.training.shards import Packed, Shard, ShardedCorpus


class ShardCrops(Crops):
    """The crops of one shard, which is in memory as it lies on the disk: only what a crop needs is decoded."""

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


class PackedWave:
    """The samples of a clip as :meth:`Crops.wave` has them, int16, decoded only where they are looked at."""

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


class StreamedCrops(Dataset):
    """Item ``index`` is the ``index``-th crop of the run, as :class:`Crops` has it, of a shard that follows from its batch.

    A batch whose first index is ``i`` belongs to reader ``b % readers``, as its step ``b // readers``, where
    ``b = i // batch_size``. Batches may be asked for in any order; a process that asks for those of one reader, one after
    the other, holds one shard and reads the next ahead. That is what each worker of a DataLoader with FromPosition does,
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
        """A batch, as a DataLoader asks for it; while it is used, the next shard is on its way."""
        crops = self._opened(indices[0])
        if self.ahead is None:                                         # not before a DataLoader's worker has been forked
            thread = ThreadPoolExecutor(1)
            self.ahead = thread.submit(self.corpus.read, self.following)
            thread.shutdown(wait=False)
        return [crops[index] for index in indices]

    def schedule(self, reader: int) -> Iterator[tuple[range, Shard]]:
        """The shards that a reader reads, without end, each with the steps that it is there for."""
        first = 0
        for epoch in itertools.count():
            order = np.random.default_rng([self.seed, epoch, 2]).permutation(len(self.shards))
            for number in order[reader :: self.readers]:
                steps = max(1, round(self.shards[number].seconds / self.batch_seconds))
                yield range(first, first + steps), self.shards[number]
                first += steps

    def _opened(self, index: int) -> ShardCrops:
        """The crops of the shard for a batch with this first index."""
        step, reader = divmod(index // self.batch_size, self.readers)
        if self.crops is None or reader != self.at[0] or step not in self.at[1]:
            rest = (one for one in self.schedule(reader) if step < one[0].stop)
            steps, shard = next(rest)
            self.crops = None                                          # two shards in memory, never three
            packed = self.ahead.result() if self.ahead and shard == self.following else self.corpus.read(shard)
            self.at, self.crops = (reader, steps), ShardCrops(packed, *self.options)
            self.following, self.ahead = next(rest)[1], None
        return self.crops
