"""Serve the page: offline, one piece of work at a time, its files gone when it ends."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from flowavenet.hub import shipped_checkpoints
from flowavenet.serve.address import listen
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
    listen(host, port).close()                                         # before all the work
    names = list(dict.fromkeys([checkpoint or DEFAULT, *shipped_checkpoints()]))

    @lru_cache(maxsize=4)
    def load(name: str) -> Vocoder:
        vocoder = Vocoder.from_pretrained(name, device)
        # once, so that the first visitor need not wait until its nets are laid out for speed
        vocoder(torch.zeros(1, vocoder.settings.n_mels, 1), speaker=next(iter(vocoder.speakers), None))
        return vocoder

    load(names[0])                                                     # what is wrong with it is said now
    with TemporaryDirectory(prefix="flowavenet-demo-") as folder:
        # read when Gradio is imported: report nothing to anybody; where to keep uploads, too
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
        import gradio as gr

        from flowavenet.demo.page import Page

        theme = gr.themes.Soft(
            primary_hue="teal", secondary_hue="teal", font=("ui-sans-serif", "system-ui", "sans-serif"),
            font_mono=("ui-monospace", "monospace"),
        )
        theme.button_primary_background_fill = theme.button_primary_background_fill_hover = "*primary_600"
        page = Page(names, load, Path(folder)).blocks.queue(max_size=WAITING, api_open=False)
        page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, ssr_mode=False,
            max_file_size=LARGEST, footer_links=[], run_history=False, theme=theme,
        )
        print(f"http://{host}:{port} (Ctrl-C ends)", flush=True)
        page.block_thread()
