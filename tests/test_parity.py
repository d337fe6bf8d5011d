"""Our ports compute what the published code computed: inputs, outputs and key lists are in a shared folder."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from flowavenet.interop import load_published
from flowavenet.losses import gaussian_log_prob
from flowavenet.models import SQUEEZEWAVE_128_256, IAFConfig, WaveGlowConfig, WaveNetConfig
from flowavenet.transforms import squeeze

PARITY = Path(os.environ.get("FLOWAVENET_SHARED", Path(__file__).parents[2] / "shared")) / "parity"
NAMES = ["flowavenet_small", "flowavenet_single_scale", "flowavenet_published"]

pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason="needs the parity files of the published code")


def weights(keys, dtype=torch.float64):
    """The weights follow from the keys, so nobody has to store them."""
    state = {}
    for key, shape in keys:
        a = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
        a = a.astype(np.float32).astype(np.float64)
        if key.endswith("actnorm.scale"):
            a = np.sign(a) * (0.8 + 0.1 * np.abs(a))
        elif key.endswith("actnorm.loc"):
            a = 0.1 * a
        elif key.endswith("weight_g"):
            a = 0.7 + 0.1 * a
        elif key.endswith("running_var"):
            a = 0.5 + np.abs(a)
        elif key.endswith("running_mean"):
            a = 0.1 * a
        elif "convinv" in key:
            a, _ = np.linalg.qr(a[:, :, 0])
            a[:, 0] *= np.sign(np.linalg.det(a))
            a = a[:, :, None]
        elif not key.endswith("weight_v"):
            a = 0.05 * a
        state[key] = torch.from_numpy(a).to(dtype)
    return state


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_published_code(name):
    spec = json.loads((PARITY / f"{name}.json").read_text())
    stored = {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(PARITY / f"{name}.npz").items()}
    with torch.no_grad():
        model = load_published(weights(spec["keys"]))
        wave, mel = stored["x"].squeeze(1), stored["mel"]
        samples = wave.shape[1]
        noise, log_det = model.encode(wave, mel)

        def close(a, b):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)

        # the published code counts the learned prior's log-scale in log_p and not in log_det: their sum is one number
        total = (gaussian_log_prob(noise) + log_det.sum(dim=1)) / samples
        close(total, stored["log_p_each"] + stored["log_det_each"])
        close(total, model.log_prob(wave, mel) / samples)
        close(total.mean(), stored["log_p"] + stored["log_det"])
        decoded = model.decode(stored["z"].squeeze(1), mel)
        close(decoded, stored["wave"].squeeze(1))
        close((model.log_prob(decoded, mel) / samples).mean(), stored["wave_log_p"] + stored["wave_log_det"])
        close(model.decode(noise, mel), wave)


@pytest.mark.parametrize("name, config, leaving", [
    ("waveglow_published", WaveGlowConfig(), 8),
    # with these weights their fifth coupling overflows: what has left by then is to compare
    ("squeezewave_128_256", SQUEEZEWAVE_128_256, 32),
])
def test_equals_the_published_glows(name, config, leaving):
    spec = json.loads((PARITY / f"{name}.json").read_text())
    stored = {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(PARITY / f"{name}.npz").items()}
    with torch.no_grad():
        model = load_published(weights(spec["keys"]))
        assert model.config == config
        noise, log_det = model.encode(stored["x"], stored["mel"])
        # theirs has a channel for each sample of a group, those that leave early first
        theirs = stored["z"][:, :leaving]
        torch.testing.assert_close(squeeze(noise.unsqueeze(1), config.group)[:, :leaving], theirs, rtol=1e-8, atol=1e-8)
        assert stored["z"][:, leaving:].isnan().any(dim=2).all()
        if leaving == config.group:
            expected = stored["log_det_coupling"] + stored["log_det_mixing_per_item"]
            torch.testing.assert_close(log_det.sum(dim=1), expected, rtol=1e-8, atol=1e-8)
            # there and back, these random weights make 1e8 times as much of a rounding error
            torch.testing.assert_close(model.decode(noise, stored["mel"]), stored["x"], rtol=1e-7, atol=1e-7)


def clarinet(name):
    spec = json.loads((PARITY / f"clarinet_{name}.json").read_text())
    stored = np.load(PARITY / f"clarinet_{name}.npz").items()
    return spec, {key: torch.from_numpy(np.asarray(value)) for key, value in stored}


def test_equals_the_published_teacher():
    spec, stored = clarinet("teacher")
    with torch.no_grad():
        model = load_published(weights(spec["keys"]))
        assert model.config == WaveNetConfig()
        got = model.flow.inner.net(stored["x"].transpose(1, 2), model.condition(stored["mel"])).transpose(1, 2)
        torch.testing.assert_close(got, stored["mean_and_log_std"], rtol=1e-8, atol=1e-8)
        # each sample is expected by what the net says one sample before
        shift, log_scale = got[:, :, :-1].chunk(2, dim=1)
        noise, _ = model.encode(stored["x"].squeeze(1), stored["mel"])
        wanted = (stored["x"][..., 1:] - shift) * torch.exp(-log_scale)
        torch.testing.assert_close(noise[:, 1:], wanted.squeeze(1), rtol=1e-8, atol=1e-8)


def test_equals_the_published_student():
    spec, stored = clarinet("student")
    z, mel = stored["z"].squeeze(1), stored["mel"]
    with torch.no_grad():
        model = load_published(weights(spec["keys"]), teacher=weights(clarinet("teacher")[0]["keys"]))
        assert model.config == IAFConfig()
        drawn = model.draw(z, mel)
        torch.testing.assert_close(model.decode(z, mel), stored["wave"].squeeze(1), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(drawn.wave, stored["wave"].squeeze(1), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(drawn.mean[:, 1:], stored["mu_total"].squeeze(1), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(drawn.log_scale[:, 1:], stored["log_scale_total"].squeeze(1), rtol=1e-8, atol=1e-8)
