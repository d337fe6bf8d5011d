"""Draw random crops of a corpus, each a pure function of a seed and its position in the training run.

Nothing is remembered from one crop to the next. A run that is resumed at position n draws what the uninterrupted run
would have drawn, whatever the number of workers, and the only state to save is n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from flowavenet.audio import MelSpectrogram, load_audio, load_mel
from flowavenet.data.corpus import Clip

INT16 = 32768


def speakers_of(clips: Iterable[Clip]) -> list[str]:
    """Return the names of all speakers, sorted: a speaker's number is its place here."""
    return sorted({clip.speaker for clip in clips})


class Crops(Dataset):
    """Draw the ``index``-th random crop: (samples,) float32, with what the mel looks at on either side.

    An item also has the number of its speaker. Every second of the corpus is equally likely. A crop quieter than
    ``silence_db`` is drawn again, a few times.

    With ``predicted_share``, crops begin at hops, and an item also has the ``mel`` that was predicted for its clip there,
    (n_mels, frames), and whether this crop is one to be ``predicted`` from it, rather than from its own mel.

    Args:
        clips: the recordings.
        mel: gives the sample rate, the level and the context that crops carry.
        frames: mel frames per crop.
        seed: the same seed draws the same crops.
        silence_db: RMS below which a crop is silence, dB re full scale.
        speakers: names, in the order of their numbers; None: those of the clips.
        predicted_share: part of the crops to be predicted from the clips' ``mel``; 0: their mels are not read.
    """

    tries = 8

    def __init__(
        self, clips: Sequence[Clip], mel: MelSpectrogram, frames: int, seed: int, silence_db: float,
        speakers: Sequence[str] | None = None, predicted_share: float = 0.0,
    ):
        self.clips = list(clips)
        self.mel = mel
        self.frames = frames
        self.length = frames * mel.settings.hop_length + sum(mel.settings.context)
        self.seed = seed
        self.silence_rms = 10 ** (silence_db / 20)
        names = speakers_of(self.clips) if speakers is None else list(speakers)
        self.speakers = [names.index(clip.speaker) for clip in self.clips]
        self.predicted_share = predicted_share
        self.grid = mel.settings.hop_length if predicted_share else 1  # where crops may begin, samples
        self.ends = np.cumsum([max(clip.seconds, 1e-3) for clip in self.clips])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        clip, start = self.draw(index)
        return {"padded": self.cut(self.wave(clip), start), **self.about(index, clip, start)}

    def about(self, index: int, clip: int, start: int) -> dict[str, Tensor]:
        """Return what an item has beside its samples."""
        item = {"index": torch.tensor(index), "speaker": torch.tensor(self.speakers[clip])}
        if self.predicted_share:
            lot = np.random.default_rng([self.seed, index, 1]).random()
            item |= {"mel": self.cut_mel(clip, start), "predicted": torch.tensor(lot < self.predicted_share)}
        return item

    def draw(self, index: int) -> tuple[int, int]:
        """Return the clip and the first sample of crop ``index``."""
        random = np.random.default_rng([self.seed, index])
        for _ in range(self.tries):
            clip = int(np.searchsorted(self.ends, random.random() * self.ends[-1], side="right"))
            wave = self.wave(clip)
            start = int(random.integers(max(1, len(wave) - self.length + 1))) // self.grid * self.grid
            if self.cut(wave, start).square().mean().sqrt() >= self.silence_rms:
                break
        return clip, start

    def cut(self, wave: Tensor, start: int) -> Tensor:
        """Return samples from ``start`` as float, followed by digital silence where the clip is too short."""
        crop = wave[start : start + self.length].float() / INT16
        return torch.nn.functional.pad(crop, (0, self.length - len(crop)))

    def cut_mel(self, clip: int, start: int) -> Tensor:
        """Return the predicted mel of a crop, followed by that of digital silence where the clip is too short."""
        first = start // self.mel.settings.hop_length
        mel = self.predicted_mel(clip)[:, first : first + self.frames]
        silence = self.mel.from_energies(torch.zeros(len(mel), self.frames - mel.shape[1]))
        return torch.cat([mel, silence], dim=1)

    def wave(self, clip: int) -> Tensor:
        """Return the samples of a clip, with what the mel looks at beyond its ends: int16."""
        wave = self.mel.normalise(load_audio(self.clips[clip].path, self.mel.settings.sample_rate))
        return (self.mel.pad(wave)[0] * INT16).round().clamp(-INT16, INT16 - 1).to(torch.int16)

    def predicted_mel(self, clip: int) -> Tensor:
        """Return the whole predicted mel of a clip: (n_mels, frames)."""
        return load_mel(self.clips[clip].mel, self.mel.settings.n_mels)[0]


class CropsInMemory(Crops):
    """Draw the same crops from a corpus that is decoded once and kept as one row of 16-bit samples.

    An item says only where its crop starts in that row; :meth:`gather` cuts whole batches out of it on the device that
    trains, where the row is copied to on first use: 159 MB per hour of speech at 22,050 Hz. Predicted mels stay where items
    are made: 99 MB per hour with 80 bands and a hop of 256.
    """

    def __init__(
        self, clips: Sequence[Clip], mel: MelSpectrogram, frames: int, seed: int, silence_db: float,
        speakers: Sequence[str] | None = None, predicted_share: float = 0.0,
    ):
        super().__init__(clips, mel, frames, seed, silence_db, speakers, predicted_share)
        waves = [super(CropsInMemory, self).wave(clip) for clip in range(len(self.clips))]
        # each at least as long as a crop, so that none runs into the next clip
        waves = [torch.nn.functional.pad(wave, (0, max(0, self.length - len(wave)))) for wave in waves]
        self.starts = np.cumsum([0] + [len(wave) for wave in waves])
        self.samples = torch.cat(waves)
        predict = super().predicted_mel
        self.mels = [predict(clip) for clip in range(len(self.clips))] if predicted_share else []
        self.copy = self.samples                                       # where batches are cut; draws look at `samples`

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        clip, start = self.draw(index)
        return {"start": torch.tensor(self.starts[clip] + start), **self.about(index, clip, start)}

    def wave(self, clip: int) -> Tensor:
        return self.samples[self.starts[clip] : self.starts[clip + 1]]

    def predicted_mel(self, clip: int) -> Tensor:
        return self.mels[clip]

    def gather(self, start: Tensor) -> Tensor:
        """Return crops (batch, samples) float32 from where they start (batch,), on the device of ``start``."""
        if self.copy.device != start.device:
            self.copy = self.samples.to(start.device)
        return self.copy[start[:, None] + torch.arange(self.length, device=start.device)].float() / INT16


class FixedCrops(CropsInMemory):
    """Give always the same crops, spread evenly over each clip: what validation measures.

    Item ``k`` is crop ``k % per_clip`` of clip ``k // per_clip``. Processes that share the crops out must all take the same
    number of steps; items beyond the last are there to fill up the shares, and :meth:`counted` leaves them out.
    """

    per_clip = 2

    def __len__(self) -> int:
        return len(self.clips) * self.per_clip

    def draw(self, index: int) -> tuple[int, int]:
        clip, part = divmod(index % len(self), self.per_clip)
        start = (len(self.wave(clip)) - self.length) * (part + 1) // (self.per_clip + 1)
        return clip, start // self.grid * self.grid

    def share(self, rank: int, processes: int) -> range:
        """Return the items of one process of several: equally many for each; without what fills up, each crop once."""
        return range(rank, -(-len(self) // processes) * processes, processes)

    def counted(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
        """Return a batch without the items that only fill up, and how many are left; if none, all of them, and 0."""
        real = batch["index"] < len(self)
        crops = int(real.sum())
        return {key: value[real] for key, value in batch.items()} if crops else batch, crops

    def opening(self, clip: int, seconds: float) -> dict[str, Tensor]:
        """Return the first ``seconds`` of a clip, or all of a shorter one, as an item with its samples: for listening."""
        settings, longer = self.mel.settings, copy(self)
        frames = (len(self.wave(clip)) - sum(settings.context)) // settings.hop_length
        longer.frames = max(1, min(frames, round(seconds * settings.sample_rate / settings.hop_length)))
        longer.length = longer.frames * settings.hop_length + sum(settings.context)
        return {"padded": longer.cut(self.wave(clip), 0), **longer.about(clip * self.per_clip, clip, 0)}


class FromPosition(Sampler[list[int]]):
    """Yield batches of consecutive indices for one process of several, from wherever the run stands.

    After ``n`` crops have been drawn by all processes, the next batch of process ``rank`` holds the indices
    ``n + rank * batch_size`` and following. So the crops of a step do not depend on how many processes share them out.

    Args:
        batches: in one epoch; of a resumed one, the trainer takes what is left.
        position: called when an epoch begins, gives the number of crops the run has drawn so far.
    """

    def __init__(self, batches: int, batch_size: int, position: Callable[[], int], rank: int = 0, processes: int = 1):
        self.batches = batches
        self.batch_size = batch_size
        self.position = position
        self.rank = rank
        self.processes = processes

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        first = self.position() + self.rank * self.batch_size
        for batch in range(self.batches):
            start = first + batch * self.processes * self.batch_size
            yield list(range(start, start + self.batch_size))
