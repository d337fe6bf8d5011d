"""Other people's files: every spelling of the same weights is read, and nothing in a file is ever run."""

import os

import pytest
import torch
import torch.nn.functional as F
from conftest import shake

from flowavenet.interop import load_published
from flowavenet.models import FloWaveNet, FloWaveNetConfig, WaveGlowConfig

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


GLOWS = {
    "WaveGlow": WaveGlowConfig(group=8, flows=4, early_every=2, layers=3, width=8, kernel_size=5),
    "WaveGlow, nothing early": WaveGlowConfig(group=4, flows=2, early_every=2, early_size=0, layers=1, width=8),
    "SqueezeWave": WaveGlowConfig(group=128, flows=5, early_every=2, early_size=16, net="separable", layers=3, width=8),
}


def published_glow(config, n_mels=4, hop=256):
    """Random weights under the names and shapes of the authors' code, in float64."""
    state, width = {}, config.width

    def conv(name, out, inside, kernel, normed=True, size=1.0):
        state[f"{name}.bias"] = 0.05 * torch.randn(out)
        state[f"{name}.weight_v" if normed else f"{name}.weight"] = size * torch.randn(out, inside, kernel)
        if normed:
            state[f"{name}.weight_g"] = 0.7 + 0.1 * torch.randn(out, 1, 1)

    if config.net == "dilated":
        conv("upsample", n_mels, n_mels, 4 * hop, normed=False, size=0.1)
    for flow in range(config.flows):
        net, channels = f"WN.{flow}.", config.channels(flow)
        state[f"convinv.{flow}.conv.weight"] = torch.linalg.qr(torch.randn(channels, channels))[0][:, :, None]
        conv(net + "start", width, channels // 2, 1)
        conv(net + "end", channels, width, 1, normed=False, size=0.05)
        conv(net + "cond_layer", 2 * width * config.layers, n_mels * (config.group if config.net == "dilated" else 1), 1)
        for layer in range(config.layers):
            inside, last = f"{net}in_layers.{layer}", layer == config.layers - 1
            if config.net == "dilated":
                conv(inside, 2 * width, width, config.kernel_size)
                conv(f"{net}res_skip_layers.{layer}", width if last else 2 * width, width, 1)
            else:
                conv(f"{net}res_skip_layers.{layer}", width, width, 1)
                conv(inside + ".1", width, 1, config.kernel_size, normed=False)
                conv(inside + ".2", 2 * width, width, 1, normed=False, size=0.3)
                for name in ("weight", "bias", "running_mean"):
                    state[f"{inside}.0.{name}"] = torch.randn(width)
                state[inside + ".0.running_var"] = 0.5 + torch.rand(width)
    return {key: value.double() for key, value in state.items()}


def what_theirs_computes(state, config, wave, mel):
    """Noise, (batch, group, steps), and log-det of the published models, step by step as their papers say."""
    def conv(name, x, **options):
        v = state.get(f"{name}.weight_v", state.get(f"{name}.weight"))
        weight = v * state[f"{name}.weight_g"] / v.norm(dim=(1, 2), keepdim=True) if f"{name}.weight_g" in state else v
        return F.conv1d(x, weight, state[f"{name}.bias"], **options)

    x = wave.unfold(1, config.group, config.group).transpose(1, 2)
    if config.net == "dilated":
        cond = F.conv_transpose1d(mel, state["upsample.weight"], state["upsample.bias"], 256)[..., : wave.shape[1]]
        cond = cond.unfold(2, config.group, config.group).permute(0, 1, 3, 2).flatten(1, 2)
    else:
        cond = F.interpolate(mel, scale_factor=256 // config.group)
    gone, log_det = [], 0
    for flow in range(config.flows):
        net, channels = f"WN.{flow}.", config.channels(flow)
        gone.append(x[:, : x.shape[1] - channels])
        x = F.conv1d(x[:, -channels:], state[f"convinv.{flow}.conv.weight"])
        log_det = log_det + x.shape[2] * torch.linalg.slogdet(state[f"convinv.{flow}.conv.weight"][:, :, 0]).logabsdet
        h, skips = conv(net + "start", x[:, : channels // 2]), 0
        given = conv(net + "cond_layer", cond).chunk(config.layers, dim=1)
        for layer in range(config.layers):
            inside = f"{net}in_layers.{layer}"
            if config.net == "dilated":
                both = conv(inside, h, padding=config.kernel_size // 2 * 2**layer, dilation=2**layer)
            else:
                norm = [state[f"{inside}.0.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
                both = conv(inside + ".1", F.batch_norm(h, *norm), padding=config.kernel_size // 2, groups=config.width)
                both = conv(inside + ".2", both)
            filter, gate = (both + given[layer]).chunk(2, dim=1)
            both = conv(f"{net}res_skip_layers.{layer}", torch.tanh(filter) * torch.sigmoid(gate))
            skips = skips + both[:, -config.width :]
            if config.net == "separable" or layer < config.layers - 1:
                h = h + both[:, : config.width]
        shift, log_scale = conv(net + "end", skips if config.net == "dilated" else h).chunk(2, dim=1)
        x = torch.cat([x[:, : channels // 2], x[:, channels // 2 :] * torch.exp(log_scale) + shift], dim=1)
        log_det = log_det + log_scale.sum(dim=(1, 2))
    return torch.cat([*gone, x], dim=1), log_det


def glow_spelled(state, how):
    if how == "weight norm multiplied out":
        state = dict(state)
        for key in [key for key in state if key.endswith("weight_v")]:
            v, g = state.pop(key), state.pop(key[:-1] + "g")
            state[key[:-2]] = v * g / v.norm(dim=(1, 2), keepdim=True)
    if how == "a cond_layer per layer":
        layers = 1 + max(int(key.split(".")[3]) for key in state if key.startswith("WN.0.res_skip_layers"))
        split = {}
        for key, value in state.items():
            parts = value.chunk(layers) if ".cond_layer." in key else [value]
            split |= {key.replace(".cond_layer.", f".cond_layers.{i}."): part for i, part in enumerate(parts)}
        return split
    return spelled(state, how)


@torch.no_grad()
@pytest.mark.parametrize("how", [
    "weight_g and weight_v", "module.", "parametrizations", "weight norm multiplied out", "a cond_layer per layer",
])
@pytest.mark.parametrize("name", GLOWS)
def test_glows_are_read_as_they_are(name, how):
    config = GLOWS[name]
    state = published_glow(config)
    found = load_published(glow_spelled(state, how))
    assert found.config == config and (found.n_mels, found.hop_length) == (4, 256)
    wave, mel = torch.randn(2, 1280).double(), torch.randn(2, 4, 5).double()
    noise, log_det = found.encode(wave, mel)
    expected, expected_log_det = what_theirs_computes(state, config, wave, mel)
    torch.testing.assert_close(noise, expected.transpose(1, 2).flatten(1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det.sum(dim=1), expected_log_det, rtol=1e-9, atol=1e-9)


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
    assert "wants to run posix.system" in refusal(path) and not (tmp_path / "hostile-file-was-run").exists()
    path.write_text("text")
    assert str(path) in refusal(path)
    torch.save([1, 2], path)
    assert "holds no state dict" in refusal(path)
    torch.save(shake(FloWaveNet(CONFIG, 4, 8)).state_dict(), path)
    assert "not of a model known here" in refusal(path)
    missing = published()
    del missing["blocks.1.flows.0.actnorm.loc"]
    assert "weights are missing" in refusal(missing)
    few = {key: value for key, value in published().items() if "skip_conv" not in key}
    assert "weights are missing" in refusal(few) and len(refusal(few)) < 600
    glow = published_glow(GLOWS["SqueezeWave"])
    del glow["WN.3.end.bias"]
    assert "looks like a SqueezeWave, but weights are missing" in refusal(glow) and "WN.3.end.bias" in refusal(glow)
    glow = published_glow(GLOWS["WaveGlow"])
    glow["WN.1.start.weight_v"] = torch.randn(8, 7, 1)
    assert "size mismatch" in refusal(glow)
