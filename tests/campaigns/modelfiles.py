"""Checkpoints, ours and others', and recipes as hostile files: valid ones to begin with, and how verbs read them."""

from __future__ import annotations

from pathlib import Path

import torch

from .signalfiles import Seeds, saved


def checkpoint(file: str, folder: Path) -> Seeds:
    """Both files of a checkpoint, of which one is to be fuzzed."""
    from flowavenet.audio import MelSettings
    from flowavenet.checkpoint import save_checkpoint
    from flowavenet.models import build

    settings = MelSettings(n_mels=8)
    sizes = {
        "lapflow": {"bands": 16, "steps": 1, "detail_steps": 0, "layers": 1, "width": 4, "cond_width": 4, "cond_layers": 1},
        "flowavenet": {"blocks": 2, "flows": 2, "width": 4, "layers": 1, "speakers": 2, "speaker_width": 3},
    }
    facts = {"steps": 7, "speakers": ["anna", "ben"], "licence": "MIT", "synthesis": {"temperature": 0.7, "match": 1}}
    made = []
    for name, config in sizes.items():
        save_checkpoint(folder, build(name, config, 8, 256), settings, facts)
        made.append((folder / file).read_bytes())
    return made[::-1]  # the first goes with what lies there now


def read_checkpoint(path: Path) -> None:
    from flowavenet.checkpoint import model_card
    from flowavenet.vocoder import Vocoder

    vocoder = Vocoder.from_pretrained(path.parent)
    speaker = vocoder.speakers[0] if vocoder.model.config.speaker_width else None
    wave = vocoder(torch.zeros(1, vocoder.settings.n_mels, 3), seed=0, speaker=speaker)
    assert wave.shape == (1, 3 * vocoder.settings.hop_length), f"audio of shape {tuple(wave.shape)}"
    model_card("a/b", vocoder.model, vocoder.settings, vocoder.facts)


def published(form: str, folder: Path) -> Seeds:
    """Weights by the names of FloWaveNet's authors."""
    from safetensors.torch import save

    state = {}

    def conv(name: str, out: int, inside: int, *kernel: int) -> None:
        state[f"{name}.weight_g"] = torch.ones(out, *[1] * (1 + len(kernel)))
        state[f"{name}.weight_v"] = torch.rand(out, inside, *kernel)
        state[f"{name}.bias"] = torch.zeros(out)

    for flow in range(2):
        home = f"blocks.0.flows.{flow}."
        state[home + "actnorm.loc"], state[home + "actnorm.scale"] = torch.zeros(1, 2, 1), torch.ones(1, 2, 1)
        net = home + "coupling.net."
        conv(net + "front_conv.0.conv", 2, 1, 3)
        for part in ("filter_conv.conv", "gate_conv.conv"):
            conv(f"{net}res_blocks.0.{part}", 2, 2, 3)
        for part, inside in (("res_conv", 2), ("skip_conv", 2), ("filter_conv_c", 4), ("gate_conv_c", 4)):
            conv(f"{net}res_blocks.0.{part}", 2, inside, 1)
        conv(net + "final_conv.1.conv", 2, 2, 1)
        state[net + "final_conv.3.conv.weight"] = torch.rand(2, 2, 1)
        state[net + "final_conv.3.conv.bias"], state[net + "final_conv.3.scale"] = torch.zeros(2), torch.zeros(1, 2, 1)
    for layer in (0, 2):
        conv(f"upsample_conv.{layer}", 1, 1, 3, 8)
    if form == "safetensors":
        return [save(state), save({f"module.{key}": value.half() for key, value in state.items()})]
    return [saved({"state_dict": state, "epoch": 3}), saved(state, old=True)]


def read_published(path: Path) -> None:
    from flowavenet.interop import recognise

    family, model = recognise(path)
    assert family.name == "FloWaveNet" and not model.training


def recipes(folder: Path) -> Seeds:
    return [path.read_bytes() for path in sorted(Path(__file__).parents[2].glob("recipes/speech_folder/*.yaml"))]


def read_sizes(path: Path) -> None:
    from flowavenet.benchmark.cases import load

    load(str(path))


def addresses(folder: Path) -> Seeds:
    return [b"lapflow-speech-22k", b"user/name", b"user/name@v1.0", b"https://huggingface.co/user/name", b"../checkpoints"]


def read_address(path: Path) -> None:
    from flowavenet.hub import find_checkpoint

    text = path.read_text(errors="surrogateescape").partition("\n")[0].replace("\0", "")[:300]
    assert find_checkpoint(text).is_dir()
