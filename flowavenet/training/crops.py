"""Random crops of a corpus, each a pure function of a seed and its position in the training run.

Nothing is remembered from one crop to the next. A run that is resumed at position n draws what the uninterrupted run
would have drawn, whatever the number of workers, and the only state to save is n.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from flowavenet.audio import MelSpectrogram, load_audio
from flowavenet.training.corpus import Clip

INT16 = 32768


class Crops(Dataset):
    """Item ``index`` is the ``index``-th random crop: (samples,) float32, with what the mel looks at on either side.

    Every second of the corpus is equally likely. A crop quieter than ``silence_db`` is drawn again, a few times.

    Args:
        clips: the recordings.
        mel: gives the sample rate, the level and the context that crops carry.
        frames: mel frames per crop.
        seed: the same seed draws the same crops.
        silence_db: RMS below which a crop is silence, dB re full scale.
        in_memory: decode the whole corpus once and keep it as 16-bit samples; else decode a clip for each crop.
    """

    tries = 8

    def __init__(
        self, clips: Sequence[Clip], mel: MelSpectrogram, frames: int, seed: int, silence_db: float, in_memory: bool
    ):
        self.clips = list(clips)
        self.mel = mel
        self.length = frames * mel.settings.hop_length + mel.settings.n_fft - mel.settings.hop_length
        self.seed = seed
        self.silence_rms = 10 ** (silence_db / 20)
        self.ends = np.cumsum([max(clip.seconds, 1e-3) for clip in self.clips])
        self.waves = [self._read(clip) for clip in self.clips] if in_memory else None

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        random = np.random.default_rng([self.seed, index])
        for _ in range(self.tries):
            clip = int(np.searchsorted(self.ends, random.random() * self.ends[-1], side="right"))
            wave = self.waves[clip] if self.waves else self._read(self.clips[clip])
            start = int(random.integers(max(1, len(wave) - self.length + 1)))
            crop = self.cut(wave, start)
            if crop.square().mean().sqrt() >= self.silence_rms:
                break
        return {"padded": crop, "index": torch.tensor(index)}

    def cut(self, wave: Tensor, start: int) -> Tensor:
        """Samples from ``start`` as float, followed by digital silence where the clip is too short."""
        crop = wave[start : start + self.length].float() / INT16
        return torch.nn.functional.pad(crop, (0, self.length - len(crop)))

    def _read(self, clip: Clip) -> Tensor:
        wave = self.mel.normalise(load_audio(clip.path, self.mel.settings.sample_rate))
        return (self.mel.pad(wave)[0] * INT16).round().clamp(-INT16, INT16 - 1).to(torch.int16)


class FixedCrops(Crops):
    """Always the same crops, spread evenly over each clip: what validation measures.

    Item ``k`` is crop ``k % per_clip`` of clip ``k // per_clip``.
    """

    per_clip = 2

    def __len__(self) -> int:
        return len(self.clips) * self.per_clip

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        clip, part = divmod(index, self.per_clip)
        wave = self.waves[clip] if self.waves else self._read(self.clips[clip])
        room = max(0, len(wave) - self.length)
        return {"padded": self.cut(wave, room * (part + 1) // (self.per_clip + 1)), "index": torch.tensor(index)}


class FromPosition(Sampler[list[int]]):
    """Batches of consecutive indices for one process of several, from wherever the run stands.

    Batch ``b`` of process ``rank`` holds the indices ``(b * processes + rank) * batch_size`` and following.

    Args:
        batches: in one epoch.
        position: called when an epoch begins, gives the number of batches the run has consumed so far.
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
        done = self.position()
        for batch in itertools.count(done):
            if batch > done and batch % self.batches == 0:             # the next epoch asks for a new iterator
                return
            first = (batch * self.processes + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))
