"""The routes: audio of a mel or a recording, whole or streamed; what is served; health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Annotated, Any, Literal, TypeVar

import torch
from fastapi import APIRouter, FastAPI, Query, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from torch import Tensor

import flowavenet
from flowavenet.files import one_line
from flowavenet.serve.description import BINARY, GATE, describe, errors
from flowavenet.serve.gate import Gate, told
from flowavenet.serve.limits import Limits, Refused
from flowavenet.serve.service import Service, Synthesis, wrong
from flowavenet.serve.sessions import Session
from flowavenet.serve.sound import pcm, wav_head
from flowavenet.vocoder import Vocoder

Result = TypeVar("Result")
STUCK = 60.0
"""Seconds for one chunk of audio after which the thread of work is held to hang."""
routes = APIRouter()


class Vocode(Synthesis):
    """What can be asked of /v1/vocode."""

    stream: Literal["wav", "pcm"] | None = Field(
        None, description="Send audio while it is made: a WAV, or raw 16-bit samples, little-endian."
    )
    chunk_frames: int = Field(128, ge=16, le=1024, description="Frames of the mel per chunk of a stream.")


@routes.post(
    "/v1/vocode", response_class=Response,
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": BINARY}}},
    responses=GATE | errors(400, 413, 415, 422) | {200: {
        "description": "The audio, in one channel; X-Note has what to know of the mel.",
        "content": {"audio/wav": BINARY, "audio/pcm": BINARY},
    }},
)
async def vocode(request: Request, wanted: Annotated[Vocode, Query()]) -> Response:
    """Make audio of a mel of any convention (npy, safetensors, pt), or of a recording (wav, flac, ogg, mp3) anew.

    The body is the file itself. Errors are JSON, `{"error": "one line"}`.
    """
    service: Service = request.app.state.service
    content = await uploaded(request, service.limits.bytes)
    vocoder, clip = await service.take_in(content, wanted)
    chunk_frames = wanted.chunk_frames if wanted.stream else None
    chunks = service.worker.vocode(vocoder, clip.mel, chunk_frames, wanted.seed, **wanted.how())
    head = wav_head(clip.mel.shape[2] * vocoder.settings.hop_length, vocoder.sample_rate)
    note, rate = clip.note, {"X-Sample-Rate": str(vocoder.sample_rate)}
    if wanted.stream:
        first = pcm(await unless_left(request, anext(chunks)))         # what cannot be made is refused before all else
        service.metrics.first_audio.labels("stream").observe(perf_counter() - request.state.begun)
        kind, beginning = ("audio/wav", head + first) if wanted.stream == "wav" else ("audio/pcm", first)
        return StreamingResponse(sent(beginning, chunks), media_type=kind, headers=rate | noted(note))
    wave = torch.cat(await unless_left(request, gathered(chunks)), dim=1)
    loudest = wave.abs().max().item()
    if loudest > 1:                                                    # clipping would spoil it
        wave, said = wave / loudest, f"it would peak at {loudest:.2f}, beyond full scale, and was made quieter"
        note = "; ".join(filter(None, [note, said]))
    content = head + await asyncio.to_thread(pcm, wave)
    service.metrics.first_audio.labels("whole").observe(perf_counter() - request.state.begun)
    return Response(content, media_type="audio/wav", headers=rate | noted(note))


@routes.websocket("/v1/stream")
async def stream(websocket: WebSocket) -> None:
    """Mels that arrive in pieces, audio as soon as it can be made."""
    await Session(websocket, websocket.app.state.service).serve()


@routes.get("/v1/checkpoints", responses=GATE)
async def checkpoints(request: Request) -> list[dict[str, Any]]:
    """What is served; the first is the default."""

    def facts(name: str, vocoder: Vocoder) -> dict[str, Any]:
        settings = vocoder.settings
        return {
            "name": name, "sample_rate": settings.sample_rate, "n_mels": settings.n_mels, "hop_length": settings.hop_length,
            "look_ahead_frames": vocoder.receptive_field()[1], "speakers": vocoder.speakers, **vocoder.synthesis,
        }

    return [facts(*item) for item in request.app.state.service.vocoders.items()]


@routes.get("/healthz", response_model=dict[str, float], responses={503: {"model": dict[str, float]}})
async def health(request: Request) -> JSONResponse:
    """Whether the server works; if not, restart it."""
    stuck = request.app.state.service.worker.stuck
    return JSONResponse({"busy_seconds": round(stuck, 3)}, 503 if stuck > STUCK else 200)


@routes.get("/readyz", response_model=dict[str, int], responses={503: {"model": dict[str, int]}})
async def ready(request: Request) -> JSONResponse:
    """Whether another request would be taken now; if not, send it elsewhere."""
    admission = request.app.state.service.admission
    return JSONResponse({"under_way": sum(admission.inside.values())}, 503 if admission.full else 200)


@routes.get("/metrics", response_class=Response, responses=GATE | {200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Counters, for Prometheus."""
    return Response(request.app.state.service.metrics.text(), media_type="text/plain; version=0.0.4")


def application(
    vocoders: dict[str, Vocoder], limits: Limits | None = None, key: str | None = None, batch: int = 4
) -> Gate:
    """The service as an ASGI application.

    Args:
        vocoders: by the names that clients use; the first is the default.
        limits: what it takes on.
        key: that requests must bring; None: all may come in.
        batch: requests for mels of one length that are rendered together, at most.
    """
    service = Service(vocoders, limits or Limits(), batch)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.worker.close)

    # no pages of documentation: those that FastAPI has load their programs from elsewhere; /openapi.json says it all
    app = FastAPI(title="flowavenet", version=flowavenet.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.include_router(routes)
    for kind, answer in ANSWERS.items():
        app.exception_handler(kind)(answer)
    describe(app, key is not None)
    return Gate(app, service.limits, service.admission, key, service.metrics)


async def uploaded(request: Request, most: int) -> bytes:
    """The body of a request, read no further than is allowed."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > most:
            raise Refused(413, f"the upload has more than {most} bytes, the most that is taken here; send it in parts")
    return bytes(content)


async def unless_left(request: Request, work: Awaitable[Result]) -> Result:
    """Wait for work, but not if the client leaves, as nobody would hear it."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in tasks:
            task.cancel()


async def gathered(chunks: AsyncIterator[Tensor]) -> list[Tensor]:
    return [chunk async for chunk in chunks]


async def sent(beginning: bytes, chunks: AsyncIterator[Tensor]) -> AsyncIterator[bytes]:
    yield beginning
    async for chunk in chunks:
        yield pcm(chunk)


def noted(note: str) -> dict[str, str]:
    return {"X-Note": note.encode("ascii", "replace").decode()} if note else {}


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    return told(Refused(422, wrong(error)))


async def _unheard(request: Request, error: HTTPException) -> JSONResponse:
    where = "there are /v1/vocode, /v1/stream, /v1/checkpoints, /openapi.json, /metrics, /healthz, /readyz"
    refused = Refused(error.status_code, f"{error.detail}; {where}" if error.status_code == 404 else error.detail)
    refused.headers |= error.headers or {}                             # which methods there are
    return told(refused)


async def _bad(request: Request, error: ValueError) -> JSONResponse:
    return told(Refused(400, one_line(error)))


async def _refused(request: Request, error: Refused) -> JSONResponse:
    return told(error)


async def _left(request: Request, error: ClientDisconnect) -> JSONResponse:
    """For the count alone: there is nobody to read it."""
    return told(Refused(499, "the client has left"))


async def _broken(request: Request, error: Exception) -> JSONResponse:
    """What is our own mistake; the log has it."""
    return told(Refused(500, "the server made a mistake; its log says more"))


ANSWERS = {
    RequestValidationError: _invalid, HTTPException: _unheard, Refused: _refused, ValueError: _bad,
    ClientDisconnect: _left, Exception: _broken,
}
