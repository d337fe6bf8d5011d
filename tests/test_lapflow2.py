"""The flagship: what pitch prediction, radial stretch and octaves promise beyond the laws of all transforms and models."""

import pytest
import torch
from conftest import shake
from torch import nn

from flowavenet import Vocoder
from flowavenet.audio import MelSettings, MelSpectrogram
from flowavenet.models import Lapflow2, Lapflow2Config
from flowavenet.nets import TimeConv
from flowavenet.nets.lags import LAGS, delays, lags, taps
from flowavenet.transforms import RadialStretch
from flowavenet.transforms.pitch import between, by_frames, by_scan, predict, solve

SMALL = {
    "encoder_width": 48, "encoder_layers": 2, "width": (32, 32, 32), "layers": (2, 2, 2), "low_width": 32, "low_layers": 1,
}
MEL = MelSpectrogram(MelSettings())


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return shake(Lapflow2(Lapflow2Config(**SMALL)), 0.02).eval()


def test_a_radius_of_zero_is_mapped_and_mapped_back():
    transform = shake(RadialStretch(TimeConv(3, 4), 3).double())
    x, cond = torch.randn(1, 6, 7, dtype=torch.float64), torch.randn(1, 7, 3, dtype=torch.float64)
    x[:, :3], x[:, 3:, 2:4] = 0, 1e-7 * x[:, 3:, 2:4]
    z, log_det = transform(x, cond)
    back, other = transform.inverse(z, cond)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-14)
    torch.testing.assert_close(log_det, -other)
    assert log_det.isfinite().all()


@pytest.mark.parametrize("hop, taps, frames", [(8, 19, 13), (8, 5, 9), (32, 52, 17), (4, 4, 1), (8, 8, 2)])
def test_predictions_and_recurrences_are_those_of_the_definition(hop, taps, frames):
    """By spectra, frame by frame and by a prefix scan, against sum_l w_l(t) x_(t - l)."""
    x = torch.randn(2, 3, frames * hop, dtype=torch.float64)
    weights = 0.9 * torch.softmax(2 * torch.randn(2, 3, frames, taps, dtype=torch.float64), -1)
    each = between(weights, hop)
    padded = nn.functional.pad(x, (taps, 0))
    past = [padded[..., taps - 1 - lag : taps - 1 - lag + x.shape[-1]] for lag in range(taps)]
    plain = sum(each.flatten(2, 3)[..., lag] * past[lag] for lag in range(taps))
    torch.testing.assert_close(predict(x, weights, hop), plain)
    for recurrence in (by_frames, by_scan):
        torch.testing.assert_close(solve(x - plain, each, x.new_zeros(2, 3, taps), recurrence), x)


def test_delays_delay():
    """A tone in the middle of a subband, delayed by any lag, is the tone that far back."""
    rate = 22050 / 8
    period = lags(rate)
    for band in (0, 1, 5):
        n = torch.arange(-taps(rate), 1, dtype=torch.float64)
        frequency = 0.21                                               # of the subband's own rate
        tone = torch.exp(2j * torch.pi * frequency * n)
        got = (delays(rate, band).to(tone.dtype) * tone[:-1].flip(0)).sum(dim=-1)
        expected = torch.exp(-2j * torch.pi * (frequency + band / 2) * period)         # it stands for that one
        assert len(period) == LAGS and (got - expected).abs().median() < 0.1


@pytest.mark.parametrize("length", [256 * 40 + 100, 256 * 3, 256, 700])
@torch.no_grad()
def test_round_trip_in_float32_of_speech_and_of_white_noise(model, speech, length):
    """Pitch prediction is triangular with ones on its diagonal: nothing may blow up."""
    for wave in (speech[:, :length], 0.3 * torch.randn(1, length)):
        mel = MEL(wave)
        noise, _ = model.encode(wave, mel)
        assert (model.decode(noise, mel) - wave).abs().max() < 1e-4


@torch.no_grad()
def test_a_long_silence_and_full_scale_noise_stay_finite(model):
    for wave in (torch.zeros(1, 256 * 60), torch.rand(1, 256 * 60) * 2 - 1):
        mel = MEL(wave)
        made = Vocoder(model, MelSettings())(mel, seed=0, match=0)
        assert made.isfinite().all() and model.log_prob(wave, mel).isfinite().all()


def test_a_hop_that_is_not_that_of_the_frames_is_refused():
    with pytest.raises(ValueError, match="hop_length is 300, subbands \\* bins is 256"):
        Lapflow2(hop_length=300)
