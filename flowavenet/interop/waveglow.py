"""WaveGlow and SqueezeWave checkpoints of the authors' code: their names and layouts, brought to ours."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from flowavenet.interop.flowavenet import State, weight_norm_state
from flowavenet.models.waveglow import WaveGlow, WaveGlowConfig

HOP_LENGTH = 256
"""Samples per frame of the published SqueezeWaves, of which their weights say nothing."""
EPSILON = 1e-5
"""What the published batch normalisation adds to a variance."""
DEAD = 1e-9
"""A channel that a batch normalisation scales by less is taken to be scaled by this, so that it can be divided by."""


def is_waveglow(state: State) -> bool:
    """Whether these are the weights of the authors' WaveGlow."""
    return "convinv.0.conv.weight" in state and "WN.0.in_layers.0.bias" in state


def is_squeezewave(state: State) -> bool:
    """Whether these are the weights of the authors' SqueezeWave."""
    return "convinv.0.conv.weight" in state and any(key.startswith("WN.0.in_layers.0.1.") for key in state)


def load_waveglow(state: State) -> WaveGlow:
    """Build a WaveGlow of the sizes that the keys and shapes tell, with these weights.

    Args:
        state: published names, weight norm as ``weight_g`` / ``weight_v``, or multiplied out; the conditioning read by one
            convolution for all layers, or, as older versions have it, by one for each.
    """
    channels = [value.shape[0] for _, value in sorted(_numbered(state, r"convinv\.(\d+)\.conv\.weight").items())]
    early_every = next((flow for flow, count in enumerate(channels) if count != channels[0]), len(channels))
    dilated = "WN.0.in_layers.0.bias" in state
    width = state["WN.0.start.bias"].shape[0]
    kernel = _weight(state, "WN.0.in_layers.0") if dilated else state["WN.0.in_layers.0.1.weight"]
    config = WaveGlowConfig(
        group=channels[0],
        flows=len(channels),
        early_every=early_every,
        early_size=channels[0] - channels[early_every] if early_every < len(channels) else 0,
        net="dilated" if dilated else "separable",
        layers=len(_numbered(state, r"WN\.0\.res_skip_layers\.(\d+)\.bias")),
        width=width,
        kernel_size=kernel.shape[2],
    )
    if dilated:
        n_mels, hop_length = state["upsample.weight"].shape[1], state["upsample.weight"].shape[2] // 4
    else:
        n_mels, hop_length = _weight(state, _conditioning(state, "WN.0.")[0]).shape[1], HOP_LENGTH
    model = WaveGlow(config, n_mels, hop_length).to(state["WN.0.end.weight"].dtype)
    model.load_state_dict(_our_state(state, config))
    return model.eval()


def _our_state(state: State, config: WaveGlowConfig) -> State:
    ours: State = {}
    if config.net == "dilated":
        ours |= {f"upsampler.{name}": state[f"upsample.{name}"] for name in ("weight", "bias")}
    home = "flow.inner."
    for flow in range(config.flows):
        if flow and flow % config.early_every == 0:
            home += f"transforms.{config.early_every}.inner."          # into FactorOut
        step = f"{home}transforms.{flow % config.early_every}.transforms."
        ours[step + "0.weight"] = state[f"convinv.{flow}.conv.weight"][:, :, 0]
        net, theirs = step + "1.transform.net.", f"WN.{flow}."
        ours |= {f"{net}end.{name}": state[f"{theirs}end.{name}"] for name in ("weight", "bias")}
        _weight_norm(ours, net + "start", state, [theirs + "start"])
        _weight_norm(ours, net + "conditioning", state, _conditioning(state, theirs))
        if config.net == "dilated":
            # theirs has the phases of a band side by side, ours the bands of a phase
            key = net + "conditioning.parametrizations.weight.original1"
            ours[key] = ours[key].unflatten(1, (-1, config.group)).transpose(1, 2).flatten(1, 2)
        mixed = "onward" if config.net == "dilated" else "residual"
        for layer in range(config.layers):
            _weight_norm(ours, f"{net}{mixed}.{layer}", state, [f"{theirs}res_skip_layers.{layer}"])
            if config.net == "dilated":
                _weight_norm(ours, f"{net}dilated.{layer}.conv", state, [f"{theirs}in_layers.{layer}"])
        if config.net == "separable":
            _separable(ours, net, state, theirs, config.layers)
    return ours


def _separable(ours: State, net: str, state: State, theirs: str, layers: int) -> None:
    """Depthwise and pointwise convolutions, without the batch normalisations before them.

    Those compute a * (h + b). The factor goes into the depthwise weights. The offset cannot go into their bias, because
    padding at the two ends of the signal is not offset; so ``h`` itself carries the offset of the layer to come, which the
    biases of what is added to it give it.
    """
    offsets = []
    for layer in range(layers):
        norm = {
            name: state[f"{theirs}in_layers.{layer}.0.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
        }
        factor = norm["weight"] * torch.rsqrt(norm["running_var"] + EPSILON)
        factor = torch.where(factor.abs() < DEAD, DEAD, factor)
        offsets.append(norm["bias"] / factor - norm["running_mean"])
        for ours_name, place in (("depthwise", 1), ("pointwise", 2)):
            for name in ("weight", "bias"):
                ours[f"{net}{ours_name}.{layer}.{name}"] = state[f"{theirs}in_layers.{layer}.{place}.{name}"]
        ours[f"{net}depthwise.{layer}.weight"] = ours[f"{net}depthwise.{layer}.weight"] * factor[:, None, None]
    zero = torch.zeros_like(offsets[0])
    adding = ["start", *(f"residual.{layer}" for layer in range(layers))]
    for name, before, after in zip(adding, [zero, *offsets], [*offsets, zero], strict=True):
        ours[f"{net}{name}.bias"] = ours[f"{net}{name}.bias"] + after - before


def _conditioning(state: State, theirs: str) -> list[str]:
    """What reads the conditioning: one convolution, or one for each layer."""
    if f"{theirs}cond_layer.bias" in state:
        return [f"{theirs}cond_layer"]
    return [f"{theirs}cond_layers.{layer}" for layer in range(len(_numbered(state, theirs + r"cond_layers\.(\d+)\.bias")))]


def _numbered(state: State, pattern: str) -> dict[int, Tensor]:
    """The weights of this name, by the number in it."""
    return {int(found[1]): value for key, value in state.items() if (found := re.fullmatch(pattern, key))}


def _weight(state: State, home: str) -> Tensor:
    return state[f"{home}.weight_v" if f"{home}.weight_v" in state else f"{home}.weight"]


def _weight_norm(ours: State, home: str, state: State, theirs: list[str]) -> None:
    """As for FloWaveNet's, or multiplied out."""
    plain = {prefix: state[f"{prefix}.weight"] for prefix in theirs if f"{prefix}.weight" in state}
    given = {f"{prefix}.weight_g": weight.norm(dim=(1, 2), keepdim=True) for prefix, weight in plain.items()}
    given |= {f"{prefix}.weight_v": weight for prefix, weight in plain.items()}
    weight_norm_state(ours, home, state | given, theirs)
