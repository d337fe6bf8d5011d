"""From a published checkpoint to a voice: every family, from the command line, and one line for what cannot be."""

import hashlib
import sys
import types

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from test_interop import CONFIG, GLOWS, published, published_glow

from flowavenet import Vocoder
from flowavenet.audio import convention
from flowavenet.checkpoint import load_checkpoint
from flowavenet.interop import load_published
from flowavenet.models import FloWaveNetConfig, IAFConfig, WaveGlowConfig, WaveNetConfig

pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")


def published_clarinet(home="", width=4, gate=6, skip=5, kernel=2, n_mels=4, strides=()):
    """Random weights under the names and shapes of the authors' code: one WaveNet, and an upsampler."""
    state = {}

    def conv(name, out, inside, *kernel):
        state[f"{name}.weight_v"] = torch.randn(out, inside, *kernel)
        state[f"{name}.weight_g"] = 0.7 + 0.1 * torch.randn(out, *[1] * (1 + len(kernel)))
        state[f"{name}.bias"] = 0.05 * torch.randn(out)

    conv(home + "front_conv.0.conv", width, 1, 8)
    for layer in range(10):
        block = f"{home}res_blocks.{layer}."
        for name in ("filter", "gate"):
            conv(f"{block}{name}_conv.conv", gate, width, kernel)
            conv(f"{block}{name}_conv_c", gate, n_mels, 1)
        conv(block + "res_conv", width, gate, 1)
        conv(block + "skip_conv", skip, gate, 1)
    conv(home + "final_conv.1.conv", skip, skip, 1)
    conv(home + "final_conv.3.conv", 2, skip, 1)
    for layer, stride in enumerate(strides):
        conv(f"upsample_conv.{2 * layer}", 1, 1, 3, 2 * stride)
    return state


def student():
    return published_clarinet("iafs.0.", kernel=3) | published_clarinet("iafs.1.", kernel=3)


CLARINET = {"layers": 10, "width": 4, "gate_width": 6, "skip_width": 5, "front_size": 8}
FAMILIES = {
    "FloWaveNet": (published, 8, CONFIG),
    "FloWaveNet, single scale": (
        lambda: published(FloWaveNetConfig(blocks=2, flows=2, width=8, blocks_per_split=2)), 8,
        FloWaveNetConfig(blocks=2, flows=2, width=8, blocks_per_split=2),
    ),
    "WaveGlow": (lambda: published_glow(GLOWS["WaveGlow"]), 256, GLOWS["WaveGlow"]),
    "SqueezeWave": (lambda: published_glow(GLOWS["SqueezeWave"]), 256, GLOWS["SqueezeWave"]),
    "ClariNet teacher": (lambda: published_clarinet(strides=(4, 2)), 8, WaveNetConfig(stacks=1, kernel_size=2, **CLARINET)),
    "ClariNet student": (student, 8, IAFConfig(stacks=(1, 1), kernel_size=3, **CLARINET)),
}


def mels(folder, hop):
    """The file of a convention for small mels, and one such mel."""
    fields = {"sample_rate": 8000, "n_fft": 4 * hop, "win_length": 4 * hop, "hop_length": hop, "n_mels": 4, "f_max": 4000}
    (folder / "mel.yaml").write_text(yaml.safe_dump(fields))
    np.save(folder / "a.npy", np.random.default_rng(0).standard_normal((4, 20)).astype(np.float32))
    return folder / "mel.yaml"


@torch.no_grad()
@pytest.mark.parametrize("form", ["pt", "safetensors"])
@pytest.mark.parametrize("name", FAMILIES)
def test_converted_and_heard(name, form, flowavenet, tmp_path):
    make, hop, config = FAMILIES[name]
    state, family = {key: value.contiguous() for key, value in make().items()}, name.split(",")[0]
    path = tmp_path / f"theirs.{form}"
    save_file(state, path) if form == "safetensors" else torch.save({"state_dict": state, "global_step": 7}, path)
    teacher = []
    if "student" in name:
        torch.save({"state_dict": published_clarinet(strides=(4, 2))}, tmp_path / "teacher.pth")
        teacher = ["--teacher", tmp_path / "teacher.pth"]
    out = tmp_path / "ours"
    code, said, complaint = flowavenet("convert", path, "-o", out, "--mel", mels(tmp_path, hop), *teacher)
    assert code == 0, complaint
    assert said.count("\n") == 2 and said.startswith(family) and "M weights" in said and f"hop {hop}" in said
    vocoder = Vocoder.from_pretrained(out)
    assert vocoder.model.config == config and vocoder.settings.hop_length == hop
    assert vocoder.facts["family"] == family and vocoder.facts["converted_from"] == path.name
    assert vocoder.facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    direct, saved = load_published(path, *teacher[1:]).float().state_dict(), load_checkpoint(out)[0].state_dict()
    assert all(torch.equal(value, direct[key]) for key, value in saved.items())
    code, _, complaint = flowavenet("vocode", tmp_path / "a.npy", "-o", tmp_path, "--checkpoint", out)
    assert code == 0 and (tmp_path / "a.wav").stat().st_size == 44 + 2 * 20 * hop, complaint


@pytest.mark.parametrize("state, mel, temperature", [
    (lambda: published(n_mels=80, strides=(16, 16)), "flowavenet", 0.8),
    (lambda: published_glow(WaveGlowConfig(group=8, flows=2, layers=1, width=8), n_mels=80), "tacotron2", 0.6),
    (lambda: published_glow(GLOWS["SqueezeWave"], n_mels=80), "tacotron2", 0.6),
    (lambda: published_clarinet(n_mels=80, strides=(16, 16)), "flowavenet", 1.0),
], ids=["FloWaveNet", "WaveGlow", "SqueezeWave", "ClariNet"])
def test_each_family_has_its_authors_mel_and_temperature(state, mel, temperature, flowavenet, tmp_path):
    torch.save(state(), tmp_path / "theirs.pt")
    assert flowavenet("convert", tmp_path / "theirs.pt", "-o", tmp_path / "ours")[0] == 0
    vocoder = Vocoder.from_pretrained(tmp_path / "ours")
    assert vocoder.settings == convention(mel) and vocoder.synthesis["temperature"] == temperature


def test_a_whole_pickled_waveglow(flowavenet, tmp_path, monkeypatch):
    """As its authors save it: the module itself, of a class that nobody here has, before torch had its zip format."""
    theirs = types.ModuleType("glow")

    class WaveGlow(torch.nn.Module):
        pass

    WaveGlow.__module__, WaveGlow.__qualname__, theirs.WaveGlow = "glow", "WaveGlow", WaveGlow
    monkeypatch.setitem(sys.modules, "glow", theirs)
    state, model = published_glow(GLOWS["WaveGlow"]), WaveGlow()
    for key, value in state.items():
        module = model
        *homes, name = key.split(".")
        for home in homes:
            if home not in module._modules:
                module.add_module(home, WaveGlow())
            module = module._modules[home]
        module.register_parameter(name, torch.nn.Parameter(value))
    path = tmp_path / "waveglow_256channels.pt"
    optimizer = torch.optim.Adam(model.parameters()).state_dict()
    content = {"model": model.half(), "iteration": 5, "optimizer": optimizer, "learning_rate": 1e-4}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    del sys.modules["glow"]
    code, said, _ = flowavenet("convert", path, "-o", tmp_path / "ours", "--mel", mels(tmp_path, 256))
    assert code == 0 and said.startswith("WaveGlow, ") and "glow" not in sys.modules
    expected = load_published({key: value.half() for key, value in state.items()}).float().state_dict()
    found = load_checkpoint(tmp_path / "ours")[0].state_dict()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


def test_what_cannot_be_converted_is_one_line(flowavenet, tmp_path):
    out, mel = tmp_path / "ours", mels(tmp_path, 8)

    def refusal(state, *words):
        torch.save(state, tmp_path / "theirs.pt")
        code, said, complaint = flowavenet("convert", tmp_path / "theirs.pt", "-o", out, *words)
        assert code == 2 and not said and complaint.count("\n") == 1 and not out.exists()
        return complaint

    assert "4 bands, one per 8 samples" in refusal(published()) and "--mel" in refusal(published())
    assert "no mel convention" in refusal(published(), "--mel", "hifi")
    assert "teacher's checkpoint" in refusal(student(), "--mel", mel)
    torch.save(published_glow(GLOWS["WaveGlow"]), tmp_path / "glow.pt")
    assert "no ClariNet teacher" in refusal(student(), "--mel", mel, "--teacher", tmp_path / "glow.pt")
    assert "leave the teacher out" in refusal(published(), "--mel", mel, "--teacher", tmp_path / "glow.pt")
    broken = published()
    broken["blocks.0.flows.0.actnorm.loc"][0, 0] = torch.nan
    assert "not finite" in refusal(broken, "--mel", mel)
    code, _, complaint = flowavenet("convert", tmp_path / "gone.pt", "-o", out)
    assert code == 2 and "gone.pt: no such file" in complaint


def test_a_folder_is_replaced_only_by_force(flowavenet, tmp_path):
    mel, out = mels(tmp_path, 8), tmp_path / "ours"
    torch.save(published(), tmp_path / "a.pt")
    words = ["convert", tmp_path / "a.pt", "-o", out, "--mel", mel]
    out.mkdir()
    assert flowavenet(*words)[0] == 0                                  # an empty one is as good as none
    before = (out / "model.safetensors").read_bytes()
    torch.save(published(), tmp_path / "a.pt")
    code, _, complaint = flowavenet(*words)
    assert code == 2 and "--force" in complaint and (out / "model.safetensors").read_bytes() == before
    assert flowavenet(*words, "--force")[0] == 0 and (out / "model.safetensors").read_bytes() != before
    code, _, complaint = flowavenet(*words[:3], tmp_path / "a.pt", "--force")
    assert code == 2 and "name a folder" in complaint
