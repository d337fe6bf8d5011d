"""ClariNet checkpoints of the open implementation, teacher and student: their names and layouts, brought to ours."""

from __future__ import annotations

import re

import torch

from flowavenet.interop.flowavenet import State, upsampler_state, upsampling_hop, wavenet_state
from flowavenet.models.clarinet import GaussianIAF
from flowavenet.models.iaf import IAFConfig
from flowavenet.models.wavenet import WaveNet, WaveNetConfig

LAYERS = 10
"""Layers of a stack, of which the weights say nothing: where the dilations begin again at 1."""
NOTHING = -30.0
"""Log-scale that makes the first sample zero, as theirs is, up to rounding, and can still be undone."""


def is_teacher(state: State) -> bool:
    """Whether these are the weights of a ClariNet teacher, a Gaussian WaveNet."""
    return "front_conv.0.conv.bias" in state and "final_conv.3.conv.bias" in state


def is_student(state: State) -> bool:
    """Whether these are the weights of a ClariNet student, a Gaussian inverse autoregressive flow."""
    return "iafs.0.front_conv.0.conv.bias" in state


def load_teacher(state: State) -> WaveNet:
    """Build a WaveNet with a Gaussian head of the sizes that the shapes tell, with these weights."""
    sizes = _sizes(state, "")
    config = WaveNetConfig(stacks=_layers(state, "") // LAYERS, **sizes)
    model = WaveNet(config, _bands(state, ""), upsampling_hop(state)).to(state["front_conv.0.conv.bias"].dtype)
    ours: State = {"flow.inner.first": model.flow.inner.first.detach()}            # theirs never expects the first sample
    upsampler_state(ours, state)
    _net(ours, "flow.inner.net.", state, "")
    model.load_state_dict(ours)
    return model.eval()


def load_student(state: State) -> GaussianIAF:
    """Build an inverse autoregressive flow of the sizes that the shapes tell, with these weights.

    Its mels go through the upsampler of its teacher, whose weights must be there as well.
    """
    flows = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("iafs."))
    stacks = tuple(_layers(state, f"iafs.{flow}.") // LAYERS for flow in range(flows))
    config = IAFConfig(stacks=stacks, **_sizes(state, "iafs.0."))
    dtype = state["iafs.0.front_conv.0.conv.bias"].dtype
    model = GaussianIAF(config, _bands(state, "iafs.0."), upsampling_hop(state)).to(dtype)
    ours: State = {}
    upsampler_state(ours, state)
    for flow in range(flows):
        home = f"flow.inner.transforms.{flows - 1 - flow}.transform."        # ours goes from audio to noise
        ours[home + "first"] = torch.tensor([[[0.0], [0.0 if flow else NOTHING]]], dtype=dtype)
        _net(ours, home + "net.", state, f"iafs.{flow}.")
    model.load_state_dict(ours)
    return model.eval()


def _net(ours: State, home: str, state: State, theirs: str) -> None:
    """One of their WaveNets. Its last convolution is weight-normed, ours has a gain instead, which is left at one."""
    last = f"{theirs}final_conv.3."
    gain, direction = state[last + "conv.weight_g"], state[last + "conv.weight_v"]
    plain = {
        last + "conv.weight": gain * direction / direction.norm(dim=(1, 2), keepdim=True),
        last + "scale": gain.new_zeros(1, len(gain), 1),
    }
    wavenet_state(ours, home, state | plain, theirs)


def _sizes(state: State, theirs: str) -> dict[str, int]:
    front, inner = state[f"{theirs}front_conv.0.conv.weight_v"], state[f"{theirs}res_blocks.0.filter_conv.conv.weight_v"]
    return {
        "layers": LAYERS, "width": front.shape[0], "gate_width": inner.shape[0], "kernel_size": inner.shape[2],
        "front_size": front.shape[2], "skip_width": state[f"{theirs}res_blocks.0.skip_conv.bias"].shape[0],
    }


def _layers(state: State, theirs: str) -> int:
    return len({key for key in state if re.match(re.escape(theirs) + r"res_blocks\.\d+\.skip_conv\.bias", key)})


def _bands(state: State, theirs: str) -> int:
    return state[f"{theirs}res_blocks.0.filter_conv_c.weight_v"].shape[1]
