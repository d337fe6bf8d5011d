"""What every transform promises: it keeps the shape, it inverts, and its log-det is that of its Jacobian."""

import multiprocessing
import socket

import numpy as np
import pytest
import torch
from conftest import shake

from flowavenet.nets import CondHalf, CondWhole, DynamicFilterNet, Net, RowNet, TimeConv, WaveNet
from flowavenet.transforms import (
    MDCT,
    ActNorm,
    AdditiveCoupling,
    Affine,
    AffineCoupling,
    Autoregressive,
    Chain,
    ConditionalAffine,
    ConditionalScale,
    FactorOut,
    Gaussian,
    Interleave,
    Inverse,
    InvertibleConv1x1,
    LogisticMixture,
    LogisticNoise,
    MuLaw,
    Octaves,
    PitchPrediction,
    RadialStretch,
    ReverseGroups,
    RowAutoregressive,
    Scaled,
    Squeeze,
    State,
    Subbands,
    SwapHalves,
    Transform,
    pool_cond,
    squeeze,
    squeeze_cond,
    unsqueeze,
)


def net(channels, out=None, cond=3, **options):
    return WaveNet(channels // 2, out or channels, cond, layers=2, width=8, **options)


def coupling(channels=4, **options):
    return AffineCoupling(net(channels, **options))


def dynamic(channels=2, cond=6, **options):
    return AffineCoupling(DynamicFilterNet(channels, cond, spread=1, layers=1, width=8, kernel_size=3, **options), limit=2.0)


def lifted(frames=2):
    """Two levels of frames predicted from their neighbours, as lapflow nests them."""
    inside = Chain(dynamic(cond=12, frames=frames), FactorOut(InvertibleConv1x1(2), (0, 2)))
    return Interleave(2, Chain(dynamic(frames=frames), FactorOut(Interleave(2, inside), (0, 2))))


def picture(rows, layers=2):
    return Squeeze(rows, RowAutoregressive(RowNet(rows, 3, layers=layers, width=6)))


def nested(n_mels=3):
    """Two scales with a learned prior, as FloWaveNet nests them."""
    inside = Chain(ActNorm(4), AffineCoupling(net(4, cond=4 * n_mels)))
    kept = Squeeze(2, Chain(ActNorm(2), InvertibleConv1x1(2)))
    split = Chain(AffineCoupling(net(2, cond=2 * n_mels)), FactorOut(kept, (0, 1)))
    return Squeeze(2, Chain(ActNorm(2), SwapHalves(AffineCoupling(net(2, cond=2 * n_mels))), Squeeze(2, inside), split))


def autoregressive(head):
    sizes = {"layers": 2, "stacks": 2, "width": 6, "gate_width": 5, "skip_width": 4, "kernel_size": 2, "front_size": 3}
    return Autoregressive(WaveNet(head.channels, head.size, 3, causal=True, **sizes), head)


class Halved(Transform):
    """A coupling that is given the conditioning in two halves, as FloWaveNet's are."""

    def __init__(self, coupling):
        super().__init__(coupling.receptive_field)
        self.coupling = coupling

    def forward(self, x, cond):
        return self.coupling(x, self.halves(cond))

    def inverse(self, z, cond, state=None):
        return self.coupling.inverse(z, self.halves(cond), state)

    @staticmethod
    def halves(cond):
        return cond[..., :2].unflatten(-1, (2, -1)).transpose(1, 2)


class Given(Transform):
    """A head, its parameters read off the conditioning."""

    def __init__(self, head):
        super().__init__()
        self.head, self.net = head, TimeConv(3, head.size)

    def forward(self, x, cond):
        parameters, x = self.net(cond), x.squeeze(1)
        z = self.head.to_noise(x, parameters)
        return z.to(x.dtype).unsqueeze(1), self.head.log_slope(x, z, parameters)

    def inverse(self, z, cond, state=None):
        parameters, z = self.net(cond), z.squeeze(1)
        x = self.head.from_noise(z, parameters)
        return x.to(z.dtype).unsqueeze(1), -self.head.log_slope(x, z, parameters)


HOP, TAPS = 8, 19


class Framed(Transform):
    """The inner transform with a conditioning of one column a frame."""

    def __init__(self, inner, hop=HOP):
        super().__init__(inner.receptive_field, inner.forward_receptive_field)
        self.inner, self.hop = inner, hop

    def forward(self, x, cond):
        return self.inner(x, cond[:, :: self.hop])

    def inverse(self, z, cond, state=None):
        return self.inner.inverse(z, cond[:, :: self.hop], state)


class Weights(torch.nn.Module):
    """Stable weights of the past, off the conditioning."""

    def __init__(self, channels):
        super().__init__()
        self.channels, self.net = channels, TimeConv(3, channels * TAPS)

    def forward(self, cond):
        return 0.9 * torch.softmax(3 * self.net(cond[..., :3]).unflatten(-1, (self.channels, TAPS)), dim=-1)


class Finer(torch.nn.Module):
    """What a net says of a frame, repeated for each of its samples."""

    receptive_field = (0, 0)

    def __init__(self, conditioning, channels, hop=HOP):
        super().__init__()
        self.net, self.hop = TimeConv(conditioning, channels), hop

    def forward(self, cond):
        return self.net(cond.to(self.net.weight.dtype)).repeat_interleave(self.hop, dim=1)


def pitch(channels=2):
    return PitchPrediction(Weights(channels), HOP, TAPS)


def octaves():
    """Two channels predicted from their past, then one given both."""
    affine = ConditionalAffine(Finer(3 + 2 * HOP, 2))
    return Octaves([pitch(), affine], [2, 1], HOP, [(0, 0), (0, 0)])


# name -> (transform, channels of x, time of x, whether its conditioning is on the time grid of x)
TRANSFORMS = {
    "ActNorm": lambda: (ActNorm(4), 4, 6),
    "InvertibleConv1x1": lambda: (InvertibleConv1x1(4), 4, 6),
    "AffineCoupling": lambda: (coupling(), 4, 6),
    "AffineCoupling limited": lambda: (AffineCoupling(net(4), limit=0.5), 4, 6),
    "AffineCoupling causal": lambda: (coupling(causal=True), 4, 6),
    "AffineCoupling half conditioned": lambda: (Halved(AffineCoupling(CondHalf(net(4, cond=1), 1))), 4, 6),
    "AffineCoupling with both halves": lambda: (Halved(AffineCoupling(CondWhole(net(4, cond=2)))), 4, 6),
    "AdditiveCoupling": lambda: (AdditiveCoupling(net(4, out=2)), 4, 6),
    "ConditionalScale": lambda: (ConditionalScale(TimeConv(3, 4)), 4, 6),
    "Scaled": lambda: (Scaled(10.0, coupling()), 4, 6),
    "Inverse": lambda: (Inverse(coupling()), 4, 6),
    "SwapHalves": lambda: (SwapHalves(coupling()), 4, 6),
    "FactorOut": lambda: (FactorOut(coupling(), (1, 5)), 6, 6),
    "Squeeze": lambda: (Squeeze(3, coupling(6, cond=9)), 2, 9),
    "Squeeze pooled": lambda: (Squeeze(3, coupling(6), bring=pool_cond), 2, 9),
    "Squeeze ragged": lambda: (Squeeze(4, coupling(4, cond=12)), 1, 11),
    "MDCT": lambda: (MDCT(4, coupling(4, cond=12)), 1, 16),
    "MDCT, another window": lambda: (MDCT(4, coupling(4, cond=12), "kbd"), 1, 16),
    "MDCT stereo": lambda: (MDCT(4, coupling(8, cond=12)), 2, 12),
    "MDCT one group": lambda: (MDCT(8, coupling(8, cond=24)), 1, 8),
    "MDCT ragged": lambda: (MDCT(4, coupling(4, cond=12)), 1, 15),
    "MDCT twice": lambda: (Chain(MDCT(4, coupling(4, cond=12)), MDCT(2, coupling(2, cond=6))), 1, 16),
    "Chain": lambda: (Chain(ActNorm(4), SwapHalves(coupling()), InvertibleConv1x1(4), coupling()), 4, 6),
    "nested": lambda: (nested(), 1, 18),
    "Interleave": lambda: (Interleave(3, coupling(6, cond=9)), 2, 9),
    "Interleave ragged": lambda: (Interleave(2, dynamic()), 2, 7),
    "lifted": lambda: (lifted(), 2, 12),
    "lifted, four frames": lambda: (lifted(frames=4), 2, 10),
    "Gaussian": lambda: (Given(Gaussian()), 1, 7),
    "Affine": lambda: (Given(Affine()), 1, 7),
    "LogisticMixture": lambda: (Given(LogisticMixture(3)), 1, 7),
    "MuLaw": lambda: (Given(MuLaw(8)), 1, 7),
    "LogisticNoise": lambda: (LogisticNoise(), 1, 7),
    "Autoregressive": lambda: (autoregressive(Gaussian()), 1, 9),
    "Autoregressive, mixture": lambda: (autoregressive(LogisticMixture(2)), 1, 9),
    "Autoregressive, mu-law": lambda: (autoregressive(MuLaw(16)), 1, 9),
    "Autoregressive, inverse": lambda: (Inverse(autoregressive(Affine())), 1, 9),
    "RowAutoregressive": lambda: (picture(4), 1, 18),
    "RowAutoregressive, far rows": lambda: (picture(32, layers=3), 1, 64),
    "RowAutoregressive, inverse": lambda: (Inverse(picture(4)), 1, 12),
    "ReverseGroups": lambda: (ReverseGroups(3, coupling()), 4, 11),
    "ReverseGroups rows": lambda: (Chain(picture(4), ReverseGroups(4, picture(4)), ReverseGroups(2, picture(4))), 1, 15),
    "PitchPrediction": lambda: (Framed(pitch()), 2, 4 * HOP),
    "PitchPrediction, one frame": lambda: (Framed(pitch()), 2, HOP),
    "RadialStretch": lambda: (RadialStretch(TimeConv(3, 4), 3), 6, 7),
    "ConditionalAffine": lambda: (ConditionalAffine(TimeConv(3, 4)), 2, 7),
    "Octaves": lambda: (Framed(octaves()), 3, 3 * HOP),
    "Subbands": lambda: (Subbands(2, HOP, pitch()), 2 * HOP, 3),
    "Subbands in an MDCT, ragged": lambda: (Framed(MDCT(2 * HOP, Subbands(2, HOP, pitch())), 2 * HOP), 1, 4 * 2 * HOP + 3),
}


def make(name, batch=2, dtype=torch.float64):
    transform, channels, time = TRANSFORMS[name]()
    shake(transform.to(dtype).eval())
    return transform, torch.randn(batch, channels, time, dtype=dtype), torch.randn(batch, time, 3, dtype=dtype)


@pytest.fixture(params=TRANSFORMS)
def name(request):
    return request.param


def test_shape_is_kept_and_log_det_is_told_along_time(name):
    transform, x, cond = make(name)
    for run in (transform, transform.inverse):
        z, log_det = run(x, cond)
        assert z.shape == x.shape and log_det.shape == (2, x.shape[2])


def test_inverse_undoes_forward(name):
    transform, x, cond = make(name)
    z, log_det = transform(x, cond)
    again, back = transform.inverse(z, cond)
    assert (again - x).abs().max() < 1e-9
    assert (log_det + back).abs().max() < 1e-9


def test_log_det_is_the_jacobian(name):
    transform, x, cond = make(name, batch=1)
    for run in (transform, transform.inverse):
        jacobian = torch.autograd.functional.jacobian(lambda v, run=run: run(v, cond)[0], x)
        expected = torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet
        torch.testing.assert_close(run(x, cond)[1].sum(), expected, rtol=1e-9, atol=1e-9)


def gradients(transform, x, cond):
    transform.zero_grad()
    x, cond = x.clone().requires_grad_(), cond.clone().requires_grad_()
    z, log_det = transform(x, cond)
    weighted = (z * torch.linspace(-1, 2, z.numel(), dtype=z.dtype).view_as(z)).sin().sum()
    (weighted + (log_det * torch.linspace(1, 3, log_det.numel(), dtype=z.dtype).view_as(log_det)).sum()).backward()
    weights = {key: weight.grad for key, weight in transform.named_parameters()}
    return z.detach(), log_det.detach(), {"x": x.grad, "cond": cond.grad} | weights


@pytest.mark.parametrize("tile", [2048, 8])
def test_gradients_in_constant_memory_are_the_same(name, tile, monkeypatch):
    monkeypatch.setattr("flowavenet.nets.base.CHECKPOINT_TILE", tile)
    transform, x, cond = make(name)
    z, log_det, expected = gradients(transform, x, cond)
    for part in transform.modules():
        if isinstance(part, Net):
            part.checkpointed = True
    again, log_det_again, got = gradients(transform, x, cond)
    torch.testing.assert_close((again, log_det_again), (z, log_det), rtol=1e-12, atol=1e-12)
    for key, grad in expected.items():
        if grad is None:
            assert got[key] is None or not got[key].any(), key
        else:
            torch.testing.assert_close(got[key], grad, rtol=1e-8, atol=1e-9 * max(1, grad.abs().max().item()), msg=key)


def test_items_of_a_batch_do_not_meet(name):
    transform, x, cond = make(name)
    z, log_det = transform(x, cond)
    alone, log_det_alone = transform(x[1:], cond[1:])
    torch.testing.assert_close(z[1:], alone)
    torch.testing.assert_close(log_det[1:], log_det_alone)


RECURRENT = [
    "Autoregressive", "Autoregressive, mixture", "Autoregressive, mu-law", "PitchPrediction", "PitchPrediction, one frame",
    "Octaves", "Subbands", "Subbands in an MDCT, ragged",
]


def test_inverse_does_not_look_beyond_its_receptive_field(name):
    if name in RECURRENT:
        pytest.skip("it remembers all that came before; see test_windows_with_a_state_are_the_whole")
    transform, channels, _ = TRANSFORMS[name]()
    shake(transform.double().eval())
    time, place = 240, 117
    z, cond = torch.randn(1, channels, time).double(), torch.randn(1, time, 3).double()
    left, right = transform.receptive_field
    changed = z.clone()
    changed[:, :, place] += 1.0
    difference = (transform.inverse(z, cond)[0] - transform.inverse(changed, cond)[0]).abs().amax(dim=(0, 1))
    touched = difference.nonzero().flatten()
    # what sample t needs up to `left` samples back and `right` ahead is touched by a change at t - left ... t + right
    assert touched.min() >= place - right and touched.max() <= place + left


@pytest.mark.parametrize("chunk", [1, 16, 100])
@torch.no_grad()
def test_windows_with_a_state_are_the_whole(name, chunk):
    """A stream: each window with the context of the receptive field, and what is recurrent going on from its state."""
    transform, channels, _ = TRANSFORMS[name]()
    shake(transform.double().eval())
    grid, time = 192, 768                                              # windows begin with whole groups of all views
    z, cond = torch.randn(2, channels, time).double(), torch.randn(2, time, 3).double()
    whole, state, pieces = transform.inverse(z, cond)[0], State(), []
    left, right = transform.receptive_field
    for start in range(0, min(time, 10 * chunk), chunk):
        stop = min(start + chunk, time)
        first, end = max(0, start - left) // grid * grid, min(time, -(-(stop + right) // grid) * grid)
        state.first, state.final = first, stop - first
        window = transform.inverse(z[..., first:end], cond[:, first:end], state)[0]
        pieces.append(window[..., start - first : stop - first])
    together = torch.cat(pieces, dim=-1)
    torch.testing.assert_close(together, whole[..., : together.shape[-1]], rtol=0, atol=1e-10)


def test_log_det_is_float32_under_mixed_precision(name):
    transform, x, cond = make(name, dtype=torch.float32)
    exact = transform(x, cond)[1]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = transform(x, cond)[1]
    assert mixed.dtype == torch.float32
    assert (mixed - exact).abs().max() < 0.02 * x[0].numel()


@pytest.mark.parametrize("transform", [MDCT(8, Chain()), InvertibleConv1x1(4), ActNorm(4)], ids=str)
def test_mixed_precision_does_not_round_the_signal(transform):
    x = torch.randn(2, 1 if isinstance(transform, MDCT) else 4, 32)
    exact = transform(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(transform(x)[0], exact)
        torch.testing.assert_close(transform.inverse(exact)[0], x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_log_det_of_half_precision_weights_is_float32(name, dtype):
    transform, x, cond = make(name)
    if name in ("InvertibleConv1x1", "Chain", "nested"):
        pytest.skip("a matrix has no half-precision determinant on a CPU to compare with")
    assert transform.to(dtype)(x.to(dtype), cond.to(dtype))[1].dtype == torch.float32


@pytest.mark.parametrize("n", [2, 4, 8, 64, 256])
@pytest.mark.parametrize("groups", [1, 2, 5])
def test_lapped_basis_is_orthonormal(n, groups):
    view = MDCT(n, Chain())
    basis = view.analyse(torch.eye(n * groups, dtype=torch.float64)[:, None]).reshape(n * groups, -1)
    identity = torch.eye(n * groups, dtype=torch.float64)
    torch.testing.assert_close(basis @ basis.T, identity, rtol=0, atol=1e-12)


def test_lapped_is_the_windowed_mdct():
    """Away from the ends: X[k] = sqrt(2/n) sum_m w[m] x[m] cos(pi/n (m + 1/2 - n/2) (k + 1/2)), with a sine window.

    Read backwards in time this is the textbook's phase, m + 1/2 + n/2, up to the sign of each band.
    """
    n = 16
    x = torch.randn(1, 1, 5 * n, dtype=torch.float64)
    m, k = np.arange(2 * n), np.arange(n)
    window = np.sin(np.pi / (2 * n) * (m + 0.5))
    segment = x[0, 0, 2 * n - n // 2 : 3 * n + n // 2].numpy()       # centred on group 2
    got = MDCT(n, Chain()).analyse(x)[0, :, 2].numpy()
    basis = np.sqrt(2 / n) * np.cos(np.pi / n * np.outer(k + 0.5, m + 0.5 - n / 2)) * window
    np.testing.assert_allclose(got, basis @ segment, atol=1e-12)
    textbook = np.sqrt(2 / n) * np.cos(np.pi / n * np.outer(k + 0.5, m + 0.5 + n / 2)) * window
    np.testing.assert_allclose(np.abs(got), np.abs(textbook @ segment[::-1]), atol=1e-12)


def test_lapped_channel_is_frequency():
    n, rate = 64, 22050
    time = torch.arange(n * 40, dtype=torch.float64) / rate
    for band in (3, 20, 50):
        tone = torch.sin(2 * torch.pi * (band + 0.5) / n * rate / 2 * time)[None, None]
        energy = MDCT(n, Chain()).analyse(tone)[0].square().sum(dim=1)
        assert energy.argmax() == band and energy[band - 1 : band + 2].sum() > 0.95 * energy.sum()


def test_squeeze_is_channel_major():
    x = torch.arange(12.0).reshape(1, 2, 6)
    squeezed = squeeze(x, 3)
    for channel in range(2):
        for phase in range(3):
            torch.testing.assert_close(squeezed[:, channel * 3 + phase], x[:, channel, phase::3])
    torch.testing.assert_close(unsqueeze(squeezed, 3), x)


def test_conditioning_is_squeezed_phase_by_phase_without_a_copy():
    cond = torch.arange(24.0).reshape(1, 6, 4)
    squeezed = squeeze_cond(cond, 3)
    for phase in range(3):
        torch.testing.assert_close(squeezed[:, :, phase * 4 : (phase + 1) * 4], cond[:, phase::3])
    assert squeezed.data_ptr() == cond.data_ptr()


def test_wavenet_that_is_causal_hears_only_the_past():
    causal = shake(net(4, causal=True).double())
    x, cond = torch.randn(1, 30, 2).double(), torch.randn(1, 30, 3).double()
    changed = x.clone()
    changed[:, 15] += 1
    difference = (causal(x, cond) - causal(changed, cond)).abs().amax(dim=(0, 2))
    assert difference[:15].max() == 0 and difference[15] > 0


def test_even_kernel_is_refused_unless_causal():
    with pytest.raises(ValueError, match="odd"):
        net(4, kernel_size=2)
    net(4, kernel_size=2, causal=True)


def test_odd_number_of_bands_is_refused():
    with pytest.raises(ValueError, match="even number of bands, got 5"):
        MDCT(5, Chain())


class TestActNorm:
    def test_first_training_batch_comes_out_standardised(self):
        norm = ActNorm(3).double().train()
        z, _ = norm(5 + 3 * torch.randn(4, 3, 100).double())
        torch.testing.assert_close(z.mean(dim=(0, 2)), torch.zeros(3).double(), atol=1e-6, rtol=0)
        torch.testing.assert_close(z.std(dim=(0, 2), correction=0), torch.ones(3).double(), atol=0.01, rtol=0)

    def test_only_the_first_one_counts(self):
        norm = ActNorm(3).train()
        norm(torch.randn(4, 3, 100))
        before = norm.scale.clone()
        norm(10 * torch.randn(4, 3, 100))
        torch.testing.assert_close(norm.scale, before)

    def test_evaluation_does_not_initialise(self):
        norm = ActNorm(3).eval()
        norm(torch.randn(4, 3, 100))
        assert not norm.initialised

    def test_neither_loading_nor_resuming_initialises_again(self):
        norm = ActNorm(3).train()
        norm(torch.randn(4, 3, 100))
        loaded = ActNorm(3).train()
        loaded.load_state_dict(norm.state_dict())
        loaded(10 * torch.randn(4, 3, 100))
        torch.testing.assert_close(loaded.scale, norm.scale)

    def test_two_processes_initialise_as_one(self):
        x = 2 + 3 * torch.randn(4, 3, 50, dtype=torch.float64)
        whole = ActNorm(3).double().train()
        whole(x)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        answers = context.Queue()
        halves = [x[:1].numpy(), x[1:].numpy()]                         # unequal shares
        processes = [context.Process(target=_one_rank, args=(r, port, halves[r], answers)) for r in range(2)]
        for process in processes:
            process.start()
        results = [answers.get(timeout=60) for _ in processes]
        for process in processes:
            process.join()
        for shift, scale in results:
            np.testing.assert_allclose(shift, whole.shift.detach().numpy(), rtol=1e-12)
            np.testing.assert_allclose(scale, whole.scale.detach().numpy(), rtol=1e-12)


def _one_rank(rank, port, x, answers):
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    norm = ActNorm(3).double().train()
    norm(torch.from_numpy(x))
    answers.put((norm.shift.detach().numpy(), norm.scale.detach().numpy()))
    torch.distributed.destroy_process_group()
