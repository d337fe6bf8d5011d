"""A published checkpoint, made a checkpoint folder that every verb takes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from flowavenet.audio import MelSettings, mel_settings
from flowavenet.checkpoint import save_checkpoint
from flowavenet.interop import Family, recognise
from flowavenet.models import FlowConfig, FlowVocoder

BLOCK = 2**20
"""Bytes that are read at a time."""


class Converted(NamedTuple):
    """What was found in a published checkpoint."""

    family: Family
    model: FlowVocoder
    mel: MelSettings
    facts: dict[str, Any]

    def __str__(self) -> str:
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        common = {field.name for field in dataclasses.fields(FlowConfig)}
        config = dataclasses.asdict(self.model.config).items()
        # what is a size, or a choice, and not a number that brings levels into range
        sizes = [f"{key} {v}" for key, v in config if key not in common and type(v) in (int, str, tuple)]
        return f"{self.family.name}, {weights / 1e6:.2f} M weights: {', '.join(sizes)}"


def convert(
    source: str | os.PathLike, folder: str | os.PathLike, teacher: str | os.PathLike | None = None,
    mel: str | dict[str, Any] | MelSettings | None = None,
) -> Converted:
    """Write a checkpoint folder with the weights of a published checkpoint, and what is known of it.

    Args:
        source: the file, see :func:`~flowavenet.interop.load_published`.
        folder: made if it is not there; a checkpoint in it is replaced.
        teacher: of a ClariNet student, the file of its teacher.
        mel: the convention of the mels that it was trained on, as :func:`~flowavenet.audio.mel_settings` takes it; None: the
            one that its authors used.

    Raises ValueError or FileNotFoundError, in one line, before anything is written.
    """
    source = Path(source)
    family, model = recognise(source, teacher)
    model = model.float()
    settings = mel_settings(family.mel if mel is None else mel)
    if (settings.n_mels, settings.hop_length) != (model.n_mels, model.hop_length):
        raise ValueError(
            f"{source}: takes mels of {model.n_mels} bands, one per {model.hop_length} samples; the convention has "
            f"{settings.n_mels}, one per {settings.hop_length}: name the one that it was trained on (--mel)"
        )
    for name, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{source}: {name} holds values that are not finite; use another checkpoint")
    facts: dict[str, Any] = {"converted_from": source.name, "family": family.name, "sha256": sha256(source)}
    if teacher is not None:
        facts |= {"teacher": Path(teacher).name, "teacher_sha256": sha256(Path(teacher))}
    facts["synthesis"] = {"temperature": family.temperature}
    save_checkpoint(folder, model, settings, facts)
    return Converted(family, model, settings, facts)


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
