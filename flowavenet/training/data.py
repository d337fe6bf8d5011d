"""Turn a folder of speech into batches, for Lightning."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader

from flowavenet.audio import MelSpectrogram, mel_settings
from flowavenet.data.corpus import Clip, read_corpus
from flowavenet.data.crops import Crops, CropsInMemory, FixedCrops, FromPosition, speakers_of
from flowavenet.data.pairs import check_pair
from flowavenet.data.shards import StreamedCrops, is_sharded, read_index
from flowavenet.files import end_with_parent


class SpeechData(pl.LightningDataModule):
    """Draw random crops of a folder of recordings for training, and fixed ones for validation.

    Each has the number of its speaker: the place of the name in ``speakers``.

    Args:
        corpus: a folder of audio (any layout that ``flowavenet prepare`` takes), or a manifest CSV; or one in shards
            (``prepare --shards``): its folder, the URL of that, or ``pipe:`` and a command that prints the file ``{}``.
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
        self.drawn = {"crops": 0, "batches": 0}                        # by all processes, when this run or part of it began

    def setup(self, stage: str | None = None) -> None:
        if self.corpus == "???":
            raise ValueError("the recipe leaves the corpus to you: add --data.corpus FOLDER")
        spectrogram = MelSpectrogram(self.mel)
        if is_sharded(self.corpus):
            self._setup_shards(spectrogram)
        else:
            self._setup_files(spectrogram)

    def _fixed(self, clips: list[Clip], spectrogram: MelSpectrogram) -> FixedCrops:
        options = spectrogram, self.segment_frames, self.seed, self.silence_db, self.speakers
        return FixedCrops(clips, *options, float(self.predicted_share > 0))

    def _setup_files(self, spectrogram: MelSpectrogram) -> None:
        clips = read_corpus(self.corpus, self.valid_fraction, self.seed)
        train_clips = [clip for clip in clips if clip.split == "train"]
        valid_clips = [clip for clip in clips if clip.split == "valid"]
        if not valid_clips:
            raise ValueError(
                f"{self.corpus}: all {len(clips)} clips are for training; mark some as valid in the manifest, or leave the "
                f"split empty and a part is chosen"
            )
        if self.predicted_share:
            self._check_pairs(clips, spectrogram)
        self.speakers = speakers_of(clips)
        self.clips, self.nameless = len(clips), sum(not clip.speaker for clip in clips)
        self.train_seconds = sum(clip.seconds for clip in train_clips)
        options = spectrogram, self.segment_frames, self.seed, self.silence_db, self.speakers, self.predicted_share
        self.train = (CropsInMemory if self.in_memory else Crops)(train_clips, *options)
        self.valid = self._fixed(valid_clips, spectrogram)

    def _setup_shards(self, spectrogram: MelSpectrogram) -> None:
        """Prepare to stream the training clips; decode those of validation, which are few, now."""
        corpus = read_index(self.corpus)
        if corpus.sample_rate != self.mel.sample_rate:
            raise ValueError(
                f"{self.corpus}: its shards are at {corpus.sample_rate} Hz, the model wants {self.mel.sample_rate}; write "
                f"others, by flowavenet prepare --shards --sample-rate {self.mel.sample_rate}"
            )
        if self.in_memory:
            raise ValueError(f"{self.corpus}: is in shards, and these are streamed: add --data.in_memory false")
        self.speakers = corpus.speakers
        with TemporaryDirectory() as folder:
            valid_clips = corpus.unpack("valid", Path(folder))
            if not valid_clips:
                raise ValueError(f"{self.corpus}: has no shard to validate on; prepare it with a larger --valid-fraction")
            if self.predicted_share:
                self._check_pairs(valid_clips, spectrogram)
            self.valid = self._fixed(valid_clips, spectrogram)
        self.clips, self.nameless = (sum(getattr(shard, name) for shard in corpus.shards) for name in ("clips", "nameless"))
        self.train_seconds = sum(shard.seconds for shard in corpus.shards if shard.split == "train")
        processes = self.trainer.world_size if self.trainer else 1
        self.train = StreamedCrops(
            corpus, spectrogram, self.segment_frames, self.seed, self.silence_db, self.predicted_share, self.batch_size,
            processes * max(1, self.workers),
        )

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
    def crops_per_batch(self) -> int:
        """The crops of a batch, of all processes together."""
        return self.batch_size * self.trainer.world_size

    @property
    def batches_per_epoch(self) -> int:
        """The batches of a process after which as many seconds have been seen as the corpus has.

        They make whole steps, even if each accumulates the gradients of several.
        """
        crop = self.segment_frames * self.mel.hop_length / self.mel.sample_rate
        each = self.trainer.accumulate_grad_batches
        return max(1, math.ceil(self.train_seconds / (crop * self.crops_per_batch * each))) * each

    @property
    def batches_done(self) -> int:
        """The batches since the very start; Lightning saves and restores the number."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.ready

    @property
    def position(self) -> int:
        """The crops drawn since the very start, by however many processes, in batches of whatever size."""
        return self.drawn["crops"] + (self.batches_done - self.drawn["batches"]) * self.crops_per_batch

    def state_dict(self) -> dict[str, int]:
        return {"crops": self.position, "batches": self.batches_done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.drawn = dict(state)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Cut the crops of an in-memory corpus, on the device that the batch has just arrived at."""
        if "start" in batch:
            crops = self.train if self.trainer.training else self.valid
            batch["padded"] = crops.gather(batch["start"])
        return batch

    def train_dataloader(self) -> DataLoader:
        sampler = FromPosition(
            self.batches_per_epoch, self.batch_size, position=lambda: self.position,
            rank=self.trainer.global_rank, processes=self.trainer.world_size,
        )
        return DataLoader(
            self.train, batch_sampler=sampler, num_workers=self.workers, persistent_workers=False, worker_init_fn=_begin,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> DataLoader:
        share = self.valid.share(self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(self.valid, self.batch_size, sampler=share)


def _begin(_: int) -> None:
    """Begin a data worker: torch lets it end with a killed parent only where workers are forked."""
    end_with_parent()
