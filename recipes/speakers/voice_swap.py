"""Say the same noise in another voice: encode a recording as one speaker, decode its noise as another.

    noise = f(wave; mel, from);   swapped = f^-1(noise; mel', to)

What only a flow can do: the noise keeps what the model did not expect of this very recording, such as its phases, and is
heard again in the other voice; with the same speaker and mel twice, the recording itself comes back, sample by sample. The
mel carries most of a voice, though; mel' is the mel, or the mel moved up or down by some bands.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from flowavenet import Vocoder, load_audio, save_audio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--checkpoint", required=True, help="one that tells voices apart, such as runs/speakers/vocoder")
    parser.add_argument("--source", required=True, metavar="NAME", help="whose voice it is")
    parser.add_argument("--target", required=True, metavar="NAME", help="whose it shall be")
    parser.add_argument("--bands", type=int, default=0, help="move the mel up by so many bands, down if negative")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    vocoder = Vocoder.from_pretrained(options.checkpoint)
    wave = vocoder.spectrogram.normalise(load_audio(options.recording, vocoder.sample_rate))
    swapped = swap(vocoder, wave, options.source, options.target, options.bands)
    save_audio(options.out, swapped, vocoder.sample_rate)
    change = 10 * torch.log10((swapped - wave).square().mean() / wave.square().mean())
    said = {name: vocoder.log_prob(wave, vocoder.mel(wave), name).item() / wave.shape[1] for name in vocoder.speakers}
    print(f"changed by {change:.1f} dB re the recording -> {options.out}")
    print("nats per sample of the recording as: " + ", ".join(f"{name} {nats:.3f}" for name, nats in said.items()))


def swap(vocoder: Vocoder, wave: Tensor, source: str, target: str, bands: int = 0) -> Tensor:
    """A recording (1, samples) of one speaker in the voice of another: (1, samples).

    Args:
        bands: the mel is moved up by so many bands; the lowest is repeated below it.
    """
    mel = vocoder.mel(wave)
    return vocoder.decode(vocoder.encode(wave, mel, source), moved(mel, bands), target)


def moved(mel: Tensor, bands: int) -> Tensor:
    """The mel (batch, n_mels, frames), each band at the place of the one ``bands`` above; at the edge, bands repeat.

    >>> moved(torch.tensor([[[1.0], [2.0], [3.0]]]), 1).flatten()
    tensor([1., 1., 2.])
    """
    n_mels = mel.shape[1]
    return mel[:, (torch.arange(n_mels, device=mel.device) - bands).clamp(0, n_mels - 1)]


if __name__ == "__main__":
    main()
