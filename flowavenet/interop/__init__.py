"""Published checkpoints of other code bases, as our models.

Nothing in such a file is executed: it is read with ``weights_only=True``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from flowavenet.interop.clarinet import is_student, is_teacher, load_student, load_teacher
from flowavenet.interop.flowavenet import is_flowavenet, load_flowavenet
from flowavenet.interop.waveglow import is_waveglow, load_waveglow
from flowavenet.models import FlowVocoder


class Family(NamedTuple):
    """Published models that are told by their weights' names."""

    name: str
    holds: Callable[[dict[str, Tensor]], bool]
    load: Callable[[dict[str, Tensor]], FlowVocoder]


FAMILIES = [
    Family("FloWaveNet", is_flowavenet, load_flowavenet),
    Family("WaveGlow or SqueezeWave", is_waveglow, load_waveglow),
    Family("ClariNet student", is_student, load_student),
    Family("ClariNet teacher", is_teacher, load_teacher),
]


def load_published(
    source: str | os.PathLike | dict[str, Tensor], teacher: str | os.PathLike | dict[str, Tensor] | None = None
) -> FlowVocoder:
    """A model of ours with the weights of a published checkpoint; sizes are read off its keys and shapes.

    Args:
        source: a checkpoint file, or a state dict. Names may begin with ``module.`` (saved from DataParallel), and
            weight norm may be spelled ``weight_g`` / ``weight_v`` or ``parametrizations.weight.original0 / 1``.
        teacher: the same of the teacher of a ClariNet student, which uses its upsampler.

    Raises ValueError, in one line, when the file is no checkpoint that is known here.
    """
    name = "the state dict" if isinstance(source, dict) else str(source)
    state = _state(source)
    if teacher is not None:
        state |= {key: value for key, value in _state(teacher).items() if key.startswith("upsample_conv.")}
    family = next((family for family in FAMILIES if family.holds(state)), None)
    if family is None:
        known = ", ".join(family.name for family in FAMILIES)
        raise ValueError(f"{name}: {len(state)} weights, but not of a model known here ({known}, of their authors)")
    try:
        return family.load(state)
    except (KeyError, IndexError, RuntimeError) as error:
        # torch's own list of misfits has a heading
        reason = " ".join(str(error).split("\n")[:2]).replace("\t", "").strip()
        looks = f"{name}: looks like a {family.name}, but weights are missing or of odd shape"
        raise ValueError(f"{looks} ({reason})") from error


def _state(source: str | os.PathLike | dict[str, Tensor]) -> dict[str, Tensor]:
    return _published_names(source if isinstance(source, dict) else _read(Path(source)))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except Exception as error:  # whatever the reader stumbles over in a file that is not one
        raise ValueError(
            f"{path}: not a checkpoint that holds weights only (nothing in it was run); save it again as a state dict"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds no state dict; save it again as torch.save(model.state_dict(), ...)")
    return state


def _published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    spellings = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    renamed = {}
    for key, value in state.items():
        key = key.removeprefix("module.")
        for new, old in spellings.items():
            key = key.replace(new, old)
        renamed[key] = value
    return renamed
