"""Verbs that serve pages."""

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
