"""Serve the page: offline, one piece of work at a time, its files gone when it ends."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from flowavenet.hub import shipped_checkpoints
from flowavenet.vocoder import DEFAULT, Vocoder

LARGEST = "20mb"
"""File that may be uploaded."""
WAITING = 32
"""Visitors that may wait for their turn; who comes then is told to try again later."""


def serve(checkpoint: str = "", host: str = "127.0.0.1", port: int = 7860, device: str = "cpu") -> None:
    """Serve until interrupted.

    Args:
        checkpoint: one to start with, beside the shipped ones.
        host: address to listen at; 127.0.0.1 is for this machine alone.
        port: of that address.
        device: where vocoders work.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"                   # read when Gradio is imported: report nothing
    import gradio as gr

    from flowavenet.demo.page import build

    names = list(dict.fromkeys([checkpoint or DEFAULT, *shipped_checkpoints()]))
    load = lru_cache(maxsize=4)(lambda name: Vocoder.from_pretrained(name, device))
    load(names[0])                                                     # what is wrong with it is said now
    fonts = ("ui-sans-serif", "system-ui", "sans-serif"), ("ui-monospace", "monospace")
    theme = gr.themes.Soft(primary_hue="teal", secondary_hue="teal", font=fonts[0], font_mono=fonts[1])
    theme.button_primary_background_fill = "*primary_600"              # for white letters
    with TemporaryDirectory(prefix="flowavenet-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder                         # uploads, too
        page = build(names, load, Path(folder)).queue(max_size=WAITING, api_open=False)
        try:
            page.launch(
                server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, ssr_mode=False,
                max_file_size=LARGEST, footer_links=[], run_history=False, theme=theme,
            )
        except OSError as error:
            raise OSError(f"port {port} of {host} cannot be had; choose another one with --port") from error
        print(f"http://{host}:{port} (Ctrl-C ends)", flush=True)
        page.block_thread()
