"""What a hostile client sends: HTTP, WebSockets and uploads with mistakes in them, each decided by a seed."""

from __future__ import annotations

import json
import random
import re
import socket
import time
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from .servers import KEY, LOST, Server

DATA = Path(__file__).parents[1] / "data"
MEL = np.load(DATA / "tacotron2.npy").squeeze().astype(np.float32)
Answer = tuple[int | None, bytes]
"""As of :meth:`Server.ask`: a status, what was said."""
Attack = Callable[[Server, random.Random], Answer]


UPGRADE = (
    f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
).encode()
FRAMES = b"\x81\x82\0\0\0\0{}" + b"\x82\xfe\x01\x40\0\0\0\0" + bytes(320) + b"\x81\x83\0\0\0\0end"
"""An utterance of one frame: settings, a piece, the end; each masked with zeros (RFC 6455, section 5)."""


def saved(write: Callable[[BytesIO], Any]) -> bytes:
    file = BytesIO()
    write(file)
    return file.getvalue()


def npy(mel: np.ndarray) -> bytes:
    return saved(lambda file: np.save(file, mel))


@cache
def uploads() -> dict[str, bytes]:
    """A short file of each kind that is taken."""
    import soundfile
    import torch
    from safetensors.numpy import save

    wave, rate = soundfile.read(DATA / "lj.flac", stop=22050)
    kinds = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}
    return {
        "npy": npy(MEL[:, :60]), "safetensors": save({"mel": MEL[:, :60]}),
        "pt": saved(lambda file: torch.save(torch.from_numpy(MEL[:, :60].copy()), file)),
        **{
            kind: saved(lambda file, k=kind, s=subtype: soundfile.write(file, wave, rate, s, format=k))
            for kind, subtype in kinds.items()
        },
    }


def changed(content: bytes, chance: random.Random) -> bytes:
    """The same with one to four mistakes, most of them near its beginning, where files say what they are."""
    content = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        near, anywhere = int(chance.expovariate(1 / 60)), chance.randint(0, len(content))
        place = min(near, len(content)) if chance.random() < 0.7 else anywhere
        length = chance.choice((1, 1, 2, 4, 16, 200))
        content[place : place + chance.choice((0, length, length))] = chance.choice((
            chance.randbytes(length), b"", bytes(length), b"\xff" * length, content[:length], content[-length:],
            str(chance.choice((-1, 0, 2**31, 2**63, 10**30))).encode(), b"\r\n", b"nan",
        ))
        if chance.random() < 0.1:
            del content[chance.randint(0, len(content)) :]
    return bytes(content)


def upload(server: Server, chance: random.Random) -> Answer:
    """A file of any kind, mostly broken, with settings that are sometimes odd."""
    body = chance.choice(list(uploads().values()))
    odd = ["", "0", "-1", "1e9", "nan", "../../etc/passwd", "\0", "ü", "hifigan", "wav", "0.5", "64", "16"]
    names = ("temperature", "seed", "match", "denoise", "speaker", "mel_convention", "level", "stream", "chunk_frames", "x")
    query = {chance.choice(names): chance.choice(odd)} if chance.random() < 0.2 else {}
    if chance.random() < 0.3:
        query["stream"] = chance.choice(("wav", "pcm"))
    return server.ask(f"/v1/vocode?{urlencode(query)}", changed(body, chance) if chance.random() < 0.9 else body)


def http(server: Server, chance: random.Random) -> Answer:
    """Bytes that are nearly a request, and sometimes are one."""
    body = npy(MEL[:, :30])
    head = f"POST /v1/vocode?mel_convention=tacotron2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode()
    length = f"Content-Length: {chance.choice((len(body), len(body), 0, -5, 7, 10**6, 10**30))}\r\n".encode()
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % chance.choice((len(body), 3, 2**40)) + body + b"\r\n0\r\n\r\n"
    fields = b"".join(b"X-%d: %s\r\n" % (i, b"y" * chance.randint(0, 3000)) for i in range(chance.choice((0, 0, 3, 300))))
    whole = head + fields + chance.choice((length + b"\r\n" + body, chunked))
    whole = chance.choice((whole, changed(whole[:200], chance) + whole[200:], changed(whole, chance), chance.randbytes(500)))
    whole *= chance.choice((1, 1, 1, 3))                               # one after the other, before an answer is there
    cuts = sorted(chance.randint(0, len(whole)) for _ in range(chance.choice((0, 0, 1, 9))))
    if chance.random() < 0.2:
        whole = whole[: chance.randint(0, len(whole))]
    return spoken(server, [whole[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)])


def spoken(server: Server, parts: list[bytes]) -> Answer:
    """What comes back to raw bytes, sent slowly; the worst status, if there are several."""
    heard = bytearray()
    with socket.create_connection(("127.0.0.1", server.port), timeout=LOST) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.01)
            connection.settimeout(0.5)
            try:
                while part := connection.recv(65536):
                    heard += part
            except TimeoutError:                                       # it waits for more, or is at work
                connection.settimeout(LOST)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65536):
                    heard += part
        except TimeoutError:
            return 0, b""
        except OSError:                                                # it hung up before it was told everything
            pass
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]
    return (max(statuses) if statuses else None), bytes(heard)


def session_of(server: Server) -> Any:
    """A WebSocket, connected, for a ``with`` statement."""
    from websockets.sync.client import connect

    url, key = f"ws://127.0.0.1:{server.port}/v1/stream", {"Authorization": f"Bearer {KEY}"}
    return connect(url, additional_headers=key, open_timeout=LOST, close_timeout=1)


def websocket(server: Server, chance: random.Random) -> Answer:
    """An utterance with mistakes; 200 if it is spoken, 400 if an error is told, 500 if the server calls it its own."""
    from websockets.exceptions import ConnectionClosed, WebSocketException

    if chance.random() < 0.3:
        parts = [changed(UPGRADE, chance), FRAMES] if chance.random() < 0.3 else [UPGRADE, changed(FRAMES, chance)]
        return spoken(server, parts)
    pieces = [MEL[:, start : start + 9].T.astype("<f4").tobytes() for start in range(0, 27, 9)]
    settings = json.dumps({"mel_convention": "tacotron2", "chunk_frames": chance.choice((1, 8, 32)), "seed": 1}).encode()
    messages = [(True, settings), *((False, chance.choice((piece, npy(MEL[:, :9])))) for piece in pieces)]
    for _ in range(chance.randint(0, 2)):
        place = chance.randrange(len(messages))
        text, message = messages[place]
        messages[place] = (text ^ (chance.random() < 0.1), changed(message, chance))
    if chance.random() < 0.2:
        messages.pop(chance.randrange(len(messages)))
    if chance.random() < 0.2:
        chance.shuffle(messages)
    try:
        with session_of(server) as session:
            try:
                for text, message in [*messages, (True, b"end")]:
                    session.send(message, text=text)
                if chance.random() < 0.1:
                    return None, b""                                   # leave without a word of what was made
                while isinstance(said := session.recv(LOST), bytes):
                    pass
                error = json.loads(said).get("error", "")
                return (500 if "the server made" in error else 400 if error else 200), said.encode()
            except ConnectionClosed as closed:
                return (500 if closed.rcvd and closed.rcvd.code == 1011 else None), b""
    except TimeoutError:
        return 0, b""
    except (OSError, WebSocketException):
        return None, b""


ATTACKS: dict[str, Attack] = {"HTTP": http, "WebSocket": websocket, "uploads": upload}
