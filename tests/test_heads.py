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

AXIS = 20 * torch.linspace(-1, 1, 400_001, dtype=torch.float64)[None, None] ** 5
"""From -20 to 20, close together around 0."""


@pytest.fixture(params=HEADS)
def head(request):
    return HEADS[request.param]


def parameters(head, time=1):
    return torch.randn(1, head.amounts, time, dtype=torch.float64)


def test_density_integrates_to_one(head):
    x = AXIS
    density = head.log_prob(x, parameters(head).expand(-1, -1, x.shape[2])).exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-4)


def test_noise_is_the_quantile(head):
    """The share of the density below x is Phi of its noise."""
    x, cond = AXIS, parameters(head)
    density = head.log_prob(x, cond.expand(-1, -1, x.shape[2])).exp()
    below = torch.cumulative_trapezoid(density, x)[0, 0]
    for share in (0.01, 0.3, 0.5, 0.9, 0.99):
        place = int(torch.searchsorted(below, share))
        noise = head.to_noise(x[..., place : place + 1], cond).item()
        assert 0.5 * (1 + math.erf(noise / math.sqrt(2))) == pytest.approx(share, abs=2e-4)


def test_far_tails_come_back(head):
    noise = torch.tensor([-30.0, -9.0, -1e-3, 0.0, 1e-3, 9.0, 30.0], dtype=torch.float64)[None, None]
    cond = parameters(head, time=7)
    x, log_det = head.inverse(noise, cond)
    again, back = head(x, cond)
    torch.testing.assert_close(again, noise, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(back, -log_det, rtol=1e-6, atol=1e-6)


def test_float32_stays_finite_far_out(head):
    x, cond = torch.tensor([-1e3, -2.0, 0.0, 1.0, 1e3])[None, None], 10 * parameters(head, 5).float()
    z, log_det = head(x, cond)
    assert z.dtype == log_det.dtype == torch.float32
    assert z.isfinite().all() or isinstance(head, Gaussian)
    assert head.log_prob(x, cond).isfinite().all() or isinstance(head, Gaussian)


def test_affine_is_the_gaussian_backwards():
    x, cond = torch.randn(2, 1, 5), torch.randn(2, 2, 5)
    torch.testing.assert_close(Affine()(x, cond), Gaussian().inverse(x, cond))
    torch.testing.assert_close(Affine().inverse(x, cond), Gaussian()(x, cond))


def test_mixture_starts_with_components_that_differ():
    start = LogisticMixture(10).start().reshape(3, 10)
    assert len({tuple(component.tolist()) for component in start.t()}) == 10


def test_mulaw_steps_are_those_of_the_companding_formula():
    x = torch.linspace(-0.999, 0.999, 1001, dtype=torch.float64)[None, None]
    companded = x.sign() * torch.log1p(255 * x.abs()) / math.log(256)
    expected = ((companded + 1) * 128).floor().long()
    read = MuLaw().double().read(x)
    assert torch.equal(read.argmax(dim=1, keepdim=True), expected) and (read.sum(dim=1) == 1).all()


def test_mulaw_gives_a_step_its_probability():
    head, cond = MuLaw(256), parameters(MuLaw(256))
    x = torch.tensor([0.3], dtype=torch.float64)[None, None]
    step = head.read(x).argmax(dim=1).item()
    edges = head.edges.double()
    log_mass = F.log_softmax(cond, dim=1)[0, step, 0]
    expected = log_mass - torch.log(edges[step + 1] - edges[step])
    assert head.log_prob(x, cond).item() == pytest.approx(expected.item(), abs=1e-6)


def test_logistic_noise_is_logistic():
    generator = torch.Generator().manual_seed(0)
    x, _ = LogisticNoise().inverse(torch.randn(1, 1, 200_000, generator=generator))
    assert x.mean().abs() < 0.02 and x.var().item() == pytest.approx(math.pi**2 / 3, rel=0.02)
    for level in (-3.0, 0.5, 2.0):
        assert (x < level).float().mean().item() == pytest.approx(torch.sigmoid(torch.tensor(level)).item(), abs=0.004)
