"""Heads are distributions: their density integrates to one and is that of what they draw from noise."""

import math

import pytest
import torch
import torch.nn.functional as F

from flowavenet.transforms import Affine, Gaussian, LogisticMixture, LogisticNoise, MuLaw

HEADS = {
    "Gaussian": Gaussian(), "Gaussian, bounded": Gaussian(least=0.5), "LogisticMixture": LogisticMixture(3),
    "MuLaw": MuLaw(256), "coarse MuLaw": MuLaw(4),
}

AXIS = 20 * torch.linspace(-1, 1, 400_001, dtype=torch.float64)[None] ** 5
"""From -20 to 20, close together around 0."""


@pytest.fixture(params=HEADS)
def head(request):
    return HEADS[request.param]


def parameters(head, time=1):
    return torch.randn(1, time, head.size, dtype=torch.float64)


def test_density_integrates_to_one(head):
    x = AXIS
    density = head.log_prob(x, parameters(head).expand(-1, x.shape[1], -1)).exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-4)


def test_noise_is_the_quantile(head):
    """The share of the density below x is Phi of its noise."""
    x, cond = AXIS, parameters(head)
    density = head.log_prob(x, cond.expand(-1, x.shape[1], -1)).exp()
    below = torch.cumulative_trapezoid(density, x)[0]
    for share in (0.01, 0.3, 0.5, 0.9, 0.99):
        place = int(torch.searchsorted(below, share))
        noise = head.to_noise(x[..., place : place + 1], cond).item()
        assert 0.5 * (1 + math.erf(noise / math.sqrt(2))) == pytest.approx(share, abs=2e-4)


def test_far_tails_come_back(head):
    noise = torch.tensor([-30.0, -9.0, -1e-3, 0.0, 1e-3, 9.0, 30.0], dtype=torch.float64)[None]
    cond = parameters(head, time=7)
    x = head.from_noise(noise, cond)
    torch.testing.assert_close(head.to_noise(x, cond), noise, rtol=1e-6, atol=1e-6)
    assert head.log_slope(x, noise, cond).isfinite().all()


@pytest.mark.parametrize("end", [0, 3])
def test_most_of_the_mass_may_lie_in_a_tail(end):
    """Then noise of the other sign, too, comes from that tail."""
    head, logits = MuLaw(4).double(), torch.zeros(1, 9, 4, dtype=torch.float64)
    logits[..., end] = 6.0
    noise = torch.linspace(-4, 4, 9, dtype=torch.float64)[None]
    torch.testing.assert_close(head.to_noise(head.from_noise(noise, logits), logits), noise, rtol=1e-6, atol=1e-6)


def test_float32_stays_finite_far_out(head):
    x, cond = torch.tensor([-1e3, -2.0, 0.0, 1.0, 1e3])[None], 10 * parameters(head, 5).float()
    z = head.to_noise(x, cond)
    assert head.log_slope(x, z, cond).dtype == torch.float32
    assert z.isfinite().all() or isinstance(head, Gaussian)
    assert head.log_prob(x, cond).isfinite().all() or isinstance(head, Gaussian)


def test_affine_is_the_gaussian_backwards():
    x, cond = torch.randn(2, 5), torch.randn(2, 5, 2)
    torch.testing.assert_close(Affine().to_noise(x, cond), Gaussian().from_noise(x, cond))
    torch.testing.assert_close(Affine().from_noise(x, cond), Gaussian().to_noise(x, cond))
    torch.testing.assert_close(Affine().log_slope(x, x, cond), -Gaussian().log_slope(x, x, cond))


def test_mixture_starts_with_components_that_differ():
    start = LogisticMixture(10).start().reshape(3, 10)
    assert len({tuple(component.tolist()) for component in start.t()}) == 10


def test_mulaw_steps_are_those_of_the_companding_formula():
    x = torch.linspace(-0.999, 0.999, 1001, dtype=torch.float64)[None]
    companded = x.sign() * torch.log1p(255 * x.abs()) / math.log(256)
    expected = ((companded + 1) * 128).floor().long()
    read = MuLaw().double().read(x)
    assert torch.equal(read.argmax(dim=2), expected) and (read.sum(dim=2) == 1).all()


def test_mulaw_gives_a_step_its_probability():
    head, cond = MuLaw(256), parameters(MuLaw(256))
    x = torch.tensor([0.3], dtype=torch.float64)[None]
    step = head.read(x).argmax(dim=2).item()
    edges = head.edges.double()
    log_mass = F.log_softmax(cond, dim=2)[0, 0, step]
    expected = log_mass - torch.log(edges[step + 1] - edges[step])
    assert head.log_prob(x, cond).item() == pytest.approx(expected.item(), abs=1e-6)


def test_logistic_noise_is_logistic():
    generator = torch.Generator().manual_seed(0)
    x, _ = LogisticNoise().inverse(torch.randn(1, 1, 200_000, generator=generator))
    assert x.mean().abs() < 0.02 and x.var().item() == pytest.approx(math.pi**2 / 3, rel=0.02)
    for level in (-3.0, 0.5, 2.0):
        assert (x < level).float().mean().item() == pytest.approx(torch.sigmoid(torch.tensor(level)).item(), abs=0.004)
