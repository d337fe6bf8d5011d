"""Verbs that take models elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowavenet.cli.options import Checkpoint


def export(
    out: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    checkpoint: Checkpoint = "",
) -> None:
    """Write a checkpoint's whole inverse to ONNX: noise and mel in, waveform out, any batch and length."""
    from flowavenet.vocoder import Vocoder

    try:
        import onnxscript  # noqa: F401 - without it torch fails late
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"export needs {error.name or 'onnxscript'}: pip install 'flowavenet[export]'") from None
    from flowavenet.export import export_program, save_onnx

    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: no such folder; create it first")
    vocoder = Vocoder.from_pretrained(checkpoint or None)
    save_onnx(export_program(vocoder), out)
    grid, hop = vocoder.model.frame_grid, vocoder.settings.hop_length
    shapes = f"noise (batch, frames * {hop}), mel (batch, {vocoder.settings.n_mels}, frames), frames a multiple of {grid}"
    voices = f", speaker (batch,): {', '.join(vocoder.speakers)}" if vocoder.speakers else ""
    print(f"{shapes}{voices} -> {out}")
