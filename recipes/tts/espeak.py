"""Let espeak-ng read a text, and flowavenet say it: text in, speech out, with nothing to download.

    python recipes/tts/espeak.py "Hello world" -o hello.wav
    python recipes/tts/espeak.py "Hello world" -o - --checkpoint lapflow-stream-22k | aplay -f S16_LE -r 22050

espeak-ng speaks by rule. Its audio, piece by piece while it speaks, is analysed into the mel that a neural front-end would
have predicted, and the vocoder makes speech of that: the words and the melody are espeak-ng's, the sound is the vocoder's.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Iterator
from subprocess import PIPE, Popen

import numpy as np
import torch
from speaking import Timed, run, speak, vocoder_options
from torch import Tensor

from flowavenet import Vocoder, save_audio
from flowavenet.audio.files import resampled
from flowavenet.streaming import mel_in_pieces
from flowavenet.tts import MelAdapter

HEADER, BLOCK = 44, 4096
"""Bytes of a WAV header, and of the blocks in which espeak-ng writes samples."""
FRAMES = 8
"""Frames of mel that are analysed at a time."""


def espeak(text: str, sample_rate: int, voice: str = "en", speed: int = 175, pitch: int = 50) -> Iterator[Tensor]:
    """What espeak-ng says, in pieces (1, samples), while it speaks; closing the iterator ends it.

    Args:
        sample_rate: wanted, Hz; its own is mostly 22,050 Hz.
        voice: as `espeak-ng --voices` lists them.
        speed: words per minute.
        pitch: 0 to 99.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise FileNotFoundError("espeak-ng is not installed: apt-get install espeak-ng, or brew install espeak-ng")
    words = [program, "--stdout", "--stdin", "-v", voice, "-s", str(speed), "-p", str(pitch)]
    with Popen(words, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        try:
            process.stdin.write(text.encode())
            process.stdin.close()
            header = process.stdout.read(HEADER)
            if len(header) < HEADER:
                reason = process.stderr.read().decode().strip() or "it says nothing"
                raise ValueError(f"espeak-ng made no audio ({reason}); see espeak-ng --voices, and give it a text")
            rate = int.from_bytes(header[24:28], "little")
            blocks = iter(lambda: process.stdout.read(BLOCK), b"")
            waves = (np.frombuffer(block, "<i2").astype(np.float32) / 32768 for block in blocks)
            yield from (torch.from_numpy(wave)[None] for wave in resampled(waves, rate, sample_rate) if len(wave))
            if code := process.wait():
                raise ValueError(f"espeak-ng ended with code {code} before it was done; try it alone: espeak-ng -v {voice}")
        finally:
            process.kill()                                             # it may have more to say than anybody waits for


def kept(waves: Iterable[Tensor], copy: list[Tensor]) -> Iterator[Tensor]:
    """The same, and a copy of all that passes."""
    for wave in waves:
        copy.append(wave)
        yield wave


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="+", help="one utterance each")
    parser.add_argument("--voice", default="en", help="see espeak-ng --voices  [%(default)s]")
    parser.add_argument("--speed", type=int, default=175, help="words per minute  [%(default)s]")
    parser.add_argument("--pitch", type=int, default=50, help="0 to 99  [%(default)s]")
    parser.add_argument("--original", metavar="FILE", help="also write what espeak-ng itself says")
    vocoder_options(parser)
    options = parser.parse_args()
    vocoder = Vocoder.from_pretrained(options.checkpoint, options.device)
    adapter = MelAdapter(vocoder, vocoder.settings, longest=options.longest)
    originals: list[Tensor] = []

    def front_end(text: str) -> tuple[Iterable[Tensor], Timed]:
        waves = Timed(espeak(text, vocoder.sample_rate, options.voice, options.speed, options.pitch))
        heard = kept(waves, originals) if options.original else waves
        if vocoder.settings.peak is not None:                          # a level that only the whole can tell
            heard = (vocoder.spectrogram.normalise(whole) for whole in [torch.cat(list(heard), dim=1)])
        return mel_in_pieces(heard, vocoder.spectrogram, FRAMES), waves

    speak(options, adapter, front_end)
    if options.original:
        save_audio(options.original, originals, vocoder.sample_rate)


if __name__ == "__main__":
    run(main)
