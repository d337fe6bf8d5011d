"""The gate that every request passes: key, rate, place, patience; and the count of how it ended."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import ExitStack
from time import perf_counter

import anyio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowavenet.serve.limits import Admission, Limits, Refused
from flowavenet.serve.metrics import Metrics

OPEN = ("/healthz", "/readyz")
"""What needs neither key nor place: those who ask are to hear how a busy server is."""
ROUTES = ("/v1/vocode", "/v1/stream", "/v1/checkpoints", "/metrics", "/openapi.json")


def told(refused: Refused) -> JSONResponse:
    """An error as its client sees it: one line."""
    return JSONResponse({"error": str(refused)}, refused.status, refused.headers)


class Gate:
    """An ASGI application in front of another.

    Args:
        app: what is behind.
        limits, admission: what it takes on, and whom.
        key: that requests must bring as ``Authorization: Bearer KEY``; None: all may come in.
        metrics: are told how requests end.
    """

    def __init__(self, app: ASGIApp, limits: Limits, admission: Admission, key: str | None, metrics: Metrics):
        self.app, self.limits, self.metrics = app, limits, metrics
        self.admission = admission
        self.expected = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in OPEN:
            return await self.app(scope, receive, send)
        scope.setdefault("state", {})["begun"] = perf_counter()        # request.state.begun, for those who count latency
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                await asyncio.sleep(0)                                 # by then what is no HTTP has ended the connection
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            with ExitStack() as inside:
                self._enter(inside, scope)
                with anyio.fail_after(self.limits.patience if scope["type"] == "http" else None):
                    await self.app(scope, receive, watched)
        except (Refused, TimeoutError) as error:
            if not status:                                             # else the connection ends, as there is no other way
                late = f"not done after {self.limits.patience:g} s; send less, or faster"
                await told(error if isinstance(error, Refused) else Refused(408, late))(scope, receive, watched)
        finally:
            route = scope["path"] if scope["path"] in ROUTES else "other"
            self.metrics.requests.labels(route, status).inc()

    def _enter(self, inside: ExitStack, scope: Scope) -> None:
        client = scope["client"][0] if scope.get("client") else ""
        self.admission.pace(client)                                    # before the key, so that none can be guessed fast
        given = dict(scope["headers"]).get(b"authorization", b"")
        if self.expected is not None and not secrets.compare_digest(given, self.expected):
            refused = Refused(401, "the key is missing or wrong; send it as Authorization: Bearer KEY")
            refused.headers["WWW-Authenticate"] = "Bearer"
            raise refused
        inside.enter_context(self.admission.place(client))
        inside.enter_context(self.metrics.inside.track_inprogress())
