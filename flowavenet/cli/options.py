"""Options that several verbs have."""

from __future__ import annotations

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
