"""Verbs that serve: a web page, and an HTTP service."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from flowavenet.cli.options import Checkpoint, Device


def demo(
    checkpoint: Checkpoint = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page's address.")] = 7860,
    host: Annotated[str, typer.Option(help="127.0.0.1: for this machine; 0.0.0.0: for all who can reach it.")] = "127.0.0.1",
    device: Device = "cpu",
) -> None:
    """Open the web page: vocode recordings and mels, see them, and play with their noise."""
    if missing := [name for name in ("gradio", "matplotlib") if find_spec(name) is None]:
        raise ModuleNotFoundError(f"the page needs {' and '.join(missing)}: pip install 'flowavenet[demo]'")
    from flowavenet.demo.server import serve

    if host not in ("127.0.0.1", "localhost"):
        print(f"warning: everyone who can reach {host} can use the page; there is no password", file=sys.stderr)
    serve(checkpoint, host, port, device)


def serve(
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="To serve; give it several times, the first is the default. [default: shipped]")
    ] = None,
    host: Annotated[str, typer.Option(help="127.0.0.1: for this machine; 0.0.0.0: for all with the key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="To listen at; 0: any that is free.")] = 8000,
    api_key: Annotated[str | None, typer.Option(help="That clients must bring. [default: $FLOWAVENET_API_KEY]")] = None,
    longest: Annotated[float, typer.Option(min=0.2, help="Seconds of audio in one request.")] = 60.0,
    requests: Annotated[int, typer.Option(min=2, help="Under way at once; half of them for one client.")] = 32,
    rate: Annotated[float, typer.Option(min=1, help="Requests per second of one client.")] = 20.0,
    wait: Annotated[float, typer.Option(min=0.1, help="Seconds for which a request may wait for its turn.")] = 5.0,
    batch: Annotated[int, typer.Option(min=1, help="Mels of one length rendered together, at most.")] = 4,
    device: Device = "cpu",
) -> None:
    """Serve vocoders over HTTP: mels and recordings in, audio out while it is made; WebSockets, metrics, limits."""
    if missing := [name for name in ("fastapi", "prometheus_client", "uvicorn", "websockets") if find_spec(name) is None]:
        raise ModuleNotFoundError(f"the service needs {' and '.join(missing)}: pip install 'flowavenet[serve]'")
    from flowavenet.serve.limits import Limits
    from flowavenet.serve.server import serve

    limits = Limits(seconds=longest, requests=requests, share=requests // 2, rate=rate, wait=wait)
    serve(checkpoint or [], host, port, device, api_key, limits, batch)
