"""What the losses promise: known values, densities that integrate to one, gradients, and finite numbers everywhere."""

import math

import pytest
import torch
from torch.distributions import Normal

from flowavenet.losses import (
    contrastive,
    feature_loss,
    gaussian_kl,
    log_stft_loss,
    logistic_entropy,
    logistic_log_prob,
    logistic_sample,
    mismatched,
    mixture_log_prob,
    multi_resolution_stft_loss,
    power_loss,
    probability_density_distillation,
    spectral_convergence,
    stft_loss,
    stft_magnitude,
    style_loss,
)

EXTREMES = [-1e4, -100.0, -6.0, 0.0, 20.0]
SPECTRAL = {
    "stft": stft_loss,
    "log stft": log_stft_loss,
    "convergence": spectral_convergence,
    "multi-resolution": multi_resolution_stft_loss,
    "power": power_loss,
}
FEATURE = {"feature": feature_loss, "style": style_loss}


def t(*values):
    return torch.tensor([values], dtype=torch.float64)


def seed(n):
    return torch.Generator().manual_seed(n)


def within(draws, expected, errors=4.5):
    """The mean of the draws (n, ...) is the expected one, as far as so many can tell."""
    error = draws.std(dim=0) / math.sqrt(len(draws))
    assert ((draws.mean(dim=0) - expected).abs() <= errors * error).all(), (draws.mean(dim=0), expected, error)


@pytest.fixture
def mixture():
    """Logits, means, log-scales (2, 5, 3) of a teacher."""
    draw = torch.randn(3, 2, 5, 3, dtype=torch.float64, generator=seed(1))
    return draw[0], draw[1], 0.5 * draw[2] - 1


@pytest.fixture
def student():
    """Means and log-scales (2, 5)."""
    draw = torch.randn(2, 2, 5, dtype=torch.float64, generator=seed(2))
    return draw[0], 0.3 * draw[1] - 0.5


@pytest.fixture
def waves():
    return 0.1 * torch.randn(2, 2, 3000, dtype=torch.float64, generator=seed(3))


class TestGaussianKL:
    def test_value_by_hand(self):
        # N(0, 1) from N(1, 2): log 2 + (1 + 1) / 8 - 1/2 = 0.443147, and 4 (log 2)^2 = 1.921812
        arguments = t(0.0), t(0.0), t(1.0), t(math.log(2))
        torch.testing.assert_close(gaussian_kl(*arguments, regularisation=0), t(0.443147), atol=1e-6, rtol=0)
        torch.testing.assert_close(gaussian_kl(*arguments), t(0.443147 + 1.921812), atol=1e-6, rtol=0)

    def test_is_the_expected_log_ratio_in_both_directions(self, student):
        mean, log_scale = student
        a, b = Normal(mean, log_scale.exp()), Normal(mean.flip(1) + 0.3, log_scale.flip(1).exp())
        for q, p in ((a, b), (b, a)):
            draws = q.mean + q.stddev * torch.randn(20000, *mean.shape, dtype=mean.dtype, generator=seed(4))
            kl = gaussian_kl(q.mean, q.stddev.log(), p.mean, p.stddev.log(), regularisation=0)
            within(q.log_prob(draws) - p.log_prob(draws), kl)

    def test_is_least_where_both_agree(self, student):
        mean, log_scale = (x.clone().requires_grad_() for x in student)
        kl = gaussian_kl(mean, log_scale, *student)
        kl.sum().backward()
        assert not kl.any() and not mean.grad.any() and not log_scale.grad.any()
        assert (gaussian_kl(student[0] + 1e-3, student[1], *student) > 0).all()
        assert (gaussian_kl(student[0], student[1] - 1e-3, *student) > 0).all()

    def test_clamp_keeps_the_kl_wide_but_not_the_regularisation(self):
        narrow_q, narrow_p = t(-8.0).requires_grad_(), t(-9.0)
        loss = gaussian_kl(t(0.0), narrow_q, t(0.0), narrow_p)
        torch.testing.assert_close(loss, t(4.0))                       # no KL, and 4 * (-8 + 9)^2
        loss.backward()
        torch.testing.assert_close(narrow_q.grad, t(8.0))
        # a mean that is off by the clamped width costs half a nat
        off = gaussian_kl(t(math.exp(-6)), narrow_q, t(0.0), narrow_p, regularisation=0)
        torch.testing.assert_close(off, t(0.5))
        off = gaussian_kl(t(math.exp(-2)), narrow_q, t(0.0), narrow_p, clamp=-2, regularisation=0)
        torch.testing.assert_close(off, t(0.5))

    def test_gradients(self, student):
        arguments = [x.clone().requires_grad_() for x in (*student, *(y.flip(1) for y in student))]
        assert torch.autograd.gradcheck(gaussian_kl, arguments)


class TestLogistic:
    def test_density_by_hand(self):
        # at its mean 1 / (4 s); one scale away e^-1 / (1 + e^-1)^2 / s = 0.1966119 / s, on both sides
        got = logistic_log_prob(t(3.0, 5.0, 1.0), t(3.0), t(math.log(2))).exp()
        torch.testing.assert_close(got, t(0.125, 0.0983060, 0.0983060), atol=1e-7, rtol=0)

    @pytest.mark.parametrize("log_scale", [-12.0, -1.0, 2.0])
    def test_integrates_to_one_with_its_entropy(self, log_scale):
        grid = torch.linspace(-45, 45, 20001, dtype=torch.float64) * math.exp(log_scale) + 0.3
        log_prob = logistic_log_prob(grid[:, None, None], t(0.3), t(log_scale))[:, 0, 0]
        assert torch.trapezoid(log_prob.exp(), grid).item() == pytest.approx(1, abs=1e-9)
        entropy = -torch.trapezoid(log_prob.exp() * log_prob, grid).item()
        assert logistic_entropy(t(log_scale)).item() == pytest.approx(entropy, abs=1e-6)

    def test_draws_follow_the_density(self, student):
        draws = logistic_sample(*student, 20000, seed(5))
        assert draws.shape == (20000, 2, 5)
        within(-logistic_log_prob(draws, *student), logistic_entropy(student[1]))
        # what a distribution function makes of its own draws is uniform; Kolmogorov's distance, 1 time in 10^4 larger
        uniform = torch.sigmoid((draws - student[0]) / student[1].exp()).sort(dim=0).values
        steps = (torch.arange(20000, dtype=torch.float64) + 0.5)[:, None, None] / 20000
        assert (uniform - steps).abs().max() < 2.23 / math.sqrt(20000)

    def test_draws_move_with_mean_and_scale_and_follow_the_generator(self, student):
        mean, log_scale = student
        draws = logistic_sample(mean, log_scale, 3, seed(6))
        assert torch.equal(draws, logistic_sample(mean, log_scale, 3, seed(6)))
        moved = logistic_sample(mean + 1, log_scale + 0.5, 3, seed(6))
        torch.testing.assert_close(moved, (draws - mean) * math.exp(0.5) + mean + 1)

    def test_rare_draws_are_finite(self, student, monkeypatch):
        # one float32 in 2^24 is exactly zero, which a step of training meets
        monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.zeros(shape))
        assert logistic_sample(*student, 1).isfinite().all()

    def test_gradients(self, student):
        arguments = [x.clone().requires_grad_() for x in (torch.randn(3, 2, 5, dtype=torch.float64), *student)]
        assert torch.autograd.gradcheck(logistic_log_prob, arguments)


class TestMixture:
    def test_of_one_is_a_logistic(self, student):
        x, one = torch.randn(4, 2, 5, dtype=torch.float64), [y.unsqueeze(2) for y in student]
        got = mixture_log_prob(x, 7 * torch.ones_like(one[0]), *one)
        torch.testing.assert_close(got, logistic_log_prob(x, *student))

    def test_by_hand(self):
        # weights 1/4 and 3/4; the first is at its peak of 1/4, the second one scale of 2 away, 0.1966119 / 2
        pairs = [torch.tensor(pair, dtype=torch.float64).reshape(1, 1, 2) for pair in
                 ([5.0, 5 + math.log(3)], [0.0, 2.0], [0.0, math.log(2)])]
        got = mixture_log_prob(t(0.0), *pairs).exp()
        torch.testing.assert_close(got, t(0.0625 + 0.75 * 0.0983060), atol=1e-7, rtol=0)

    def test_integrates_to_one(self, mixture):
        grid = torch.linspace(-80, 80, 40001, dtype=torch.float64)
        density = mixture_log_prob(grid[:, None, None].expand(-1, 2, 5), *mixture).exp()
        torch.testing.assert_close(torch.trapezoid(density, grid, dim=0), torch.ones(2, 5).double(), atol=1e-8, rtol=0)

    def test_gradients(self, mixture):
        arguments = [x.clone().requires_grad_() for x in (torch.randn(3, 2, 5, dtype=torch.float64), *mixture)]
        assert torch.autograd.gradcheck(mixture_log_prob, arguments)


class TestProbabilityDensityDistillation:
    def many(self, student, teacher):
        """Independent estimates (2000, 2, 5), of 10 draws each."""
        wide = [x.repeat(2000, 1, 1).flatten(0, 1) for x in student]

        def judge(x):
            return teacher(x.unflatten(1, (2000, 2))).flatten(1, 2)

        return probability_density_distillation(*wide, judge, 10, seed(7)).unflatten(0, (2000, 2))

    def test_of_a_gaussian_teacher(self, student):
        # E (x - m)^2 = pi^2 s^2 / 3 for the logistic
        (mean, log_scale), teacher = student, Normal(0.4, 1.7)
        square = math.pi**2 / 3 * (2 * log_scale).exp() + (mean - 0.4).square()
        expected = 0.5 * math.log(2 * math.pi) + math.log(1.7) + square / (2 * 1.7**2) - log_scale - 2
        within(self.many(student, teacher.log_prob), expected)

    def test_of_a_mixture_teacher(self, student, mixture):
        grid = torch.linspace(-60, 60, 40001, dtype=torch.float64)
        x = grid[:, None, None].expand(-1, 2, 5)
        q, p = logistic_log_prob(x, *student), mixture_log_prob(x, *mixture)
        expected = torch.trapezoid(q.exp() * (q - p), grid, dim=0)
        within(self.many(student, lambda x: mixture_log_prob(x, *mixture)), expected)

    def test_is_zero_where_both_agree(self, student):
        within(self.many(student, lambda x: logistic_log_prob(x, *student)), torch.zeros(2, 5))

    def test_gradients_reach_student_and_teacher(self, student, mixture):
        def loss(mean, log_scale, *teacher):
            return probability_density_distillation(mean, log_scale, lambda x: mixture_log_prob(x, *teacher), 3, seed(8))

        assert torch.autograd.gradcheck(loss, [x.clone().requires_grad_() for x in (*student, *mixture)])


def test_contrastive_takes_a_part_of_the_mismatched_off():
    torch.testing.assert_close(contrastive(t(2.0), t(5.0)), t(0.5))
    torch.testing.assert_close(contrastive(t(2.0), t(5.0), weight=0.1), t(1.5))


def test_mismatched_gives_everyone_anothers():
    cond = torch.arange(3.0)[:, None, None].expand(3, 2, 4)
    assert mismatched(cond)[:, 0, 0].tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="batch of 1 .* use 2 or more"):
        mismatched(cond[:1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("log_scale", EXTREMES)
@pytest.mark.parametrize("x", [0.0, 1e-4, -50.0, 1e4])
def test_distillation_is_finite_far_out(dtype, log_scale, x):
    x, mean, log_scale = (torch.full((2, 3), value, dtype=dtype).requires_grad_() for value in (x, 0.0, log_scale))
    three = [y[..., None].expand(2, 3, 4) for y in (mean, mean, log_scale)]
    losses = {
        "kl, wide teacher": gaussian_kl(mean, log_scale, x, torch.zeros_like(mean)),
        "kl, like teacher": gaussian_kl(mean, log_scale, x, log_scale + 1),
        "logistic": logistic_log_prob(x, mean, log_scale),
        "mixture": mixture_log_prob(x, *three),
        "distillation": probability_density_distillation(x, log_scale, lambda x: mixture_log_prob(x, *three), 5),
    }
    for name, loss in losses.items():
        grads = torch.autograd.grad(loss.sum(), (mean, log_scale, x), allow_unused=True)
        assert loss.dtype == torch.float32 and loss.shape == (2, 3), name
        assert all(y.isfinite().all() for y in (loss, *grads) if y is not None), name


class TestMagnitude:
    def test_of_a_constant_is_all_at_zero_hertz(self):
        # a sum over 8 samples of 0.5 without a window; half of that with a Hann window
        expected = torch.tensor([4.0, 0, 0, 0, 0], dtype=torch.float64)[:, None].expand(5, 5)
        constant = torch.full((1, 16), 0.5, dtype=torch.float64)
        got = stft_magnitude(constant, 8, 4, window="rectangular")[0]
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(stft_magnitude(constant, 8, 4)[0, 0], expected[0] / 2)

    def test_of_a_tone_peaks_at_its_frequency(self):
        tone = torch.sin(2 * torch.pi * 40 / 1024 * torch.arange(8192))[None]
        magnitude = stft_magnitude(tone)[0]
        assert magnitude.shape == (513, 33) and (magnitude[:, 4:-4].argmax(dim=0) == 40).all()
        # amplitude 1 times half of the sum of the window, 512
        torch.testing.assert_close(magnitude[40, 4:-4], torch.full((25,), 256.0), rtol=1e-3, atol=0)

    def test_refuses_kindly(self):
        with pytest.raises(ValueError, match="512 samples are too few for an FFT of 1024: take more than 512"):
            stft_magnitude(torch.zeros(1, 512))
        with pytest.raises(ValueError, match="window 'haan' is not known: take one of hann, rectangular"):
            stft_magnitude(torch.zeros(1, 513), window="haan")
        with pytest.raises(ValueError, match=r"waves of \(1, 900\) and \(1, 901\) samples"):
            stft_loss(torch.zeros(1, 900), torch.zeros(1, 901))


class TestSpectral:
    def test_of_a_constant_against_silence_by_hand(self):
        # one of five frequencies, of magnitude 4 and power 4^2 / 8
        constant, silence = torch.full((2, 16), 0.5, dtype=torch.float64), torch.zeros(2, 16, dtype=torch.float64)
        options = {"n_fft": 8, "hop": 4, "window": "rectangular"}
        assert stft_loss(constant, silence, **options).item() == pytest.approx(16 / 5)
        assert power_loss(constant, silence, **options).item() == pytest.approx(2**2 / 5)

    @pytest.mark.parametrize("gain", [0.5, 2.0])
    def test_of_another_level(self, waves, gain):
        a, silence = waves[0], torch.zeros_like(waves[0])
        for loss, expected in {
            stft_loss: (gain - 1) ** 2 * stft_loss(a, silence),
            power_loss: (gain**2 - 1) ** 2 * power_loss(a, silence),
            log_stft_loss: abs(math.log(gain)),
            spectral_convergence: abs(gain - 1),
            multi_resolution_stft_loss: abs(math.log(gain)) + abs(gain - 1),
        }.items():
            # a few magnitudes out of 10^4 lie below the floor
            assert loss(gain * a, a).item() == pytest.approx(float(expected), rel=1e-4), loss

    @pytest.mark.parametrize("window", ["hann", "rectangular"])
    @pytest.mark.parametrize("n_fft", [256, 1024])
    def test_power_of_white_noise_is_its_variance(self, n_fft, window):
        noise = 0.5 * torch.randn(1, 400_000, generator=seed(9))
        got = power_loss(noise, torch.zeros_like(noise), n_fft, n_fft // 4, window=window)
        assert got.item() == pytest.approx(0.25**2, rel=0.03)

    def test_power_hardly_minds_a_shift_and_magnitudes_do(self, speech):
        late, scale = speech.roll(300, dims=1), torch.zeros_like(speech)
        assert power_loss(late, speech) < 1e-3 * power_loss(speech, scale)
        assert stft_loss(late, speech) > 0.1 * stft_loss(speech, scale)

    @pytest.mark.parametrize("name", SPECTRAL)
    def test_phase_does_not_matter(self, waves, name):
        assert SPECTRAL[name](-waves[0], waves[0]).item() < 1e-12

    @pytest.mark.parametrize("name", SPECTRAL)
    def test_is_zero_with_no_gradient_where_both_agree(self, waves, name):
        wave = waves[0].requires_grad_()
        loss = SPECTRAL[name](wave, waves[0].detach())
        loss.backward()
        assert loss == 0 and not wave.grad.any()

    @pytest.mark.parametrize("name", SPECTRAL)
    def test_gradients(self, waves, name):
        wave, target = waves[0, :1, :40].requires_grad_(), waves[1, :1, :40]
        options = {"resolutions": [(16, 4, 12), (8, 4, 8)]} if name == "multi-resolution" else {"n_fft": 16, "hop": 4}
        assert torch.autograd.gradcheck(lambda x: SPECTRAL[name](x, target, **options), wave)

    @pytest.mark.parametrize("name", SPECTRAL)
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("level", [0.0, 1e-12, 1e4])
    def test_is_finite_far_out(self, waves, name, dtype, level):
        silence = torch.zeros_like(waves[0], dtype=dtype)
        for a, b in ((level * waves[0].to(dtype), silence), (silence, level * waves[0].to(dtype))):
            a = a.detach().requires_grad_()
            loss = SPECTRAL[name](a, b)
            loss.backward()
            assert loss.dtype == torch.float32 and loss.isfinite() and a.grad.isfinite().all()


class TestFeatures:
    def test_by_hand(self):
        # the Gram matrix of [[1, 2], [3, 4]] over two times is [[5, 11], [11, 25]] / 2
        a, b = torch.tensor([[[1.0, 2], [3, 4]]]), torch.zeros(1, 2, 2)
        assert feature_loss([a], [b]).item() == (1 + 4 + 9 + 16) / 4
        assert style_loss([a], [b]).item() == (2.5**2 + 2 * 5.5**2 + 12.5**2) / 4
        assert feature_loss([a, b], [b, b]).item() == 7.5 / 2

    def test_style_forgets_when(self):
        a, order = torch.randn(2, 50, 3, dtype=torch.float64), torch.randperm(50)
        assert style_loss([a], [a[:, order]]) < 1e-24 < 0.1 < feature_loss([a], [a[:, order]])
        assert style_loss([a], [torch.cat([a, a], dim=1)]) < 1e-24

    @pytest.mark.parametrize("name", FEATURE)
    def test_gradients(self, name):
        a, b = torch.randn(2, 2, 3, 5, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x: FEATURE[name]([x], [b]), a.requires_grad_())

    @pytest.mark.parametrize("name", FEATURE)
    def test_is_exact_under_mixed_precision(self, name):
        a, b = torch.randn(2, 2, 4, 30)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(FEATURE[name]([a], [b]), mixed_off(FEATURE[name], a, b))
        assert FEATURE[name]([a.bfloat16()], [b.bfloat16()]).dtype == torch.float32

    @pytest.mark.parametrize("name", FEATURE)
    def test_refuses_kindly(self, name):
        with pytest.raises(ValueError, match="1 and 2 layers of features"):
            FEATURE[name]([torch.zeros(1, 1, 1)], 2 * [torch.zeros(1, 1, 1)])
        with pytest.raises(ValueError, match="0 and 0 layers of features"):
            FEATURE[name]([], [])


def mixed_off(loss, a, b):
    with torch.autocast("cpu", enabled=False):
        return loss([a], [b])
