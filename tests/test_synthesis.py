"""The fast twin of a model renders what the model renders, for every model, dtype, tiling and layout."""

import pytest
import torch
from conftest import shake
from test_models import VARIANTS, given

from flowavenet import Vocoder
from flowavenet.audio import MelSettings
from flowavenet.models import build
from flowavenet.models.synthesis import for_synthesis
from flowavenet.nets import DynamicFilterNet, FrameNet, GlowNet, SeparableNet, WaveNet, fast


def make(name, dtype=torch.float64):
    model, config, hop = VARIANTS[name]
    return shake(build(model, config, n_mels=4, hop_length=hop), 0.05).to(dtype).eval()


def inputs(model, frames=19, batch=2):
    dtype = next(model.parameters()).dtype
    noise = torch.randn(batch, model.whole_frames(frames) * model.hop_length, dtype=dtype)
    return noise, *given(model, frames, batch, dtype)


@torch.no_grad()
@pytest.mark.parametrize("tile", [4000, 7])
@pytest.mark.parametrize("name", VARIANTS)
def test_twin_renders_the_same(name, tile, monkeypatch):
    monkeypatch.setattr(fast, "TILE", tile)
    model = make(name)
    noise, *given = inputs(model)
    wanted = model.render(noise, *given)
    assert (wanted - noise[:, : wanted.shape[1]]).abs().max() > 0.1        # the nets do something
    torch.testing.assert_close(for_synthesis(model, torch.float64).render(noise, *given), wanted, rtol=1e-11, atol=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("name", VARIANTS)
def test_twin_in_other_precisions(name):
    model = make(name, torch.float32)
    noise, *given = inputs(model)
    wanted = model.render(noise, *given)
    assert (for_synthesis(model, torch.float32).render(noise, *given) - wanted).abs().max() < 1e-4 * wanted.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = for_synthesis(model, torch.bfloat16).render(noise, *given)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - wanted).std() < 0.03 * wanted.std()


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("time", [1, 2, 30])
def test_fast_nets_are_the_nets(causal, time):
    nets = (
        WaveNet(3, 6, 4, layers=3, width=8, causal=causal, kernel_size=2 + (not causal)),
        FrameNet(3, 6, 4, layers=2, width=8, kernel_size=5, causal=causal),
        DynamicFilterNet(3, 4, frames=4, layers=2, width=8, kernel_size=3, causal=causal),
    )
    x, cond = torch.randn(2, 3, time, dtype=torch.float64), torch.randn(2, 4, time, dtype=torch.float64)
    for net in nets:
        net = shake(net.double(), 0.3)
        wanted = net(x, cond)
        assert wanted.abs().max() > 0.01
        torch.testing.assert_close(net.fast(torch.float64)(x, cond), wanted, rtol=1e-11, atol=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("net", [GlowNet, SeparableNet])
@pytest.mark.parametrize("layers, time", [(1, 1), (3, 2), (3, 30)])
def test_fast_glow_nets_are_the_nets(net, layers, time):
    net = net(3, 6, 4, layers=layers, width=8, kernel_size=5).double()
    x, cond = torch.randn(2, 3, time, dtype=torch.float64), torch.randn(2, 4, time, dtype=torch.float64)
    assert not net(x, cond).any()                                      # a coupling starts as the identity
    wanted = shake(net, 0.3)(x, cond)
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(net.fast(torch.float64)(x, cond), wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["two scales", "lapflow"])
def test_vocoder_follows_its_weights(name):
    """A copy that is laid out for speed must not outlive the weights it was taken from."""
    model = make(name, torch.float32)
    settings = MelSettings(sample_rate=8000, n_fft=32, win_length=32, hop_length=8, n_mels=4, f_max=4000.0)
    vocoder = Vocoder(model, settings)
    mel = torch.randn(1, 4, 20)
    before = vocoder(mel, seed=0, match=0)
    assert torch.equal(vocoder(mel, seed=0, match=0), before)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.log_prob(torch.randn(1, 160) / 10, mel).sum().backward()
    optimizer.step()
    after = vocoder(mel, seed=0, match=0)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, Vocoder(model, settings)(mel, seed=0, match=0))
    vocoder.double()
    assert vocoder(mel.double(), seed=0, match=0).dtype == torch.float64


def test_everything_may_happen_in_inference_mode(tiny):
    """Weights that are made there have no version to look at."""
    mel = torch.randn(1, 80, 9)
    with torch.inference_mode():
        for source in (tiny, "lapflow-stream-22k"):
            assert torch.isfinite(Vocoder.from_pretrained(source)(mel, seed=0)).all()
