"""Options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Checkpoint = Annotated[
    str, typer.Option(help="A shipped name, a checkpoint folder, or user/name on the Hugging Face Hub. [default: shipped]")
]
Precision = Annotated[str, typer.Option(help="Of the nets: float32 or bfloat16.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Speaker = Annotated[str | None, typer.Option(help="Whose voice, by name, if the checkpoint tells voices apart.")]
MelConvention = Annotated[
    str | None,
    typer.Option("--mel-convention", help="What the mels are: a convention's name or YAML file. [default: found out]"),
]
MelConfig = Annotated[
    Path | None,
    typer.Option("--mel-config", help="What the mels are: their project's own config.json, YAML or hparams file."),
]
MelRate = Annotated[int | None, typer.Option("--mel-rate", min=1, help="Sample rate that the mels are of, Hz.")]
MelHop = Annotated[int | None, typer.Option("--mel-hop", min=1, help="Samples from one frame of the mels to the next.")]
MelLog = Annotated[
    str | None, typer.Option("--mel-log", help="How the mels are written: ln, log10, db or linear; with -power: of powers.")
]
