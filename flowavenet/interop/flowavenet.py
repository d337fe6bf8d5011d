"""FloWaveNet checkpoints of the authors' code: their names and layouts, brought to ours."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from flowavenet.models.flowavenet import FloWaveNet, FloWaveNetConfig

State = dict[str, Tensor]


def is_flowavenet(state: State) -> bool:
    """Whether these are the weights of the authors' FloWaveNet."""
    return any(re.match(r"blocks\.\d+\.flows\.\d+\.coupling\.", key) for key in state)


def load_flowavenet(state: State) -> FloWaveNet:
    """Build a FloWaveNet of the sizes that the keys and shapes tell, with these weights.

    Two things cannot be told from the weights: dilations (the first version had 3^i, the last 2^i; with its two layers
    or less the difference is one dilation), and causality. The last published version is assumed for both.

    Args:
        state: published names, weight norm as ``weight_g`` / ``weight_v``.
    """
    blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    flows = 1 + max(int(key.split(".")[3]) for key in state if key.startswith("blocks.0.flows."))
    layers = 1 + max(int(m[1]) for key in state if (m := re.match(r"blocks\.0\.flows\.0.*res_blocks\.(\d+)", key)))
    net = "blocks.0.flows.0.coupling.net."
    splits = [int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.prior\.front", key))]
    config = FloWaveNetConfig(
        blocks=blocks,
        flows=flows,
        blocks_per_split=1 + min(splits) if splits else blocks,
        coupling="affine" if state[net + "final_conv.3.conv.weight"].shape[0] == 2 else "additive",
        layers=layers,
        width=state[net + "front_conv.0.conv.weight_v"].shape[0],
        kernel_size=state[net + "front_conv.0.conv.weight_v"].shape[2],
    )
    # the conditioning of block 0 has two phases, of half of the bands
    n_mels = state[net + "res_blocks.0.filter_conv_c.weight_v"].shape[1]
    model = FloWaveNet(config, n_mels, upsampling_hop(state)).to(state[net + "final_conv.3.scale"].dtype)
    model.load_state_dict(_our_state(state, config))
    return model.eval()


def upsampling_hop(state: State) -> int:
    """Samples per frame: each transposed convolution is twice as wide as its stride."""
    hop = 1
    for key, value in state.items():
        if re.match(r"upsample_conv\.\d+\.weight_v", key):
            hop *= value.shape[3] // 2
    return hop


def _our_state(state: State, config: FloWaveNetConfig) -> State:
    ours: State = {}
    upsampler_state(ours, state)
    home = "flow."
    for block in range(config.blocks):
        home += "inner."                                               # into Squeeze
        for flow in range(config.flows):
            theirs = f"blocks.{block}.flows.{flow}."
            step = f"{home}transforms.{flow}." + ("inner." if flow % 2 else "")   # odd steps are in SwapHalves
            ours[step + "transforms.0.shift"] = state[theirs + "actnorm.loc"]
            ours[step + "transforms.0.scale"] = state[theirs + "actnorm.scale"]
            ours[step + "transforms.0.initialised"] = torch.tensor(True)
            # half the bands: their couplings chunk the conditioning as they chunk x; their order is log-scale, shift
            affine = config.coupling == "affine"
            wavenet_state(
                ours, step + "transforms.1.net.net.", state, theirs + "coupling.net.", swap_out=affine, squeezes=block + 1
            )
        home += f"transforms.{config.flows}." + ("inner." if config.flows % 2 else "")
        if f"blocks.{block}.prior.front_conv.0.conv.bias" in state:
            # after an odd number of flows their conditioning has its halves exchanged
            swap_cond = (block + 1) * config.flows % 2 == 1
            wavenet_state(
                ours, home + "transforms.0.net.net.", state, f"blocks.{block}.prior.", squeezes=block + 1, halves=2,
                swap_cond=swap_cond,
            )
            home += "transforms.1.inner."                              # into FactorOut
    return ours


def upsampler_state(ours: State, state: State) -> None:
    """Their upsampler, which ClariNet has as well."""
    strides = {int(key.split(".")[1]) for key in state if key.startswith("upsample_conv.")}
    for layer, theirs in enumerate(sorted(strides)):
        weight_norm_state(ours, f"upsampler.layers.{layer}", state, [f"upsample_conv.{theirs}"])


def wavenet_state(
    ours: State, home: str, state: State, theirs: str, *, squeezes: int = 0, halves: int = 1, swap_out: bool = False,
    swap_cond: bool = False,
) -> None:
    """Bring over one of their WaveNets: filter and gate are ours in one convolution, and the last residual is never read.

    Args:
        squeezes: how often their conditioning was squeezed by two.
        halves: 2 if the net reads both halves of our conditioning, which lie one after the other.
        swap_out: their shift and log-scale come in the other order.
        swap_cond: the halves of their conditioning are exchanged.
    """
    weight_norm_state(ours, home + "front.conv", state, [theirs + "front_conv.0.conv"])
    layers = len({key for key in state if re.match(re.escape(theirs) + r"res_blocks\.\d+\.skip_conv\.bias", key)})
    for layer in range(layers):
        block = f"{theirs}res_blocks.{layer}."
        weight_norm_state(ours, f"{home}dilated.{layer}.conv", state, [block + "filter_conv.conv", block + "gate_conv.conv"])
        conditioning = f"{home}conditioning.{layer}"
        weight_norm_state(ours, conditioning, state, [block + "filter_conv_c", block + "gate_conv_c"])
        key = conditioning + ".parametrizations.weight.original1"
        if swap_cond:
            ours[key] = ours[key].roll(ours[key].shape[1] // 2, dims=1)
        # theirs has the phases of a band side by side, the first squeeze's as the most significant bit; ours has the
        # bands of a phase side by side, phases in the order of time
        order = [int(f"{phase:0{squeezes}b}"[::-1], 2) if squeezes else 0 for phase in range(2**squeezes)]
        bands = ours[key].unflatten(1, (halves, -1, len(order)))[:, :, :, order]
        ours[key] = bands.transpose(2, 3).flatten(1, 3)
        weight_norm_state(ours, f"{home}skip.{layer}", state, [block + "skip_conv"])
        if layer + 1 < layers:
            weight_norm_state(ours, f"{home}residual.{layer}", state, [block + "res_conv"])
    weight_norm_state(ours, home + "post", state, [theirs + "final_conv.1.conv"])
    last = {
        "last.weight": state[theirs + "final_conv.3.conv.weight"],
        "last.bias": state[theirs + "final_conv.3.conv.bias"],
        "scale": state[theirs + "final_conv.3.scale"],
    }
    for name, value in last.items():
        dim = 1 if name == "scale" else 0
        ours[home + name] = value.roll(value.shape[dim] // 2, dims=dim) if swap_out else value


def weight_norm_state(ours: State, home: str, state: State, theirs: list[str]) -> None:
    """A weight-normalised convolution, several of theirs stacked along the output channels."""
    def stacked(name: str) -> Tensor:
        return torch.cat([state[f"{prefix}.{name}"] for prefix in theirs])

    ours[home + ".bias"] = stacked("bias")
    ours[home + ".parametrizations.weight.original0"] = stacked("weight_g")
    ours[home + ".parametrizations.weight.original1"] = stacked("weight_v")
