"""How likely a recording is, given its own mel: all of it, and frame by frame."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flowavenet.files import write_atomically
from flowavenet.losses import PCM_STEP, bits_per_sample, dequantise
from flowavenet.models import frame_sums
from flowavenet.transforms.heads import log_normal
from flowavenet.vocoder import Speaker, Vocoder

SHOWN = -math.log(PCM_STEP)
"""The most nats per sample that 16-bit audio can have. Pictures go as far down; below that, all is just unlikely."""
LARGEST = 1e37
"""What a sum that overflowed is taken for: far from speech, a flow may stretch noise beyond all numbers."""


@dataclass(frozen=True)
class Likelihood:
    """What a vocoder says of one recording; frames are those of its mel, the last one as full as the recording leaves it."""

    mel: Tensor
    """(n_mels, frames)."""
    nats: Tensor
    """Of log-density, of each frame: (frames,). They add up to the log-density of the recording. What a flow cannot fold, at
    the very end, it leaves as it is, which is less likely than the rest."""
    energy: Tensor
    """Of the noise behind the recording, of each frame: (frames,)."""
    samples: Tensor
    """In each frame: (frames,)."""
    seconds: Tensor
    """At which each frame begins, and the last one ends: (frames + 1,)."""
    step: float
    """Width of the uniform noise that the recording was dequantised with; 0: none."""

    @property
    def nats_per_sample(self) -> float:
        return float(self.nats.sum() / self.samples.sum())

    @property
    def bits_per_sample(self) -> float | None:
        """That a perfect coder with this model would need; None without dequantisation, as there is no grid to code."""
        return float(bits_per_sample(self.nats_per_sample, self.step)) if self.step else None

    @property
    def surprise_db(self) -> float:
        """Power of the noise behind the recording, against that of the standard Gaussian which the model made its training
        data: 0 for what it expected, however loud; below, the recording is simpler than speech, above, it is no such speech.

        Unlike the log-density, it hardly depends on the level, and little on how much of the recording is silence.
        """
        return _db(self.energy.sum() / self.samples.sum()).item()

    def per_sample(self, step: int = 1) -> tuple[Tensor, Tensor]:
        """Nats per sample of every so many frames: (steps,); and the seconds at which those begin, and the last ends:
        (steps + 1,)."""
        nats, samples = (torch.stack([part.sum() for part in each.split(step)]) for each in (self.nats, self.samples))
        return nats / samples, torch.cat([self.seconds[:-1:step], self.seconds[-1:]])

    def summary(self) -> dict[str, float | None]:
        """The figures of the whole recording; None for what there is not."""
        return {
            "seconds": float(self.seconds[-1]), "nats_per_sample": self.nats_per_sample,
            "bits_per_sample": self.bits_per_sample, "surprise_db": self.surprise_db,
        }

    def write(self, path: Path) -> None:
        """Write a CSV file with a line per frame: when it begins, how many samples it has, nats in all and per sample, and
        the surprise, dB."""
        (each, seconds), surprise = self.per_sample(), _db(self.energy / self.samples)
        columns = [column.tolist() for column in (seconds[:-1], self.samples, self.nats, each, surprise)]
        with write_atomically(path) as temporary, temporary.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["seconds", "samples", "nats", "nats_per_sample", "surprise_db"])
            table.writerows([f"{value:.8g}" for value in row] for row in zip(*columns, strict=True))


@torch.no_grad()
def score(
    vocoder: Vocoder, wave: Tensor, step: float = PCM_STEP, seed: int = 0, speaker: Speaker | None = None
) -> Likelihood:
    """Find the likelihood of a recording.

    Args:
        wave: (1, samples), at the vocoder's rate and level.
        step: width of the uniform noise that fills the steps between its values; 0: none.
        seed: of that noise.
        speaker: whose voice it is, of a checkpoint that tells voices apart.
    """
    mel = vocoder.mel(wave)
    filled = dequantise(wave.cpu(), step, torch.Generator().manual_seed(seed)).to(vocoder.device)
    noise, log_det = vocoder.model.encode(filled, mel, vocoder.voice(speaker))
    nats = log_normal(noise) + log_det
    hop, told = vocoder.settings.hop_length, (torch.ones_like(noise), nats, noise.square())
    samples, nats, energy = (frame_sums(each.cpu().double(), hop)[0] for each in told)
    ends = samples.cumsum(0) / vocoder.sample_rate
    return Likelihood(
        mel[0].cpu(), nats.nan_to_num(-LARGEST, LARGEST, -LARGEST), energy.nan_to_num(LARGEST, LARGEST), samples.int(),
        torch.cat([ends.new_zeros(1), ends]), step,
    )


def _db(power: Tensor) -> Tensor:
    return 10 * torch.log10(power.clamp(min=1e-9))
