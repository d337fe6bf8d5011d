"""Likelihood told frame by frame, and recordings that stand out of their folder by it."""

import pytest
import torch
from conftest import shake
from test_models import VARIANTS, pair
from test_transforms import TRANSFORMS, make

from flowavenet.models import build


@pytest.mark.parametrize("name", TRANSFORMS)
def test_local_log_dets_add_up(name):
    transform, x, cond = make(name)
    (z, log_det), (again, nats) = transform(x, cond), transform.localised(x, cond)
    assert nats.shape == x.shape
    torch.testing.assert_close(again, z)
    torch.testing.assert_close(nats.sum(dim=(1, 2)), log_det)


@pytest.mark.parametrize("name", VARIANTS)
def test_samples_add_up_to_the_log_prob_of_every_model(name):
    kind, config, hop = VARIANTS[name]
    model = shake(build(kind, config, n_mels=4, hop_length=hop).double().eval(), 0.05)
    wave, *given = pair(model, frames=6, cut=5)
    noise, nats = model.encode_localised(wave, *given)
    assert nats.shape == wave.shape and nats.std() > 0
    torch.testing.assert_close(noise, model.encode(wave, *given)[0])
    torch.testing.assert_close(nats.sum(dim=1), model.log_prob(wave, *given))
