"""Start the service: vocoders first, so that what is wrong with them is said at once, and no request waits for them."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import uvicorn
from websockets.exceptions import InvalidState

from flowavenet.serve.address import is_local, listen
from flowavenet.serve.app import application
from flowavenet.serve.limits import Limits
from flowavenet.vocoder import DEFAULT, Vocoder

KEY = "FLOWAVENET_API_KEY"
"""The environment variable with the key, where it shows in no list of processes."""
MESSAGE = 2 * 2**20
"""Bytes in one message of a WebSocket: a minute of 80 bands in float32 fits, and pieces are shorter."""
FAREWELL = 30
"""Seconds in which requests under way may end after the server was told to."""


def serve(
    checkpoints: Sequence[str], host: str, port: int, device: str, key: str | None, limits: Limits, batch: int
) -> None:
    """Serve until interrupted.

    Args:
        checkpoints: names, folders or ids on the Hub; the first is the default.
        host, port: to listen at; port 0: any that is free.
        device: where vocoders work.
        key: that clients must bring; None: what the environment says, or none if only this machine can reach the host.
        limits: what is taken on.
        batch: requests for mels of one length that are rendered together, at most.
    """
    key = key or os.environ.get(KEY) or None
    if key is None and not is_local(host):
        raise ValueError(f"everyone who can reach {host} could use this server; give a key: --api-key, or {KEY}")
    with listen(host, port) as socket:
        vocoders = {}
        for source in checkpoints or [DEFAULT]:
            name = Path(source).resolve().name if Path(source).is_dir() else source
            if name in vocoders:
                raise ValueError(f"{source}: a checkpoint named {name} is served already; rename the folder")
            vocoders[name] = ready(source, device)
        app = application(vocoders, limits, key, batch)
        config = uvicorn.Config(
            app, log_level="warning", server_header=False, timeout_graceful_shutdown=FAREWELL, ws_max_size=MESSAGE,
            ws_per_message_deflate=False,
            # whose word is taken for a client's address: nobody's, unless the environment names proxies
            proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
        )
        for name in ("uvicorn.error", "asyncio"):                      # here, as Config has just set logging up
            logging.getLogger(name).addFilter(briefly)
        for number in (signal.SIGTERM, signal.SIGINT):                 # uvicorn ends what is under way, and then comes here
            signal.signal(number, lambda *_: sys.exit())
        print(f"http://{host}:{socket.getsockname()[1]} serves {', '.join(vocoders)} (Ctrl-C ends)", flush=True)
        uvicorn.Server(config).run(sockets=[socket])


def briefly(record: logging.LogRecord) -> bool:
    """Have a client's mistakes logged without the tracebacks that uvicorn adds to them.

    Text in a WebSocket that is none; the same again; the rest of a body that is none, when the answer has gone.
    """
    error = record.exc_info[1] if record.exc_info else None
    late = record.name == "asyncio" and type(error).__name__ == "LocalProtocolError"  # of h11, below uvicorn
    if late or isinstance(error, UnicodeDecodeError | InvalidState):
        record.exc_info = None
    return True


def ready(source: str, device: str) -> Vocoder:
    """A vocoder whose nets are laid out for speed already."""
    vocoder = Vocoder.from_pretrained(source, device)
    vocoder(torch.zeros(1, vocoder.settings.n_mels, 1), speaker=next(iter(vocoder.speakers), None))
    return vocoder
