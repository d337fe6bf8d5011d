"""Mels like those that a text-to-speech front-end predicts, for a corpus that has no front-end: to try fine-tuning out.

    python recipes/finetune/standin.py CORPUS -o FOLDER --minutes 3

A front-end knows the text and not the sound, and is trained by mean squared error: where several mels are possible, it
predicts their mean, smooth in time and frequency. The same comes of an autoencoder whose neck lets little through, here a
few numbers every 4 frames: trained by mean squared error, it gives the mean of all mels that have these numbers. Like a
front-end with a reduction factor of 4, it predicts whole groups of frames, up to 3 more than the recording has.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flowavenet.audio import MelSpectrogram, load_audio, mel_settings
from flowavenet.data.corpus import Clip, read_corpus
from flowavenet.files import write_atomically

GROUP, WIDTH, BATCH, CROP = 4, 256, 32, 64
"""Frames that are predicted together, channels, crops per step, frames per crop."""


class NarrowAutoencoder(nn.Sequential):
    """Mel (batch, n_mels, frames) through ``neck`` numbers per GROUP frames, and back; frames a multiple of GROUP."""

    def __init__(self, n_mels: int, neck: int):
        super().__init__(
            nn.Conv1d(n_mels, WIDTH, 5, padding=2), nn.GELU(),
            nn.Conv1d(WIDTH, WIDTH, GROUP, stride=GROUP), nn.GELU(),
            nn.Conv1d(WIDTH, neck, 1),
            nn.Upsample(scale_factor=GROUP),
            nn.Conv1d(neck, WIDTH, 5, padding=2), nn.GELU(),
            nn.Conv1d(WIDTH, WIDTH, 5, padding=2), nn.GELU(),
            nn.Conv1d(WIDTH, n_mels, 5, padding=2),
        )


def train(model: nn.Module, mels: list[Tensor], seconds: float) -> int:
    """Least mean squared error on random crops for so much processor time; the learning rate falls to 0. Returns steps."""
    mels = [mel for mel in mels if mel.shape[1] >= CROP]
    optimizer, begin, steps = torch.optim.Adam(model.parameters(), 1e-3), time.process_time(), 0
    while (done := (time.process_time() - begin) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - done)
        crops = []
        for index in torch.randint(len(mels), (BATCH,)).tolist():
            start = int(torch.randint(mels[index].shape[1] - CROP + 1, ()))
            crops.append(mels[index][:, start : start + CROP])
        batch = torch.stack(crops)
        loss = (model(batch) - batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return steps


@torch.no_grad()
def predict(model: nn.Module, mel: Tensor) -> Tensor:
    """The prediction for mel (n_mels, frames): as many frames, and up to whole groups."""
    return model(nn.functional.pad(mel[None], (0, -mel.shape[1] % GROUP), mode="replicate"))[0]


def main() -> None:
    """Train on the corpus's training clips, predict all clips, say how far the validation clips are off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", help="what flowavenet fit takes")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the mels")
    parser.add_argument("--mel", default="hifigan", help="convention")
    parser.add_argument("--minutes", type=float, default=3.0, help="of processor time to train")
    parser.add_argument("--neck", type=int, default=12, help=f"numbers per {GROUP} frames")
    options = parser.parse_args()
    torch.manual_seed(0)
    settings = mel_settings(options.mel)
    spectrogram, clips = MelSpectrogram(settings), read_corpus(options.corpus)

    def analyse(clip: Clip) -> Tensor:
        return spectrogram(spectrogram.normalise(load_audio(clip.path, settings.sample_rate)))[0]

    mels = [analyse(clip) for clip in clips]
    learnt = [mel for mel, clip in zip(mels, clips, strict=True) if clip.split == "train"]
    mean, scale = torch.cat(learnt, 1).mean(), torch.cat(learnt, 1).std()
    model = NarrowAutoencoder(settings.n_mels, options.neck)
    steps = train(model, [(mel - mean) / scale for mel in learnt], 60 * options.minutes)
    root, errors, variances = Path(options.corpus), [], []
    root = Path(os.path.abspath(root if root.is_dir() else root.parent))
    for mel, clip in zip(mels, clips, strict=True):
        predicted = predict(model, (mel - mean) / scale) * scale + mean
        if clip.split == "valid":
            errors.append((predicted[:, : mel.shape[1]] - mel).square().mean().item())
            variances.append(mel.var().item())
        target = options.out / clip.path.relative_to(root).with_suffix(".npy")
        target.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(target) as part:
            np.save(part, predicted.numpy())
    error, spread = np.mean(errors) ** 0.5, np.mean(variances) ** 0.5
    print(f"{steps} steps; {len(errors)} validation clips: off by {error:.3f} (rms), where they vary by {spread:.3f}")


if __name__ == "__main__":
    main()
