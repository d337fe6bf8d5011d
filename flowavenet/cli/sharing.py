"""Verbs that take models here, and elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowavenet.cli.options import Checkpoint


def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint: .pt .pth ..., as torch saved it, or .safetensors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint folder to write.")],
    teacher: Annotated[Path | None, typer.Option(help="The teacher's checkpoint, of a ClariNet student.")] = None,
    mel: Annotated[
        str | None, typer.Option(help="The mels it was trained on: a convention's name or YAML. [default: its authors']")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is in the folder.")] = False,
) -> None:
    """Bring a published checkpoint here: FloWaveNet, WaveGlow, SqueezeWave or ClariNet; nothing in the file is run."""
    from flowavenet.interop.conversion import convert

    if out.exists() and not (out.is_dir() and (force or not any(out.iterdir()))):
        cure = "choose another folder, or --force to replace it" if out.is_dir() else "name a folder"
        raise FileExistsError(f"{out}: is there already; {cure}")
    found = convert(file, out, teacher, mel)
    settings = found.mel
    bands = f"{settings.n_mels} bands of {settings.f_min:g} to {settings.f_max:g} Hz, hop {settings.hop_length}"
    print(f"{found}\nmel {mel or found.family.mel}: {settings.sample_rate} Hz, {bands} -> {out}")


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


def push(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint folder, or a shipped checkpoint by name.")],
    repository: Annotated[str, typer.Argument(help="Where on the Hub: user/name; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="For you alone; of a repository that is made now.")] = False,
) -> None:
    """Put a checkpoint on the Hugging Face Hub, with its card; log in before: hf auth login, or HF_TOKEN."""
    from flowavenet.hub import find_checkpoint, push

    print(f"{checkpoint} -> {push(find_checkpoint(checkpoint), repository, private or None)}")
