"""Send a mel to a running server piece by piece, as a front-end makes it, and write the audio that comes back meanwhile.

    flowavenet serve --checkpoint lapflow-stream-22k &
    python recipes/serving/speak.py tests/data/tacotron2.npy -o - | aplay -f S16_LE -r 22050
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from threading import Thread

import numpy as np
from websockets.sync.client import connect

from flowavenet.audio import load_mel
from flowavenet.files import write_atomically
from flowavenet.serve.sound import wav_head


def spoken(url: str, settings: dict, pieces: Iterable[np.ndarray]) -> Iterator[bytes]:
    """Audio of a mel whose pieces, (frames, bands), are sent while it comes; 16-bit samples."""
    headers = {"Authorization": f"Bearer {os.environ.get('FLOWAVENET_API_KEY', '')}"}
    with connect(url, additional_headers=headers) as socket:

        def send() -> None:
            socket.send(json.dumps(settings))
            for piece in pieces:
                socket.send(piece.astype("<f4").tobytes())
            socket.send("end")

        Thread(target=send, daemon=True).start()
        while isinstance(message := socket.recv(), bytes):
            yield message
    if "error" in (end := json.loads(message)):
        raise ValueError(end["error"])
    print(f"{end['frames']} frames; {end['note'] or 'taken as said'}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mel", help=".npy or .safetensors, of 80 bands")
    parser.add_argument("-o", "--out", required=True, help="wav file; -: raw 16-bit samples to standard output")
    parser.add_argument("--url", default="ws://127.0.0.1:8000/v1/stream")
    parser.add_argument("--convention", default="tacotron2", help="what the mel is  [%(default)s]")
    parser.add_argument("--piece", type=int, default=5, help="frames per message  [%(default)s]")
    options = parser.parse_args()
    mel = load_mel(options.mel, 80)[0].T.numpy()
    pieces = (mel[start : start + options.piece] for start in range(0, len(mel), options.piece))
    audio = spoken(options.url, {"mel_convention": options.convention, "chunk_frames": 16, "seed": 0}, pieces)
    if options.out == "-":
        for chunk in audio:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        return
    samples = b"".join(audio)
    with write_atomically(options.out) as temporary:
        temporary.write_bytes(wav_head(len(samples) // 2, 22050) + samples)


if __name__ == "__main__":
    main()
