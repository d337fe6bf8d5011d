"""Other people's files: every spelling of the same weights is read, and nothing in a file is ever run."""

import os

import pytest
import torch
from conftest import shake

from flowavenet.interop import load_published
from flowavenet.models import FloWaveNet, FloWaveNetConfig

CONFIG = FloWaveNetConfig(blocks=2, flows=2, width=8, blocks_per_split=1)


def published(config=CONFIG, n_mels=4, strides=(4, 2)):
    """Random weights under the names and shapes of the authors' code."""
    width, layers, k = config.width, config.layers, config.kernel_size
    state = {}

    def conv(name, out, inside, kernel):
        state[f"{name}.weight_g"] = 0.7 + 0.1 * torch.randn(out, 1, 1)
        state[f"{name}.weight_v"] = torch.randn(out, inside, kernel)
        state[f"{name}.bias"] = 0.05 * torch.randn(out)

    def wavenet(home, inside, out, cond, layers):
        conv(home + "front_conv.0.conv", width, inside, k)
        for layer in range(layers):
            block = f"{home}res_blocks.{layer}."
            for part in ("filter_conv.conv", "gate_conv.conv"):
                conv(block + part, width, width, k)
            for part in ("res_conv", "skip_conv"):
                conv(block + part, width, width, 1)
            for part in ("filter_conv_c", "gate_conv_c"):
                conv(block + part, width, cond, 1)
        conv(home + "final_conv.1.conv", width, width, 1)
        state[home + "final_conv.3.conv.weight"] = 0.05 * torch.randn(out, width, 1)
        state[home + "final_conv.3.conv.bias"] = 0.05 * torch.randn(out)
        state[home + "final_conv.3.scale"] = 0.05 * torch.randn(1, out, 1)

    channels = 1
    for block in range(config.blocks):
        channels *= 2
        half = n_mels // 2 * 2 ** (block + 1)
        for flow in range(config.flows):
            home = f"blocks.{block}.flows.{flow}."
            state[home + "actnorm.loc"] = torch.randn(1, channels, 1)
            state[home + "actnorm.scale"] = 1 + 0.1 * torch.randn(1, channels, 1)
            wavenet(home + "coupling.net.", channels // 2, channels if config.coupling == "affine" else channels // 2,
                    half, layers)
        if (block + 1) % config.blocks_per_split == 0 and block + 1 < config.blocks:
            wavenet(f"blocks.{block}.prior.", channels // 2, channels, 2 * half, 2)
            channels //= 2
    for layer, stride in enumerate(strides):
        state[f"upsample_conv.{2 * layer}.weight_g"] = torch.ones(1, 1, 1, 1)
        state[f"upsample_conv.{2 * layer}.weight_v"] = torch.randn(1, 1, 3, 2 * stride)
        state[f"upsample_conv.{2 * layer}.bias"] = torch.zeros(1)
    return state


def spelled(state, how):
    if how == "module.":
        return {f"module.{key}": value for key, value in state.items()}
    if how == "parametrizations":
        new = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
        return {key.replace(key[-9:], new.get(key[-9:], key[-9:])): value for key, value in state.items()}
    return state


@pytest.mark.parametrize("how", ["weight_g and weight_v", "module.", "parametrizations"])
def test_every_spelling_is_the_same_model(how, tmp_path):
    state = published()
    expected = load_published(state)
    torch.save({"state_dict": spelled(state, how), "global_step": 7}, tmp_path / "checkpoint.pth")
    found = load_published(tmp_path / "checkpoint.pth")
    assert found.config == CONFIG and (found.n_mels, found.hop_length) == (4, 8)
    wave, mel = torch.randn(1, 32), torch.randn(1, 4, 4)
    assert torch.equal(found.log_prob(wave, mel), expected.log_prob(wave, mel))


@pytest.mark.parametrize(
    "config",
    [
        FloWaveNetConfig(blocks=2, flows=2, width=8, blocks_per_split=2),
        FloWaveNetConfig(blocks=4, flows=3, width=8, blocks_per_split=1),
        FloWaveNetConfig(blocks=2, flows=2, width=8, blocks_per_split=1, layers=3, kernel_size=5),
        FloWaveNetConfig(blocks=2, flows=2, width=8, blocks_per_split=1, coupling="additive"),
    ],
    ids=["single scale", "odd flows", "other nets", "additive"],
)
def test_sizes_are_inferred(config):
    found = load_published(published(config))
    assert found.config == config
    wave, mel = torch.randn(1, 64), torch.randn(1, 4, 8)
    torch.testing.assert_close(found.decode(found.encode(wave, mel)[0], mel), wave, atol=1e-3, rtol=1e-3)


def test_loaded_weights_survive_a_training_forward():
    """The authors' code needs a flag for this: without it, the first forward overwrites ActNorm."""
    model = load_published(published()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.log_prob(torch.randn(1, 32), torch.randn(1, 4, 4))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile-file-was-run",)


def refusal(source):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_published(source)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_what_is_no_known_checkpoint_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pth"
    assert "no such file" in refusal(path)
    torch.save({"state_dict": Hostile()}, path)
    assert "nothing in it was run" in refusal(path) and not (tmp_path / "hostile-file-was-run").exists()
    path.write_text("text")
    assert str(path) in refusal(path)
    torch.save([1, 2], path)
    assert "holds no state dict" in refusal(path)
    torch.save(shake(FloWaveNet(CONFIG, 4, 8)).state_dict(), path)
    assert "not of a model known here" in refusal(path)
    missing = published()
    del missing["blocks.1.flows.0.actnorm.loc"]
    assert "weights are missing" in refusal(missing)
