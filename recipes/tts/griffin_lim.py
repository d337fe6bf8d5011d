"""A control: recordings made anew from their mels by librosa's Griffin-Lim, which knows nothing but the mel.

    python recipes/tts/griffin_lim.py FILE... -o FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from flowavenet import MelSpectrogram, load_audio, save_audio
from flowavenet.audio import MelSettings, mel_filter_bank, mel_settings
from flowavenet.audio.files import AUDIO_SUFFIXES
from flowavenet.batch import find_files

ROUNDS = 60


def griffin_lim(mel: Tensor, settings: MelSettings) -> Tensor:
    """The wave of a mel (1, n_mels, frames), without the last hop: least squares for magnitudes, ROUNDS for phases."""
    import librosa

    energies = MelSpectrogram(settings).energies(mel)[0].numpy()
    magnitudes = librosa.util.nnls(mel_filter_bank(settings).numpy(), energies) ** (1 / settings.power)
    window = {"hop_length": settings.hop_length, "win_length": settings.win_length, "n_fft": settings.n_fft}
    return torch.from_numpy(librosa.griffinlim(magnitudes, n_iter=ROUNDS, random_state=0, **window))[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="recordings, or folders")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for <stem>.wav")
    # its frames are centred where librosa's are
    parser.add_argument("--mel", default="tacotron2", help="convention  [%(default)s]")
    options = parser.parse_args()
    settings = mel_settings(options.mel)
    options.out.mkdir(parents=True, exist_ok=True)
    for file in find_files(options.files, AUDIO_SUFFIXES):
        mel = MelSpectrogram(settings)(load_audio(file.place, settings.sample_rate))
        (options.out / file.name).parent.mkdir(parents=True, exist_ok=True)
        save_audio(options.out / f"{file.name}.wav", griffin_lim(mel, settings), settings.sample_rate)


if __name__ == "__main__":
    main()
