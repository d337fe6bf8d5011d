"""Nets keep lengths, for any hop, and start where they should."""

import pytest
import torch
from conftest import shake

from flowavenet.nets import DynamicFilterNet, FrameNet, MelEncoder, MelUpsampler, WaveNet, steps


def assert_reach_is_exact(net, x, cond):
    """A change at one frame touches just the frames that ``reach`` says can see it."""
    place = x.shape[-1] // 2
    changed = x.clone()
    changed[..., place] += 1
    touched = (net(x, cond) - net(changed, cond)).abs().amax(dim=(0, 1)).nonzero().flatten()
    left, right = net.reach()
    assert place - right == touched.min() and touched.max() == place + left


@pytest.mark.parametrize("hop", [1, 2, 3, 7, 64, 200, 256, 257, 275, 300, 512])
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_upsampler_gives_one_column_per_sample(hop, frames):
    assert MelUpsampler(hop)(torch.randn(2, 6, frames)).shape == (2, 6, hop * frames)


@pytest.mark.parametrize("hop", [15, 16, 256, 275])
def test_upsampler_does_not_look_beyond_its_reach(hop):
    upsampler = MelUpsampler(hop).double()
    mel = torch.randn(1, 6, 21, dtype=torch.float64)
    changed = mel.clone()
    changed[..., 10] += 1
    touched = (upsampler(mel) - upsampler(changed)).abs().amax(dim=(0, 1)).nonzero().flatten()
    reach = upsampler.reach()
    assert touched.min() // hop >= 10 - reach and touched.max() // hop <= 10 + reach


def test_wavenet_starts_at_zero_and_keeps_the_length():
    net = WaveNet(3, 6, 4, layers=3, width=8)
    out = net(torch.randn(2, 3, 17), torch.randn(2, 4, 17))
    assert out.shape == (2, 6, 17) and not out.any()


@pytest.mark.parametrize("hop", [7, 12, 15, 256, 275])
def test_upsampler_starts_as_interpolation(hop):
    """A constant stays constant, between frames the value lies between theirs, and no band leaks into another."""
    upsampler = MelUpsampler(hop)
    mel = torch.ones(1, 5, 9)
    inside = slice(2 * hop, -2 * hop)
    torch.testing.assert_close(upsampler(mel)[..., inside], torch.ones(1, 5, 5 * hop))
    mel[:, 2] = torch.arange(1.0, 10.0)
    out = upsampler(mel)
    assert (out[0, 2, inside].diff() >= -1e-6).all()
    torch.testing.assert_close(out[0, [1, 3]][:, inside], torch.ones(2, 5 * hop))


@pytest.mark.parametrize("kernel_size, causal", [(5, False), (5, True), (2, True)])
def test_frame_net_starts_at_zero_and_does_not_look_beyond_its_reach(kernel_size, causal):
    net = FrameNet(3, 6, 4, layers=2, width=8, kernel_size=kernel_size, causal=causal).double()
    assert net.reach()[1] == 0 or not causal
    x, cond = torch.randn(1, 3, 30, dtype=torch.float64), torch.randn(1, 4, 31, dtype=torch.float64)
    assert not net(x, cond).any()
    torch.nn.init.normal_(net.last.weight)
    assert_reach_is_exact(net, x, cond)
    with pytest.raises(ValueError, match="odd"):
        FrameNet(3, 6, 4, layers=2, width=8, kernel_size=4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("steps", [21, 42, 33])
def test_mel_encoder_keeps_the_mel_and_does_not_look_beyond_its_reach(steps, causal):
    encoder = MelEncoder(5, 7, causal=causal).double()
    mel = torch.randn(1, 5, 21, dtype=torch.float64)
    assert encoder(mel, steps).shape == (1, 12, steps)
    torch.testing.assert_close(encoder(mel, 21)[:, :5], mel)
    changed = mel.clone()
    changed[..., 10] += 1
    touched = (encoder(mel, steps) - encoder(changed, steps)).abs().amax(dim=(0, 1)).nonzero().flatten()
    left, right = encoder.reach()
    between = steps != 21
    assert touched.min() * 21 // steps >= 10 - right - between and touched.max() * 21 // steps <= 10 + left + between


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("frames", [2, 4])
def test_dynamic_filters_are_weighted_sums_over_the_frames_around(frames, causal):
    """shift[k, t] = s[k, t] + sum over frames i and bands j of bounded w x[k + j, t + i], against plain loops."""
    spread, channels, time = 2, 5, 9
    sizes = {"frames": frames, "spread": spread, "layers": 1, "width": 8, "kernel_size": 3, "causal": causal}
    net = DynamicFilterNet(channels, 4, **sizes).double()
    x, cond = torch.randn(1, channels, time, dtype=torch.float64), torch.randn(1, 4, time, dtype=torch.float64)
    assert not net(x, cond).any()
    torch.nn.init.normal_(net.net.last.weight)
    last = 0 if causal else frames // 2
    neighbours = torch.arange(time)[:, None] + torch.arange(last + 1 - frames, last + 1)
    inside = (neighbours >= 0) & (neighbours < time)
    around = x[0][:, neighbours.clamp(0, time - 1)] * inside               # (channels, time, frames)
    amounts = net.net(around.permute(2, 0, 1).reshape(1, -1, time), cond)[0]
    weights = 2 * torch.tanh(amounts[2 * channels :] / 2).reshape(frames, 2 * spread + 1, channels, time)
    expected = amounts[:channels].clone()
    for i in range(frames):
        for j in range(-spread, spread + 1):
            for k in range(max(0, -j), min(channels, channels - j)):
                expected[k] += weights[i, j + spread, k] * around[k + j, :, i]
    got = net(x, cond)[0]
    torch.testing.assert_close(got[:channels], expected)
    torch.testing.assert_close(got[channels:], amounts[channels : 2 * channels])


@pytest.mark.parametrize("causal", [False, True])
def test_dynamic_filter_net_does_not_look_beyond_its_reach(causal):
    net = DynamicFilterNet(3, 4, frames=4, layers=2, width=8, kernel_size=3, causal=causal).double()
    torch.nn.init.normal_(net.net.last.weight)
    x, cond = torch.randn(1, 3, 30, dtype=torch.float64), torch.randn(1, 4, 30, dtype=torch.float64)
    assert_reach_is_exact(net, x, cond)
    with pytest.raises(ValueError, match="even"):
        DynamicFilterNet(3, 4, frames=3, layers=1, width=8, kernel_size=3)


@pytest.mark.parametrize("block", [1024, 16])
def test_steps_are_the_net(block, monkeypatch):
    """One time step after the other gives what all at once give, gradients too."""
    monkeypatch.setattr(steps, "BLOCK", block)
    sizes = {"layers": 3, "stacks": 2, "width": 8, "gate_width": 6, "skip_width": 4, "kernel_size": 2, "front_size": 5}
    net = shake(WaveNet(3, 5, 7, causal=True, **sizes).double(), 0.3)
    x, cond = torch.randn(2, 3, 40, dtype=torch.float64), torch.randn(2, 7, 40, dtype=torch.float64)
    weights, found = list(net.parameters()), []

    def stepped(x, cond):
        steps, pieces = net.steps(), []
        for start, stop in ((0, 7), (7, 40)):
            steps.condition(cond[..., start:stop])
            pieces += [steps(step) for step in x[..., start:stop].unbind(2)]
        return torch.stack(pieces, dim=2)

    for run in (net, stepped):
        result = run(x, cond)
        found.append([result, *torch.autograd.grad(result.sin().sum(), weights)])
    for whole, by_steps in zip(*found, strict=True):
        torch.testing.assert_close(by_steps, whole, rtol=1e-11, atol=1e-12)


def test_steps_need_a_causal_net():
    with pytest.raises(ValueError, match="causal = True"):
        WaveNet(1, 1, 1).steps()
