"""What every model promises: exact likelihood, exact inversion, any length, gradients everywhere."""

import math

import pytest
import torch
from conftest import shake

from flowavenet.models import MODELS, SQUEEZEWAVE_128_256, FloWaveNet, FloWaveNetConfig, WaveGlow, WaveGlowConfig, build
from flowavenet.transforms import PitchPrediction

SMALL = {"blocks": 3, "flows": 2, "width": 16, "blocks_per_split": 2}
GLOW = {"flows": 3, "early_every": 1, "layers": 2, "width": 16}
SQUEEZED = GLOW | {"group": 4, "early_every": 2, "net": "separable"}
LAPPED = {"bands": 8, "steps": 2, "layers": 2, "width": 16, "cond_width": 8, "cond_layers": 2, "filter_spread": 1}
PITCHED = {
    "subbands": 4, "bins": 8, "octaves": [1, 2, 4], "radial_bins": [4, 2], "encoder_width": 12, "encoder_layers": 1,
    "width": [8, 8], "layers": [1, 2], "fold": 2, "low_fold": 2, "low_width": 8, "low_layers": 1, "sample_rate": 8000.0,
    "f_max": 4000.0,
}
DILATED = {"layers": 2, "width": 6, "gate_width": 5, "skip_width": 4, "front_size": 3}
ROWS = {"rows": 8, "flows": 4, "layers": 2, "width": 8}
# label -> (name in MODELS, config, hop length)
VARIANTS = {
    "two scales": ("flowavenet", SMALL, 8),
    "single scale": ("flowavenet", SMALL | {"blocks_per_split": 3}, 8),
    "three scales": ("flowavenet", SMALL | {"blocks_per_split": 1}, 8),
    "odd flows": ("flowavenet", SMALL | {"blocks": 4, "flows": 3, "blocks_per_split": 1}, 16),
    "full conditioning": ("flowavenet", SMALL | {"conditioning": "full"}, 8),
    "pooled conditioning": ("flowavenet", SMALL | {"conditioning": "pooled"}, 8),
    "additive": ("flowavenet", SMALL | {"coupling": "additive"}, 8),
    "causal": ("flowavenet", SMALL | {"causal": True}, 8),
    "dilation 3": ("flowavenet", SMALL | {"dilation_base": 3, "layers": 3}, 8),
    "growing, limited": ("flowavenet", SMALL | {"width_growth": 1.5, "log_scale_limit": 1.0}, 8),
    "lapflow": ("lapflow", LAPPED, 8),
    "lapflow, with details": ("lapflow", LAPPED | {"detail_steps": 2, "detail_width": 8}, 8),
    "lapflow, one level": ("lapflow", LAPPED | {"levels": 1, "filter_frames": 4}, 8),
    "lapflow, no levels": ("lapflow", LAPPED | {"levels": 0, "log_scale_limit": None}, 8),
    "lapflow, without filters": ("lapflow", LAPPED | {"filter_spread": None, "window": "kbd"}, 8),
    "lapflow, time squeeze": ("lapflow", LAPPED | {"window": "none"}, 8),
    "lapflow, causal": ("lapflow", LAPPED | {"causal": True, "levels": 1, "kernel_size": 2}, 8),
    "lapflow, three levels": ("lapflow", LAPPED | {"bands": 4, "levels": 3}, 8),
    "lapflow, finer than the mel": ("lapflow", LAPPED | {"bands": 4, "layers": 1}, 8),
    "lapflow, hop of another rate": ("lapflow", LAPPED | {"layers": 1}, 12),
    "lapflow2": ("lapflow2", PITCHED, 32),
    "speakers, lapflow2": ("lapflow2", PITCHED | {"speakers": 3, "speaker_width": 5}, 32),
    "speakers, halved": ("flowavenet", SMALL | {"speakers": 3, "speaker_width": 5}, 8),
    "speakers, full": ("flowavenet", SMALL | {"conditioning": "full", "speakers": 3, "speaker_width": 2}, 8),
    "speakers, pooled": ("flowavenet", SMALL | {"conditioning": "pooled", "speakers": 3, "speaker_width": 2}, 8),
    "speakers, lapflow": ("lapflow", LAPPED | {"speakers": 3, "speaker_width": 5}, 8),
    "wavenet": ("wavenet", DILATED, 8),
    "wavenet, logistics": ("wavenet", DILATED | {"head": "logistics", "mixtures": 3, "gain": 5.0}, 8),
    "wavenet, mulaw": ("wavenet", DILATED | {"head": "mulaw", "speakers": 3, "speaker_width": 2}, 8),
    "gaussian_iaf": ("gaussian_iaf", DILATED | {"stacks": [1, 2], "speakers": 3, "speaker_width": 2}, 8),
    "parallel_wavenet": ("parallel_wavenet", DILATED | {"stacks": [1, 1], "gain": 5.0}, 8),
    "waveflow": ("waveflow", ROWS, 8),
    "waveflow, speakers": ("waveflow", ROWS | {"rows": 4, "flows": 6, "speakers": 3, "speaker_width": 2}, 12),
    "waveflow, far rows": ("waveflow", ROWS | {"rows": 32, "flows": 2, "layers": 3}, 32),
    "waveglow": ("waveglow", GLOW, 8),
    "waveglow, hop of another rate": ("waveglow", GLOW | {"early_size": 0, "log_scale_limit": 1.0, "kernel_size": 5}, 12),
    "squeezewave": ("waveglow", SQUEEZED, 8),
    "squeezewave, one group per frame": ("waveglow", SQUEEZED | {"early_every": 1, "group": 8}, 8),
    "squeezewave, many groups per frame": ("waveglow", SQUEEZED | {"flows": 2}, 32),
    "speakers, waveglow": ("waveglow", GLOW | {"speakers": 3, "speaker_width": 5}, 8),
    "hop of no power of two": ("flowavenet", SMALL, 15),
    "prime hop": ("flowavenet", SMALL, 7),
}


@pytest.fixture(params=VARIANTS)
def model(request):
    name, config, hop = VARIANTS[request.param]
    return shake(build(name, config, n_mels=4, hop_length=hop).double().eval(), 0.05)


def pair(model, frames=4, batch=2, cut=0):
    """A wave and what goes with it: a mel, and the speakers if the model has any."""
    wave = torch.randn(batch, frames * model.hop_length - cut, dtype=torch.float64)
    return wave, *given(model, frames, batch)


def given(model, frames, batch, dtype=torch.float64):
    mel, speakers = torch.randn(batch, model.n_mels, frames, dtype=dtype), model.config.speakers
    return [mel, 1 + torch.arange(batch) % (speakers - 1)] if speakers else [mel]


@pytest.mark.parametrize("cut", [0, 1, 3, 6])
def test_encode_and_decode_are_inverse_at_any_length(model, cut):
    wave, *given = pair(model, cut=cut)
    noise, log_det = model.encode(wave, *given)
    assert noise.shape == log_det.shape == wave.shape
    assert (model.decode(noise, *given) - wave).abs().max() < 1e-9


@pytest.mark.parametrize("cut", [0, 5])
def test_log_prob_is_the_density(model, cut):
    """log p(x) = log N(f(x)) + log|det df/dx|, with the determinant of the autograd Jacobian."""
    wave, *given = pair(model, frames=2, batch=1, cut=cut)
    samples = wave.shape[1]
    jacobian = torch.autograd.functional.jacobian(lambda v: model.encode(v, *given)[0], wave).reshape(samples, samples)
    noise = model.encode(wave, *given)[0]
    expected = -0.5 * (noise.square().sum() + samples * math.log(2 * math.pi)) + torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(model.log_prob(wave, *given)[0], expected, rtol=1e-9, atol=1e-9)


def test_batch_is_one_by_one(model):
    both = pair(model)
    torch.testing.assert_close(model.log_prob(*both)[1:], model.log_prob(*(part[1:] for part in both)))


def test_gradients_reach_every_weight(model):
    model.train()
    model.log_prob(*pair(model)).sum().backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not without


@pytest.mark.parametrize("tile", [2048, 7])
def test_gradients_in_constant_memory_are_the_same(model, tile, monkeypatch):
    monkeypatch.setattr("flowavenet.nets.base.CHECKPOINT_TILE", tile)
    both = pair(model.train(), frames=8)
    found = []
    for model.constant_memory in (False, True):
        found.append(torch.autograd.grad(model.log_prob(*both).sum(), list(model.parameters())))
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-9 * max(1, wanted.abs().max().item()))


def kept_bytes(name, config, constant_memory):
    """Bytes that autograd keeps between a forward pass and its backward pass, weights and the mel's encoder aside."""
    model = shake(build(name, config, n_mels=4, hop_length=8).double())
    model.constant_memory = constant_memory
    aside, kept = {weight.data_ptr() for weight in model.parameters()}, 0
    wave, mel = pair(model, frames=64)
    model.log_prob(wave, mel)                                          # ActNorm is initialised
    cond = model.condition(mel).detach()
    model.condition = lambda _: cond

    def count(tensor):
        nonlocal kept
        kept += tensor.nbytes if tensor.data_ptr() not in aside else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model.log_prob(wave, mel)
    return kept


@pytest.mark.parametrize("name, config, deeper, couplings", [
    ("flowavenet", SMALL, {"flows": 6}, 12), ("lapflow", LAPPED, {"steps": 8}, 6),
    ("waveglow", GLOW | {"group": 16}, {"flows": 6}, 3), ("waveglow", SQUEEZED | {"group": 8}, {"flows": 6}, 3),
    ("waveflow", ROWS, {"flows": 8}, 4),
])
def test_constant_memory_does_not_grow_with_the_nets(name, config, deeper, couplings):
    """However wide they are. A further coupling costs a few signals, of which each has a number per sample."""
    plain, plain_wider = (kept_bytes(name, c, False) for c in (config, config | {"width": 64}))
    constant, wider, longer = (kept_bytes(name, c, True) for c in (config, config | {"width": 64}, config | deeper))
    signal = 2 * 64 * 8 * 8                                            # bytes: batch, frames, hop, float64
    assert plain_wider > 1.4 * plain and constant == wider < plain / 4
    assert longer - constant <= 12 * signal * couplings


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_sample_has_hop_times_frames_and_follows_the_seed(model, frames):
    mel, *speaker = given(model, frames, batch=2)

    def draw(seed, temperature=0.7):
        return model.sample(mel, temperature, torch.Generator().manual_seed(seed), *speaker)

    assert draw(0).shape == (2, frames * model.hop_length)
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    assert torch.equal(draw(0, 0.0), draw(1, 0.0))


def test_context_beyond_the_receptive_field_changes_nothing(model):
    """What chunked synthesis rests on: a chunk with so many frames of context equals that part of the whole."""
    reach, hop = max(model.receptive_field), model.hop_length
    if model.sequential == "decode" or any(isinstance(part, PitchPrediction) for part in model.modules()):
        return                                                         # it hears all that came before; see test_streaming
    # whole groups only, so that chunks are squeezed as the whole is
    step = math.lcm(model.group, hop) // hop
    context = -(-reach // step) * step
    noise, mel, *speaker = pair(model, frames=2 * context + step, batch=1)
    further, longer = torch.randn(1, step * hop).double(), torch.randn(1, 4, step).double()
    middle = slice(context * hop, (context + step) * hop)
    whole = model.decode(torch.cat([further, noise, further], 1), torch.cat([longer, mel, longer], 2), *speaker)
    chunk = model.decode(noise, mel, *speaker)
    shifted = whole[:, step * hop : -step * hop]
    torch.testing.assert_close(chunk[:, middle], shifted[:, middle], rtol=0, atol=1e-12)


def test_starts_near_the_identity_and_one_step_initialises(speech):
    model = FloWaveNet(FloWaveNetConfig(blocks=3, flows=2, width=8), n_mels=4, hop_length=8).train()
    wave, mel = speech[:, : 8 * 100], torch.randn(1, 4, 100)
    noise, _ = model.encode(wave, mel)
    assert abs(noise.std() - 1) < 0.05


class TestErrors:
    def test_what_the_published_code_silently_inverts_wrongly(self):
        with pytest.raises(ValueError, match="blocks = 3 and flows = 5 are both odd"):
            FloWaveNetConfig(blocks=3, flows=5)

    @pytest.mark.parametrize("bad", [{"coupling": "spline"}, {"conditioning": "none"}])
    def test_unknown_choices(self, bad):
        with pytest.raises(ValueError, match="known are"):
            FloWaveNetConfig(**bad)

    @pytest.mark.parametrize("name, bad, message", [
        ("wavenet", {"head": "cauchy"}, "known are gaussian"), ("wavenet", {"head": "mulaw", "gain": 2.0}, "gain is 2.0"),
    ])
    def test_settings_of_autoregression(self, name, bad, message):
        with pytest.raises(ValueError, match=message):
            build(name, bad, 80, 256)

    def test_unknown_model_and_setting(self):
        with pytest.raises(ValueError, match="'melgan' is not known; known are"):
            build("melgan", {}, 80, 256)
        with pytest.raises(ValueError, match="no setting 'n_flow'"):
            build("flowavenet", {"n_flow": 6}, 80, 256)

    @pytest.mark.parametrize("bad, says", [
        ({"group": 9}, "a coupling 9 channels"), ({"flows": 20}, "a coupling 0 channels: it needs an even number"),
        ({"early_size": 1}, "group = 8 less early_size = 1 every 4 of 12 steps leaves a coupling 7 channels"),
        ({"early_every": 0}, "early_every is 0"), ({"net": "dense"}, "known are dilated, separable"),
    ])
    def test_glows_that_run_out_of_channels(self, bad, says):
        with pytest.raises(ValueError, match=says):
            WaveGlowConfig(**bad)

    def test_group_across_frames(self):
        with pytest.raises(ValueError, match="hop_length is 300, no multiple of group = 128"):
            WaveGlow(SQUEEZEWAVE_128_256, hop_length=300)

    def test_odd_bands_with_halved_conditioning(self):
        with pytest.raises(ValueError, match="n_mels is 81"):
            build("flowavenet", SMALL, 81, 8)

    def test_shapes_that_do_not_belong_together(self, model):
        wave, mel, *_ = pair(model)
        with pytest.raises(ValueError, match=r"5, 4\), this model wants \(batch, 4, frames\)|want"):
            model.log_prob(wave, torch.randn(2, 5, 4).double())
        with pytest.raises(ValueError, match="transpose it"):
            model.log_prob(wave, torch.randn(2, 7, 4).double())
        with pytest.raises(ValueError, match="2 x 3 frames"):
            model.log_prob(wave, mel[..., :3])
        with pytest.raises(ValueError, match=r"wave\[None\]"):
            model.log_prob(wave[0], mel)
        with pytest.raises(ValueError, match="0 frames"):
            model.sample(mel[..., :0])


def test_every_model_has_a_variant_here():
    assert {name for name, _, _ in VARIANTS.values()} == set(MODELS)


def test_published_sizes():
    def weights(model, config):
        with torch.device("meta"):                                     # shapes alone
            return sum(p.numel() for p in model(config).parameters())

    # Published counts include the residual branch of the last layer of each WaveNet, which nothing reads:
    # 256 x 256 weights, 256 biases and 256 gains for each of 48 couplings, and of the prior.
    unread = 256 * 256 + 2 * 256
    assert weights(FloWaveNet, FloWaveNetConfig()) == 182_644_788 - 49 * unread
    assert weights(FloWaveNet, FloWaveNetConfig(blocks_per_split=8)) == 181_129_876 - 48 * unread
    assert weights(WaveGlow, WaveGlowConfig()) == 87_879_272
    # theirs has a factor, an offset, a mean and a variance for each channel of each layer, folded away here
    assert weights(WaveGlow, SQUEEZEWAVE_128_256) == 23_714_336 - 12 * 8 * 256 * 4


def test_float32_round_trip_of_published_sizes_on_real_speech(speech):
    """After training steps, so that couplings are no longer the identity."""
    from flowavenet.audio import MelSettings, MelSpectrogram

    wave = speech[:, 4096 : 4096 + 256 * 4]
    mel = MelSpectrogram(MelSettings())(wave)
    model = FloWaveNet().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(2):
        loss = -model.log_prob(wave, mel).mean() / wave.shape[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with torch.no_grad():
        noise, _ = model.eval().encode(wave, mel)
        assert (model.decode(noise, mel) - wave).abs().max() < 1e-3
