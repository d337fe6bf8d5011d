"""Published checkpoints of other code bases, as our models.

Nothing in such a file is executed, see :mod:`~flowavenet.interop.pickles`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

from flowavenet.interop.archives import CheckpointFile
from flowavenet.interop.clarinet import is_student, is_teacher, load_student, load_teacher
from flowavenet.interop.flowavenet import State, is_flowavenet, load_flowavenet
from flowavenet.interop.waveglow import is_squeezewave, is_waveglow, load_waveglow
from flowavenet.models import FlowVocoder

Source = str | os.PathLike | State


class Family(NamedTuple):
    """Published models that are told by their weights' names."""

    name: str
    holds: Callable[[State], bool]
    load: Callable[[State], FlowVocoder]
    mel: str
    """The convention of the mels that they were trained on."""
    temperature: float
    """Standard deviation of the noise that their authors sample with."""


FAMILIES = [
    Family("FloWaveNet", is_flowavenet, load_flowavenet, "flowavenet", 0.8),
    Family("WaveGlow", is_waveglow, load_waveglow, "tacotron2", 0.6),
    Family("SqueezeWave", is_squeezewave, load_waveglow, "tacotron2", 0.6),
    Family("ClariNet student", is_student, load_student, "flowavenet", 1.0),
    Family("ClariNet teacher", is_teacher, load_teacher, "flowavenet", 1.0),
]


def load_published(source: Source, teacher: Source | None = None) -> FlowVocoder:
    """A model of ours with the weights of a published checkpoint; sizes are read off its keys and shapes.

    Args:
        source: a checkpoint file (of torch, a state dict somewhere in it or a whole pickled module; or .safetensors), or a
            state dict. Names may begin with ``module.`` (saved from DataParallel), and weight norm may be spelled
            ``weight_g`` / ``weight_v`` or ``parametrizations.weight.original0 / 1``.
        teacher: the same of the teacher of a ClariNet student, which uses its upsampler.

    Raises ValueError, in one line, when the file is no checkpoint that is known here.
    """
    return recognise(source, teacher)[1]


def recognise(source: Source, teacher: Source | None = None) -> tuple[Family, FlowVocoder]:
    """As :func:`load_published`, and the family that the model is of."""
    name = "the state dict" if isinstance(source, dict) else str(source)
    state = _state(source)
    family = _family(state)
    if family is None:
        known = ", ".join(family.name for family in FAMILIES)
        raise ValueError(f"{name}: {len(state)} weights, but not of a model known here ({known}, of their authors)")
    if (teacher is None) == is_student(state):
        cure = "also give its teacher's checkpoint, for the upsampler" if teacher is None else "leave the teacher out"
        raise ValueError(f"{name}: is a {family.name}: {cure}")
    if teacher is not None:
        upsampler = {key: value for key, value in _state(teacher).items() if key.startswith("upsample_conv.")}
        if not upsampler:
            raise ValueError(f"{teacher}: is no ClariNet teacher, it has no upsampler (weights upsample_conv...)")
        state |= upsampler
    try:
        return family, family.load(state)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        # torch's own list of misfits has a heading, and can name hundreds
        reason = shorten(" ".join(str(error).split("\n")[:2]), 400, placeholder=" ...")
        looks = f"{name}: looks like a {family.name}, but weights are missing or of odd shape"
        raise ValueError(f"{looks} ({reason})") from error


def _family(state: State) -> Family | None:
    return next((family for family in FAMILIES if family.holds(state)), None)


def _state(source: Source) -> State:
    """The state dict of a known family, or the first one."""
    if isinstance(source, dict):
        return _published_names(source)
    file = CheckpointFile(Path(source))
    states = [_published_names(state) for state in file.states]
    return file.load(next(filter(_family, states), states[0]))


def _published_names(state: dict[str, Any]) -> dict[str, Any]:
    spellings = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    renamed = {}
    for key, value in state.items():
        key = key.removeprefix("module.")
        for new, old in spellings.items():
            key = key.replace(new, old)
        renamed[key] = value
    return renamed
