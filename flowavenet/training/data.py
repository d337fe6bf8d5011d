"""From a folder of speech to batches."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader

from flowavenet.audio import MelSpectrogram, mel_settings
from flowavenet.training.corpus import Clip, read_corpus
from flowavenet.training.crops import Crops, CropsInMemory, FixedCrops, FromPosition, speakers_of
from flowavenet.training.pairs import check_pair


class SpeechData(pl.LightningDataModule):
    """Random crops of a folder of recordings for training, and fixed ones for validation, each with the number of its
    speaker: the place of the name in ``speakers``.

    Args:
        corpus: a folder of audio (any layout that ``flowavenet prepare`` takes), or a manifest CSV.
        mel: a convention by name, or the fields of MelSettings; the command line takes it from the model.
        segment_frames: length of a training crop, mel frames.
        batch_size: crops per step and process.
        predicted_share: part of the crops that are learnt from the mel which a front-end predicted for the clip, rather than
            from the crop's own; the corpus is one of ``flowavenet prepare --mels``. Validation is on predicted mels, and
            on own ones as well; 0: on own mels alone.
        valid_fraction: part of the clips that validates, where the corpus does not say.
        silence_db: crops quieter than this (RMS, dB re full scale) are drawn again.
        in_memory: keep the decoded corpus in the memory of the device that trains, 16 bits per sample (159 MB per hour
            at 22,050 Hz), and cut crops there; else decode a clip for each crop.
        workers: processes that read audio; 0 reads in the training process, which is best for a corpus in memory.
        seed: of the crops and of the validation split.
    """

    def __init__(
        self,
        corpus: str,
        mel: str | dict[str, Any] = "hifigan",
        segment_frames: int = 62,
        batch_size: int = 8,
        predicted_share: float = 0.0,
        valid_fraction: float = 0.02,
        silence_db: float = -50.0,
        in_memory: bool = False,
        workers: int = 2,
        seed: int = 1111,
    ):
        super().__init__()
        self.corpus = corpus
        self.mel = mel_settings(mel)
        self.segment_frames = segment_frames
        self.batch_size = batch_size
        if not 0 <= predicted_share <= 1:
            raise ValueError(f"predicted_share is {predicted_share}, must be 0 to 1")
        self.predicted_share = predicted_share
        self.valid_fraction = valid_fraction
        self.silence_db = silence_db
        self.in_memory = in_memory
        self.workers = workers
        self.seed = seed

    def setup(self, stage: str | None = None) -> None:
        if self.corpus == "???":
            raise ValueError("the recipe leaves the corpus to you: add --data.corpus FOLDER")
        clips = read_corpus(self.corpus, self.valid_fraction, self.seed)
        self.train_clips = [clip for clip in clips if clip.split == "train"]
        self.valid_clips = [clip for clip in clips if clip.split == "valid"]
        if not self.valid_clips:
            raise ValueError(
                f"{self.corpus}: all {len(clips)} clips are for training; mark some as valid in the manifest, or leave the "
                f"split empty and a part is chosen"
            )
        spectrogram = MelSpectrogram(self.mel)
        if self.predicted_share:
            self._check_pairs(clips, spectrogram)
        self.speakers = speakers_of(clips)
        options = spectrogram, self.segment_frames, self.seed, self.silence_db, self.speakers
        self.train = (CropsInMemory if self.in_memory else Crops)(self.train_clips, *options, self.predicted_share)
        self.valid = FixedCrops(self.valid_clips, *options, float(self.predicted_share > 0))

    def _check_pairs(self, clips: list[Clip], spectrogram: MelSpectrogram) -> None:
        """Refuse clips without predicted mels, and look at a few of the mels whether they are of their recordings."""
        if bare := sum(clip.mel is None for clip in clips):
            raise ValueError(
                f"{self.corpus}: {bare} of {len(clips)} clips have no predicted mel, but data.predicted_share is "
                f"{self.predicted_share:g}; pair them by flowavenet prepare CORPUS OUT --mels FOLDER"
            )
        for clip in clips[:: -(-len(clips) // 8)]:
            check_pair(clip.mel, clip.path, spectrogram)

    @property
    def batches_per_epoch(self) -> int:
        """Steps after which as many seconds have been seen as the corpus has; the last, partial one is counted."""
        crop = self.segment_frames * self.mel.hop_length / self.mel.sample_rate
        seconds = sum(clip.seconds for clip in self.train_clips)
        return max(1, math.ceil(seconds / (crop * self.batch_size * self.trainer.world_size)))

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Cut the crops of an in-memory corpus, on the device that the batch has just arrived at."""
        if "start" in batch:
            crops = self.train if self.trainer.training else self.valid
            batch["padded"] = crops.gather(batch["start"])
        return batch

    def train_dataloader(self) -> DataLoader:
        sampler = FromPosition(
            self.batches_per_epoch,
            self.batch_size,
            # batches trained on since the very start; Lightning saves and restores it
            position=lambda: self.trainer.fit_loop.epoch_loop.batch_progress.total.ready,
            rank=self.trainer.global_rank,
            processes=self.trainer.world_size,
        )
        return DataLoader(
            self.train, batch_sampler=sampler, num_workers=self.workers, persistent_workers=False,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.valid, batch_size=self.batch_size)
