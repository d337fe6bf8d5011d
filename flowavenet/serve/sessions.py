"""A WebSocket: mels arrive in pieces, and audio goes back as soon as what it depends on is there.

Each utterance begins with settings in JSON (those of /v1/vocode, and those of :class:`Utterance`), goes on with binary
messages, pieces of its mel, and closes with the text ``end``. Meanwhile binary messages come back, 16-bit samples, and at
last JSON with what is to be known. Then another utterance may begin. Whoever closes the connection is heard no further.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

import anyio
import numpy as np
from anyio import from_thread
from fastapi import WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError

from flowavenet.files import one_line, parse_npy
from flowavenet.serve.service import Service, Synthesis, wrong
from flowavenet.serve.sound import pcm
from flowavenet.serve.worker import Remote
from flowavenet.tts import MelAdapter

END = "end"
POLICY, INTERNAL = 1008, 1011
"""What a closed connection says (RFC 6455): the client broke a rule; the server made a mistake."""


class Utterance(Synthesis):
    """What an utterance begins with."""

    chunk_frames: int = Field(32, ge=1, le=1024, description="Frames of the mel per message of audio.")
    bands: int | None = Field(None, ge=1, le=1024, description="Of messages of raw float32. [default: the checkpoint's]")


class Session:
    """One connection. A thread speaks, which waits for messages and for the thread of work; the event loop listens
    meanwhile, so that it is noticed when the client leaves.
    """

    def __init__(self, websocket: WebSocket, service: Service):
        self.websocket, self.service = websocket, service
        self.adapter: tuple[tuple, MelAdapter] | None = None
        self.messages: SimpleQueue[str | bytes | Exception] = SimpleQueue()
        self.came = self.read = 0                                      # bytes; each is counted in one thread alone
        self.left = False
        self.heard = 0.0                                               # when the last piece was read

    async def serve(self) -> None:
        await self.websocket.accept()
        code, said, listening = POLICY, "", asyncio.create_task(self._listen())
        try:
            await anyio.to_thread.run_sync(self._run, limiter=self.service.sessions)
        except WebSocketDisconnect:
            return
        except ValidationError as error:
            said = wrong(error)
        except ValueError as error:
            said = one_line(error)
        except TimeoutError:
            said = f"nothing was heard, or taken, for {self.service.limits.idle:g} s; end utterances with {END!r}"
        except Exception:
            code, said = INTERNAL, "the server made a mistake; its log says more"
            raise
        finally:
            listening.cancel()
            with suppress(RuntimeError, WebSocketDisconnect), anyio.move_on_after(1):  # it is closed, or nobody listens
                if said:
                    await self.websocket.send_json({"error": said})
                    await self.websocket.close(code)

    def _run(self) -> None:
        while True:
            settings = self._receive()
            if not isinstance(settings, str):
                raise ValueError(f"a binary message of {len(settings)} bytes before any settings; send them first, as JSON")
            self._speak(Utterance.model_validate_json(settings))

    def _speak(self, wanted: Utterance) -> None:
        vocoder, frames = self.service.vocoder(wanted), 0
        whose = wanted.checkpoint, wanted.mel_convention, wanted.level
        if self.adapter is None or self.adapter[0] != whose:           # one for all utterances of a front-end
            remote, longest = Remote(vocoder, self.service.worker), self.service.limits.seconds
            self.adapter = whose, MelAdapter(remote, wanted.mel_convention, wanted.level, longest)
        adapter, pieces = self.adapter[1], self._pieces(wanted.bands or vocoder.settings.n_mels)
        for chunk in adapter(pieces, wanted.chunk_frames, seed=wanted.seed, **wanted.how()):
            if not frames:
                self.service.metrics.first_audio.labels("websocket").observe(perf_counter() - self.heard)
            frames += chunk.shape[1] // vocoder.settings.hop_length
            self._send(pcm(chunk))
        note = adapter.source.note if adapter.source else ""
        self._send({"end": True, "frames": frames, "sample_rate": vocoder.sample_rate, "note": note})

    def _pieces(self, bands: int) -> Iterator[np.ndarray]:
        """The utterance's messages as mels."""
        while (message := self._receive()) != END:
            if isinstance(message, str):
                raise ValueError(f"the text {message[:40]!r} within an utterance; send pieces of its mel, and then {END!r}")
            self.heard = perf_counter()
            if message.startswith(b"\x93NUMPY"):
                yield _array(message)
            elif len(message) % (4 * bands):
                raise ValueError(f"{len(message)} bytes are no frames of {bands} bands in float32, {4 * bands} bytes each")
            else:
                mel = np.frombuffer(message, "<f4").reshape(-1, bands)
                yield from (mel[:1], mel[1:])                          # one frame alone shows which dimension is time

    async def _listen(self) -> None:
        most = self.service.limits.bytes
        while not self.left:
            message = await self.websocket.receive()
            self.left = message["type"] == "websocket.disconnect"
            text = message.get("text")
            content = message.get("bytes", b"") if text is None else text
            self.came += len(content)
            if self.came - self.read > most:
                return self.messages.put(ValueError(f"more than {most} bytes wait to be spoken; wait for audio, then go on"))
            self.messages.put(WebSocketDisconnect(message["code"]) if self.left else content)

    def _receive(self) -> str | bytes:
        try:
            message = self.messages.get(timeout=self.service.limits.idle)
        except Empty:
            raise TimeoutError from None
        if isinstance(message, Exception):
            raise message
        self.read += len(message)
        return message

    def _send(self, message: bytes | dict[str, Any]) -> None:
        if self.left:
            raise WebSocketDisconnect

        async def send() -> None:
            with anyio.fail_after(self.service.limits.idle):
                await (self.websocket.send_bytes if isinstance(message, bytes) else self.websocket.send_json)(message)

        from_thread.run(send)


def _array(message: bytes) -> np.ndarray:
    try:
        return parse_npy(message)
    except ValueError as error:
        raise ValueError(f"a message of {len(message)} bytes {error}; send it again") from error
