"""A checkpoint is a folder: what the model is (config.yaml), its weights (model.safetensors) and a card (README.md).

Loading one never runs code: weights are plain arrays, and the model's class comes from ``MODELS`` by name.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowavenet.audio import MelSettings
from flowavenet.files import read_yaml, ready_folder, short, write_atomically
from flowavenet.models import MODELS, FlowVocoder, build
from flowavenet.nets import remove_weight_norm
from flowavenet.nets.weightnorm import DIRECTION, LENGTH

FORMAT = 2
"""2: squeezed conditionings have the bands of a phase side by side; in 1 it was the phases of a band."""
CONFIG, WEIGHTS, CARD = "config.yaml", "model.safetensors", "README.md"
SMALL = 1024
"""Tensors of at most so many numbers (norms, biases, gains) stay in float32: they weigh nothing and matter most."""
PLENTY = 2**24
"""Weights that any config.yaml may ask for, so that one that does not go with its weights is told what differs."""
LICENCES = "mit apache-2.0 bsd-3-clause gpl-3.0 cc0-1.0 cc-by-4.0 cc-by-sa-4.0 cc-by-nc-4.0 cc-by-nc-sa-4.0".split()
"""Those that a card's head may name: the Hugging Face Hub refuses words that it does not know."""
CARD_PAGE = """---
{head}---

# {title}

An exact-likelihood flow vocoder: mel spectrogram in, waveform out.

```sh
flowavenet vocode MEL_OR_AUDIO -o out --checkpoint {name}{option}
```

```python
from flowavenet import Vocoder

vocoder = Vocoder.from_pretrained("{name}")
wave = vocoder(mel{argument})          # mel (batch, {n_mels}, frames) to wave (batch, frames * {hop_length})
```

| | |
|---|---|
{table}
"""


def save_checkpoint(
    folder: str | os.PathLike, model: FlowVocoder, mel: MelSettings, facts: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint folder; an older one of the same name is replaced file by file, each atomically.

    Args:
        folder: made if it is not there.
        model: its class must be in ``MODELS``.
        mel: the settings of the mels it takes.
        facts: anything to record of the training (steps, corpus, scores): goes into config.yaml and the card.
        dtype: of the large weights in the file; half precision halves it.
    """
    if type(model) not in MODELS.values():
        raise ValueError(f"{folder}: cannot save a {type(model).__name__}; known models are {', '.join(sorted(MODELS))}")
    folder = Path(folder)
    ready_folder(folder)

    def stored(value: Tensor) -> Tensor:
        large = value.is_floating_point() and value.numel() > SMALL
        return value.detach().to("cpu", dtype if large else None).contiguous()

    with write_atomically(folder / WEIGHTS) as temporary:
        save_file({key: stored(value) for key, value in model.state_dict().items()}, temporary)
    _describe(folder, model, mel, facts or {})


def update_facts(folder: str | os.PathLike, facts: dict[str, Any]) -> None:
    """Add to what a checkpoint folder says of itself, or replace it; the weights stay as they are."""
    model, mel, known = load_checkpoint(folder)
    _describe(Path(folder), model, mel, known | facts)


def _describe(folder: Path, model: FlowVocoder, mel: MelSettings, facts: dict[str, Any]) -> None:
    """Write all of a checkpoint folder but the weights."""
    content = {
        "format": FORMAT,
        "model": _kind(model),
        "config": dataclasses.asdict(model.config),
        "mel": {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(mel).items()},
        "training": facts,
    }
    with write_atomically(folder / CONFIG) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False))
    with write_atomically(folder / CARD) as temporary:
        temporary.write_text(model_card(folder.resolve().name, model, mel, facts))


def load_checkpoint(folder: str | os.PathLike) -> tuple[FlowVocoder, MelSettings, dict[str, Any]]:
    """Read a checkpoint folder: the model in evaluation mode, its mel settings, and the facts of its training.

    Raises ValueError or FileNotFoundError, in one line that names the file, whatever is wrong with it.
    """
    folder = Path(folder)
    config_file, weights_file = folder / CONFIG, folder / WEIGHTS
    for file in (config_file, weights_file):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; a checkpoint folder holds {CONFIG} and {WEIGHTS}")
    content = read_yaml(config_file)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise ValueError(
            f"{config_file}: format is {short(found)}, this version of flowavenet reads {FORMAT}: train or convert it again"
        )
    facts = content.get("training") or {}
    if not isinstance(facts, dict):
        raise ValueError(f"{config_file}: training is {type(facts).__name__}, it holds names and values")
    if reason := _misfit(facts):
        raise ValueError(f"{config_file}: training: {reason}")
    try:
        state = load_file(weights_file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights_file}: not a whole safetensors file ({_line(error)}); copy it again") from error
    # not many times what the file has; weight norm holds some of it several times
    most = max(4 * sum(value.numel() for value in state.values()), PLENTY)
    try:
        mel = MelSettings(**content["mel"])
        model = build(content["model"], content["config"] or {}, mel.n_mels, mel.hop_length, most)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{config_file}: {_line(error)}") from error
    if not any(key.endswith(DIRECTION) for key in state):
        remove_weight_norm(model)                                      # as it was when it was saved, to the last bit
    _check_weights(weights_file, state, model.state_dict())
    model.load_state_dict(state)
    return model.eval(), mel, facts


def _misfit(facts: dict[str, Any]) -> str:
    """What is wrong with those of the facts that are not only told; empty: nothing."""
    speakers, synthesis = facts.get("speakers") or [], facts.get("synthesis") or {}
    if not isinstance(speakers, list) or not all(isinstance(name, str | int) for name in speakers):
        return f"speakers is {short(speakers)}, must be a list of names"
    if not isinstance(synthesis, dict):
        return f"synthesis is {short(synthesis)}, must have temperature and match"
    temperature, match = synthesis.get("temperature", 0.0), synthesis.get("match", 0)
    if not isinstance(temperature, int | float) or not 0 <= temperature <= 100:
        return f"temperature is {short(temperature)}, must be a number, 0 to 100"
    if type(match) is not int or not 0 <= match <= 10_000:
        return f"match is {short(match)}, must be a whole number, 0 to 10000"
    return ""


def _check_weights(file: Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    if missing := sorted(wanted.keys() - found.keys()):
        raise ValueError(f"{file}: {len(missing)} of {len(wanted)} weights are missing (first {missing[0]}); see {CONFIG}")
    if extra := sorted(found.keys() - wanted.keys()):
        raise ValueError(f"{file}: {len(extra)} weights are of another model (first {extra[0]}); see {CONFIG}")
    for key, value in found.items():
        if value.shape != wanted[key].shape:
            raise ValueError(f"{file}: {key} has shape {tuple(value.shape)}, {CONFIG} says {tuple(wanted[key].shape)}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{file}: {key} holds values that are not finite; use an earlier checkpoint")


def model_card(name: str, model: FlowVocoder, mel: MelSettings, facts: dict[str, Any]) -> str:
    """The README.md of a checkpoint: a head of YAML that model hubs index; how to use it; and the facts, no more.

    Args:
        name: that it is loaded by: of its folder, or its id on the Hugging Face Hub.
        facts: ``licence``, ``language`` and ``datasets``, if they are there, go into the head as well.
    """
    kind = _kind(model)
    head = {
        "library_name": "flowavenet",
        "pipeline_tag": "audio-to-audio",                              # where hubs keep vocoders
        "tags": ["vocoder", "mel-spectrogram", "normalizing-flow", kind],
    } | {key: facts[key] for key in ("language", "datasets") if key in facts}
    licence = str(facts.get("licence", "")).lower().replace(" ", "-")
    if licence in LICENCES:
        head["license"] = licence
    # with or without weight norm: its lengths are no further weights
    weights = sum(weight.numel() for name, weight in model.named_parameters() if not name.endswith(LENGTH))
    rows = {
        "model": f"{kind}, {weights / 1e6:.2f} M weights",
        "audio": f"{mel.sample_rate} Hz, one channel",
        "mel": f"{mel.n_mels} bands, {mel.f_min:g}-{mel.f_max:g} Hz, hop {mel.hop_length}, "
        f"window {mel.win_length}, log {mel.log}",
    } | {str(key).replace("_", " "): _plain(value) for key, value in facts.items()}
    option, argument = (" --speaker NAME", ', speaker="NAME"') if model.config.speaker_width else ("", "")
    return CARD_PAGE.format(
        head=yaml.safe_dump(head, sort_keys=False), title=name.split("/")[-1], name=name, option=option, argument=argument,
        n_mels=mel.n_mels, hop_length=mel.hop_length,
        table="\n".join(f"| {key} | {value} |" for key, value in rows.items()),
    )


def _kind(model: FlowVocoder) -> str:
    return next(name for name, cls in MODELS.items() if type(model) is cls)


def _plain(value: Any) -> Any:
    items = [f"{key} {item}" for key, item in value.items()] if isinstance(value, dict) else value
    return ", ".join(map(str, items)) if isinstance(items, list) else value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
