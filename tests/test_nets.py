"""Nets compute their formulas, whole or in tiles, see as far as they say, and start where they should."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import shake
from torch.nn.utils.parametrize import is_parametrized

from flowavenet import nets
from flowavenet.nets import (
    CondHalf,
    CondWhole,
    DynamicFilterNet,
    FrameNet,
    GlowNet,
    MelEncoder,
    MelUpsampler,
    RowNet,
    SeparableNet,
    TimeConv,
    WaveNet,
    base,
    conv,
    steps,
    winograd,
)

CLOSE = {"rtol": 1e-11, "atol": 1e-11}
NETS = {  # how to build it, in_channels, cond_channels, out_channels
    "wavenet": (lambda: WaveNet(3, 6, 4, layers=3, width=8), 3, 4, 6),
    "wavenet, other widths": (
        lambda: WaveNet(2, 5, 4, layers=2, stacks=2, width=8, gate_width=6, skip_width=4, front_size=5, dilation_base=3),
        2, 4, 5,
    ),
    "causal wavenet": (lambda: WaveNet(3, 6, 4, layers=3, width=8, kernel_size=2, front_size=4, causal=True), 3, 4, 6),
    "glownet": (lambda: GlowNet(3, 6, 4, layers=3, width=8, kernel_size=5), 3, 4, 6),
    "glownet of one layer": (lambda: GlowNet(3, 6, 4, layers=1, width=8, kernel_size=3), 3, 4, 6),
    "separable net": (lambda: SeparableNet(3, 6, 4, layers=3, width=8, kernel_size=5), 3, 4, 6),
    "frame net": (lambda: FrameNet(3, 6, 4, layers=2, width=8, kernel_size=5), 3, 4, 6),
    "causal frame net": (lambda: FrameNet(3, 6, 4, layers=2, width=8, kernel_size=2, causal=True), 3, 4, 6),
    "dynamic filters": (lambda: DynamicFilterNet(3, 4, frames=4, layers=2, width=8, kernel_size=3), 3, 4, 6),
    "causal dynamic filters": (lambda: DynamicFilterNet(3, 4, layers=2, width=8, kernel_size=3, causal=True), 3, 4, 6),
    "no filters": (lambda: DynamicFilterNet(3, 4, spread=None, layers=1, width=8, kernel_size=3), 3, 4, 6),
    "rownet": (lambda: RowNet(8, 3, layers=3, width=6), 8, 24, 14),
    "rownet of 32 rows": (lambda: RowNet(32, 2, layers=2, width=6), 32, 64, 62),
}
TIME = 60
every_net = pytest.mark.parametrize("name", NETS)


def make(name, time=TIME, batch=2, dtype=torch.float64):
    """A net with lively weights and something to give it."""
    build, in_channels, cond_channels, _ = NETS[name]
    x, cond = torch.randn(batch, time, in_channels), torch.randn(batch, time + 1, cond_channels)
    return shake(build().to(dtype), 0.3), x.to(dtype), cond.to(dtype)


# -- what every net does --


@every_net
@pytest.mark.parametrize("time", [1, 2, TIME])
def test_starts_at_zero_and_keeps_the_length(name, time):
    build, in_channels, cond_channels, out_channels = NETS[name]
    out = build()(torch.randn(2, time, in_channels), torch.randn(2, time, cond_channels))
    assert out.shape == (2, time, out_channels) and out.dtype == torch.float32 and not out.any()


@every_net
def test_any_strides_give_the_same_contiguous_result(name):
    net, x, cond = make(name)
    wanted = net(x, cond)
    assert wanted.is_contiguous() and wanted.std() > 0.01
    torch.testing.assert_close(net(x.mT.contiguous().mT, cond.mT.contiguous().mT), wanted, **CLOSE)
    torch.testing.assert_close(net(x, cond[:, :TIME]), wanted, rtol=0, atol=0)


@every_net
@pytest.mark.parametrize("batch", [1, 2])
def test_tiles_are_the_whole(name, batch, monkeypatch):
    net, x, cond = make(name, 150, batch)
    wanted = net(x, cond)
    monkeypatch.setattr(base, "TILE", 7)
    seen, tile = [], net.tile
    monkeypatch.setattr(net, "tile", lambda x, cond: (seen.append(x.shape[1]), tile(x, cond))[1])
    torch.testing.assert_close(net(x, cond), wanted, **CLOSE)
    assert len(seen) > 1


@every_net
def test_receptive_field_is_exact(name):
    net, x, cond = make(name)
    (left, right), place = net.receptive_field, TIME // 2
    changed = x.clone()
    changed[:, place] += 1
    touched = (net(x, cond) - net(changed, cond)).abs().amax(dim=(0, 2)).nonzero().flatten()
    assert place - right == touched.min() and touched.max() == place + left
    assert right == 0 or "causal" not in name


@every_net
@pytest.mark.parametrize("tile", [2048, 7])
def test_gradients_in_constant_memory_are_the_plain_ones(name, tile, monkeypatch):
    monkeypatch.setattr(base, "CHECKPOINT_TILE", tile)
    net, x, cond = make(name, 150)
    inputs = [x.requires_grad_(), cond.requires_grad_(), *net.parameters()]
    found = []
    for net.checkpointed in (False, True):
        result = net(x, cond)
        found.append([result, *torch.autograd.grad(result.sin().sum(), inputs)])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-9, atol=1e-9)


def test_constant_memory_keeps_no_activations():
    net, x, cond = make("wavenet", 500)
    sizes = []

    def kept(tensor):
        sizes.append(tensor.numel() if 500 in tensor.shape else 0)
        return tensor

    for net.checkpointed in (False, True):
        sizes.clear()
        with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
            net(x, cond)
        assert (sum(sizes) > 20 * x.numel()) != net.checkpointed


@every_net
def test_gradients_are_right(name):
    net, x, cond = make(name, 6, 1)
    x.requires_grad_()
    cond.requires_grad_()
    assert torch.autograd.gradcheck(net, (x, cond), fast_mode=True)


@every_net
def test_weights_in_half_precision_take_wide_signals(name):
    net, x, cond = make(name, dtype=torch.float32)
    wanted = net(x, cond)
    with torch.autocast("cpu", torch.bfloat16):
        cast = net(x, cond)
    for rounded in (net.to(torch.bfloat16)(x, cond), cast):
        assert rounded.dtype == torch.float32
        assert 0 < (rounded - wanted).std() < 0.05 * wanted.std()


@torch.no_grad()
@every_net
def test_removing_weight_norm_changes_nothing_but_the_weights_form(name):
    net, x, cond = make(name)
    wanted, twin = net(x, cond), copy.deepcopy(net)
    nets.remove_weight_norm(twin)
    assert not any(map(is_parametrized, twin.modules())) and all("parametriz" not in key for key in twin.state_dict())
    torch.testing.assert_close(twin(x, cond), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net(x, cond), wanted, rtol=0, atol=0)   # the other copy is as it was
    nets.remove_weight_norm(net)
    torch.testing.assert_close(net(x, cond), wanted, rtol=1e-12, atol=1e-12)
    for part in net.modules():
        if isinstance(part, TimeConv):
            assert part.weight.unsqueeze(2).is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@every_net
def test_weights_load_with_and_without_weight_norm(name):
    """Whatever the file and the net have; and what does not fit is told."""
    net, x, cond = make(name)
    wanted, folded = net(x, cond), copy.deepcopy(net)
    nets.remove_weight_norm(folded)
    for state in (net.state_dict(), folded.state_dict()):
        state = {key: value.contiguous() for key, value in state.items()}   # as files have them
        for plain in (False, True):
            fresh = NETS[name][0]().double()
            if plain:
                nets.remove_weight_norm(fresh)
            strides = [weight.stride() for weight in fresh.parameters()]
            nets.load_weights(fresh, state)
            torch.testing.assert_close(fresh(x, cond), wanted, rtol=1e-12, atol=1e-12)
            assert [weight.stride() for weight in fresh.parameters()] == strides
            bias = next(key for key in state if key.endswith("bias"))
            with pytest.raises(RuntimeError, match=f'Missing key.*"{bias}"'):
                nets.load_weights(fresh, {key: value for key, value in state.items() if key != bias})
            with pytest.raises(RuntimeError, match='Unexpected key.*"other.weight"'):
                nets.load_weights(fresh, {**state, "other.weight": torch.zeros(1)})


@torch.no_grad()
@every_net
def test_exported_graph_takes_any_length(name):
    net, x, cond = make(name)
    cond = cond[:, :TIME].contiguous()
    nets.remove_weight_norm(net)
    time = torch.export.Dim("time", min=4, max=8192)
    program = torch.export.export(net, (x, cond), dynamic_shapes=({1: time}, {1: time})).module()
    _, x, cond = make(name, 5000)
    cond = cond[:, :5000].contiguous()
    torch.testing.assert_close(program(x, cond), net(x, cond), **CLOSE)


# -- the formulas --


def gated(both):
    filter, gate = both.chunk(2, dim=1)
    return torch.tanh(filter) * torch.sigmoid(gate)


def wavenet(net, x, cond):
    def convolve(x, conv):
        span = (conv.kernel_size[0] - 1) * conv.dilation[0]
        x = F.pad(x, (span, 0) if net.causal else (span // 2, span // 2))
        return F.conv1d(x, conv.weight, conv.bias, dilation=conv.dilation)

    h, skips = F.relu(convolve(x, net.front.conv)), 0
    for i, dilated in enumerate(net.dilated):
        g = gated(convolve(h, dilated.conv) + convolve(cond, net.conditioning[i]))
        skips = skips + convolve(g, net.skip[i])
        if i < len(net.residual):
            h = (h + convolve(g, net.residual[i])) * 0.5**0.5
    return convolve(F.relu(convolve(F.relu(skips), net.post)), net.last) * torch.exp(3 * net.scale)


def apply(conv, x):
    """A centred convolution of (batch, channels, time)."""
    span = (conv.kernel_size[0] - 1) * conv.dilation[0]
    return F.conv1d(x, conv.weight, conv.bias, padding=span // 2, dilation=conv.dilation, groups=conv.groups)


def glownet(net, x, cond):
    h, skips = apply(net.start, x), 0
    given = apply(net.conditioning, cond).chunk(len(net.dilated), dim=1)
    for dilated, of_cond, onward in zip(net.dilated, given, net.onward, strict=True):
        both = apply(onward, gated(apply(dilated.conv, h) + of_cond))
        skips = skips + both[:, -8:]
        h = h + both[:, :8] if both.shape[1] > 8 else h
    return apply(net.end, skips)


def separable_net(net, x, cond):
    h = apply(net.start, x)
    given = apply(net.conditioning, cond).chunk(len(net.depthwise), dim=1)
    for depthwise, pointwise, of_cond, residual in zip(net.depthwise, net.pointwise, given, net.residual, strict=True):
        h = h + apply(residual, gated(apply(pointwise, apply(depthwise, h)) + of_cond))
    return apply(net.end, h)


def frame_net(net, x, cond):
    h = apply(net.front, x) + apply(net.conditioning, cond)
    for depthwise, pointwise, residual in zip(net.depthwise, net.pointwise, net.residual, strict=True):
        if depthwise.causal:
            before = F.pad(h, (depthwise.kernel_size[0] - 1, 0))
            seen = F.conv1d(before, depthwise.weight, depthwise.bias, groups=depthwise.groups)
        else:
            seen = apply(depthwise, h)
        h = h + apply(residual, gated(apply(pointwise, seen)))
    return apply(net.last, F.relu(h))


def row_net(net, x, cond):
    picture = x[:, None, :-1]                                              # (batch, 1, rows - 1, columns)
    cond = cond.unflatten(1, (net.rows, -1)).transpose(1, 2)[:, :, 1:]     # (batch, cond_channels, rows - 1, columns)
    h, skips = F.conv2d(picture, net.front.weight, net.front.bias), 0
    for dilated, conditioning, onward in zip(net.dilated, net.conditioning, net.onward, strict=True):
        down, along = dilated.dilation
        above = F.pad(h, (along, along, 2 * down, 0))
        both = gated(
            F.conv2d(above, dilated.weight, dilated.bias, dilation=(down, along))
            + F.conv2d(cond, conditioning.weight, conditioning.bias)
        )
        both = F.conv2d(both, onward.weight, onward.bias)
        skips = skips + both[:, -6:]
        h = h + both[:, :6] if both.shape[1] > 6 else h
    return F.conv2d(skips, net.last.weight, net.last.bias).flatten(1, 2)


FORMULAS = {
    "wavenet": wavenet, "wavenet, other widths": wavenet, "causal wavenet": wavenet, "glownet": glownet,
    "glownet of one layer": glownet, "separable net": separable_net, "frame net": frame_net, "causal frame net": frame_net,
    "rownet": row_net, "rownet of 32 rows": row_net,
}


@torch.no_grad()
@pytest.mark.parametrize("name", FORMULAS)
def test_computes_its_formula(name):
    net, x, cond = make(name)
    wanted = FORMULAS[name](net, x.mT, cond[:, :TIME].mT).mT
    torch.testing.assert_close(net(x, cond), wanted, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("frames", [2, 4])
def test_dynamic_filters_are_weighted_sums_over_the_frames_around(frames, causal):
    """shift[t, k] = s[t, k] + sum over frames i and bands j of bounded w x[t + i, k + j], against plain loops."""
    spread, channels, time = 2, 5, 9
    sizes = {"frames": frames, "spread": spread, "layers": 1, "width": 8, "kernel_size": 3, "causal": causal}
    net = shake(DynamicFilterNet(channels, 4, **sizes).double(), 0.5)
    x, cond = torch.randn(1, time, channels, dtype=torch.float64), torch.randn(1, time, 4, dtype=torch.float64)
    last = 0 if causal else frames // 2
    neighbours = torch.arange(time)[:, None] + torch.arange(last + 1 - frames, last + 1)
    inside = (neighbours >= 0) & (neighbours < time)
    around = x[0][neighbours.clamp(0, time - 1)] * inside[..., None]       # (time, frames, channels)
    parameters = net.net(around.flatten(1)[None], cond)[0]
    weights = 2 * torch.tanh(parameters[:, 2 * channels :] / 2).reshape(time, frames, 2 * spread + 1, channels)
    expected = parameters[:, :channels].clone()
    for i in range(frames):
        for j in range(-spread, spread + 1):
            for k in range(max(0, -j), min(channels, channels - j)):
                expected[:, k] += weights[:, i, j + spread, k] * around[:, i, k + j]
    got = net(x, cond)[0]
    torch.testing.assert_close(got[:, :channels], expected)
    torch.testing.assert_close(got[:, channels:], parameters[:, channels : 2 * channels])


@torch.no_grad()
@pytest.mark.parametrize("few", [0, 1000])
def test_pointwise_convolutions_in_half_precision_are_products(few, monkeypatch):
    monkeypatch.setattr(conv, "FEW", few)
    pointwise, x = TimeConv(64, 32).to(torch.bfloat16), torch.randn(2, 9, 64).to(torch.bfloat16)
    wanted = F.linear(x.float(), pointwise.weight[:, :, 0].float(), pointwise.bias.float())
    torch.testing.assert_close(pointwise(x).float(), wanted, rtol=0.02, atol=0.02)


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dilation, time", [(1, 1000), (2, 1001), (4, 3003), (64, 1000)])
def test_three_taps_with_fewer_products(dilation, time, causal, monkeypatch):
    """Winograd's way is as exact as the plain one."""
    convolution, x = TimeConv(64, 96, 3, dilation=dilation, causal=causal), torch.randn(2, time, 64)
    monkeypatch.setattr(winograd, "AVX2", False)
    plain, exact = convolution(x), copy.deepcopy(convolution).double()(x.double())
    monkeypatch.setattr(winograd, "AVX2", True)
    assert winograd.pays(conv.picture(x), convolution.weight)
    fewer = convolution(x)
    assert not torch.equal(fewer, plain)
    assert (fewer - exact).abs().max() < 3e-6 * exact.abs().max()


def test_odd_sizes_are_refused():
    with pytest.raises(ValueError, match="kernel_size is 4; a centred convolution needs an odd one"):
        FrameNet(3, 6, 4, layers=2, width=8, kernel_size=4)
    with pytest.raises(ValueError, match="frames is 3; .* even"):
        DynamicFilterNet(3, 4, frames=3, layers=1, width=8, kernel_size=3)


def test_half_of_the_conditioning():
    net, x, cond = make("wavenet")
    cond = torch.stack([cond, cond + 1], dim=1)
    for half in (0, 1):
        of_half = CondHalf(net, half)
        torch.testing.assert_close(of_half(x, cond), net(x, cond[:, half]), rtol=0, atol=0)
        assert of_half.receptive_field == net.receptive_field
    net, whole = WaveNet(3, 6, 8), torch.cat([cond[:, 0], cond[:, 1]], dim=2)
    torch.testing.assert_close(CondWhole(net)(x.float(), cond.float()), net(x.float(), whole.float()), rtol=0, atol=0)


# -- step by step --


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("block", [1024, 16])
def test_steps_are_the_net(block, folded, monkeypatch):
    """One time step after the other gives what all at once give, gradients too."""
    monkeypatch.setattr(steps, "BLOCK", block)
    sizes = {"layers": 3, "stacks": 2, "width": 8, "gate_width": 6, "skip_width": 4, "kernel_size": 2, "front_size": 5}
    net = shake(WaveNet(3, 5, 7, causal=True, **sizes).double(), 0.3)
    if folded:
        nets.remove_weight_norm(net)
    x, cond = torch.randn(2, 40, 3, dtype=torch.float64), torch.randn(2, 40, 7, dtype=torch.float64)
    weights, found = list(net.parameters()), []

    def stepped(x, cond):
        steps, pieces = net.steps(), []
        for start, stop in ((0, 7), (7, 40)):
            steps.condition(cond[:, start:stop])
            pieces += [steps(step) for step in x[:, start:stop].unbind(1)]
        return torch.stack(pieces, dim=1)

    for run in (net, stepped):
        result = run(x, cond)
        found.append([result, *torch.autograd.grad(result.sin().sum(), weights)])
    for whole, by_steps in zip(*found, strict=True):
        torch.testing.assert_close(by_steps, whole, rtol=1e-11, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(stepped(x, cond), found[0][0], **CLOSE)


def test_steps_need_a_causal_net():
    with pytest.raises(ValueError, match="causal = True"):
        WaveNet(1, 1, 1).steps()


@pytest.mark.parametrize("rows, layers, columns", [(2, 1, 5), (8, 3, 9), (16, 2, 1), (32, 4, 9), (64, 5, 3)])
def test_row_by_row_is_all_at_once(rows, layers, columns):
    net = shake(RowNet(rows, 3, layers=layers, width=6).double())
    x, cond = torch.randn(2, columns, rows).double(), torch.randn(2, columns, 3 * rows).double()
    inputs, found = [x.requires_grad_(), cond.requires_grad_(), *net.parameters()], []

    def stepped(x, cond):
        steps = net.steps(cond)
        pieces = [steps(row) for row in x[..., :-1].split(1, dim=2)]       # (batch, columns, 2) each
        return torch.stack(pieces, dim=3).flatten(2)

    for run in (net, stepped):
        result = run(x, cond)
        found.append([result, *torch.autograd.grad(result.sin().sum(), inputs)])
    assert found[0][0].shape == (2, columns, 2 * (rows - 1)) and found[0][0].std() > 0.01
    for whole, by_steps in zip(*found, strict=True):
        torch.testing.assert_close(by_steps, whole, rtol=0, atol=1e-10)


# -- reading the mel --


@torch.no_grad()
@pytest.mark.parametrize("hop", [1, 2, 3, 7, 64, 200, 256, 257, 275, 300, 512])
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_upsampler_gives_one_column_per_sample(hop, frames):
    upsampler, mel = shake(MelUpsampler(hop)), torch.randn(2, 6, frames)
    out = upsampler(mel)
    assert out.shape == (2, hop * frames, 6) and out.is_contiguous()
    wanted = mel[:, None]
    for layer in upsampler.layers:
        wanted = F.leaky_relu(
            F.conv_transpose2d(wanted, layer.weight, layer.bias, stride=layer.stride, padding=layer.padding), 0.4
        )
    torch.testing.assert_close(out, wanted[:, 0].mT)


@pytest.mark.parametrize("hop", [15, 16, 256, 275])
def test_upsampler_does_not_look_beyond_its_receptive_field(hop):
    upsampler = MelUpsampler(hop).double()
    mel = torch.randn(1, 6, 21, dtype=torch.float64)
    changed = mel.clone()
    changed[..., 10] += 1
    touched = (upsampler(mel) - upsampler(changed)).abs().amax(dim=(0, 2)).nonzero().flatten()
    left, right = upsampler.receptive_field
    assert touched.min() // hop >= 10 - right and touched.max() // hop <= 10 + left


@pytest.mark.parametrize("hop", [7, 12, 15, 256, 275])
def test_upsampler_starts_as_interpolation(hop):
    """A constant stays constant, between frames the value lies between theirs, and no band leaks into another."""
    upsampler = MelUpsampler(hop)
    mel = torch.ones(1, 5, 9)
    inside = slice(2 * hop, -2 * hop)
    torch.testing.assert_close(upsampler(mel)[:, inside], torch.ones(1, 5 * hop, 5))
    mel[:, 2] = torch.arange(1.0, 10.0)
    out = upsampler(mel)
    assert (out[0, inside, 2].diff() >= -1e-6).all()
    torch.testing.assert_close(out[0, inside][:, [1, 3]], torch.ones(5 * hop, 2))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("steps", [21, 42, 33])
def test_mel_encoder_keeps_the_mel_and_does_not_look_beyond_its_receptive_field(steps, causal):
    encoder = MelEncoder(5, 7, causal=causal).double()
    mel = torch.randn(1, 5, 21, dtype=torch.float64)
    assert encoder(mel, steps).shape == (1, steps, 12) and encoder(mel, steps).is_contiguous()
    torch.testing.assert_close(encoder(mel, 21)[..., :5], mel.mT)
    changed = mel.clone()
    changed[..., 10] += 1
    touched = (encoder(mel, steps) - encoder(changed, steps)).abs().amax(dim=(0, 2)).nonzero().flatten()
    left, right = encoder.receptive_field
    between = steps != 21
    assert touched.min() * 21 // steps >= 10 - right - between and touched.max() * 21 // steps <= 10 + left + between
    if not between:
        assert touched.min() == 10 - right and touched.max() == min(10 + left, 20)
