"""Hoarseness is heard: known ratios of harmonics to noise are found, at any level and delay; opinions are the library's."""

import math

import numpy as np
import pytest
import soxr
import torch
from conftest import CLIPS

from flowavenet import load_audio
from flowavenet.evaluation.hoarseness import harmonics_to_noise, hoarseness, one_period_correlation
from flowavenet.evaluation.metrics import score
from flowavenet.evaluation.opinion import opinions
from flowavenet.evaluation.pitch import Pitch, pitch, voice

RATE = 22050
praat = pytest.mark.usefixtures("_praat")
mos = pytest.mark.usefixtures("_mos")


@pytest.fixture
def _praat():
    pytest.importorskip("parselmouth", reason="needs praat-parselmouth: pip install 'flowavenet[evaluate]'")


@pytest.fixture
def _mos():
    for name in ("speechmos", "onnxruntime"):
        pytest.importorskip(name, reason=f"needs {name}: pip install 'flowavenet[evaluate]'")


@pytest.fixture(scope="module")
def clip():
    return load_audio(CLIPS[0], RATE)[0].double()


def seconds(rate=RATE, length=1.5):
    return torch.arange(round(length * rate)).double() / rate


def train(hz, rate=RATE):
    """Pulses, band-limited: all harmonics below 7 kHz, of one power and phase."""
    wave = sum(torch.cos(2 * math.pi * k * hz * seconds(rate)) for k in range(1, int(7000 / hz)))
    return wave / wave.std()


def noise(rate=RATE):
    return torch.randn(len(seconds(rate)), dtype=torch.float64)


def steady(hz):
    """A track that is voiced at one pitch throughout."""
    times = np.arange(0.1, 1.4, 0.005)
    return Pitch(times, np.full(len(times), float(hz)), np.ones(len(times)))


# Known answers


@praat
@pytest.mark.parametrize("hz", [140, 173.3, 260])
@pytest.mark.parametrize("snr_db", [5, 10, 20])
def test_a_tone_in_noise_has_the_ratio_it_was_made_with(hz, snr_db):
    tone = math.sqrt(2) * torch.sin(2 * math.pi * hz * seconds())
    wave = tone + 10 ** (-snr_db / 20) * noise()
    assert harmonics_to_noise(wave, RATE, steady(hz)) == pytest.approx(snr_db, abs=1)
    assert hoarseness(tone, wave, RATE)[0] == pytest.approx(snr_db, abs=1)     # and with the pitch that is found


@praat
@pytest.mark.parametrize(("hz", "rate"), [(100, 22050), (173.3, 16000), (173.3, 22050), (173.3, 44100), (261.6, 22050)])
def test_pulses_repeat_and_noise_does_not(hz, rate):
    assert one_period_correlation(train(hz, rate), rate, steady(hz)) == pytest.approx([1, 1, 1], abs=0.01)
    assert max(one_period_correlation(noise(rate), rate, steady(hz))) < 0.2
    assert harmonics_to_noise(train(hz, rate), rate, steady(hz)) > 30
    assert harmonics_to_noise(noise(rate), rate, steady(hz)) < -4


@pytest.mark.parametrize("hz", [120, 173.3])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_the_correlation_is_the_share_of_harmonics(hz, share):
    flat = noise() * math.sqrt(RATE / 2 / 7000)                        # as much power below 7 kHz as the pulses have
    wave = math.sqrt(share) * train(hz) + math.sqrt(1 - share) * flat
    assert one_period_correlation(wave, RATE, steady(hz)) == pytest.approx([share] * 3, abs=0.1)


def test_a_band_is_heard_alone():
    """Noise between 3 and 6 kHz lowers p3 only."""
    spectrum = torch.fft.rfft(noise())
    frequency = torch.fft.rfftfreq(len(seconds()), 1 / RATE)
    hiss = torch.fft.irfft(spectrum * ((frequency > 3600) & (frequency < 5400)), len(seconds()))
    low, middle, high = one_period_correlation(train(150) + 2 * hiss / hiss.std(), RATE, steady(150))
    assert low > 0.99 and middle > 0.95 and high < 0.3


def test_a_pitch_that_is_more_than_3_percent_off_does_not_count():
    near, far = (one_period_correlation(train(150 * factor), RATE, steady(150))[1] for factor in (1.02, 1.07))
    assert near > 0.99 and far < 0.7


def test_what_cannot_be_said_is_nan():
    silent = Pitch(np.arange(3.0), np.zeros(3), np.zeros(3))
    assert all(map(math.isnan, one_period_correlation(noise(), RATE, silent)))
    *known, high = one_period_correlation(train(100, 8000), 8000, steady(100))
    assert min(known) > 0.99 and math.isnan(high)                      # 6 kHz is above half of 8


# Laws on speech


@praat
def test_level_and_sign_do_not_count(clip):
    found = hoarseness(clip, clip, RATE)
    for gain in (1e-3, -1, 20):
        assert hoarseness(clip, gain * clip, RATE) == pytest.approx(found, abs=1e-6)


@praat
@pytest.mark.parametrize("delay", [1, 500, 4000])
def test_a_delay_of_both_hardly_counts(clip, delay):
    late = torch.cat([torch.zeros(delay), clip])
    (ratio, *found), (same, *again) = hoarseness(clip, clip, RATE), hoarseness(late, late, RATE)
    assert same == pytest.approx(ratio, abs=0.3) and again == pytest.approx(found, abs=0.03)


@praat
@pytest.mark.parametrize("path", CLIPS[:2], ids=lambda path: path.stem)
def test_the_more_noise_the_hoarser(path):
    wave = load_audio(path, RATE)[0].double()
    hiss = wave.std() * torch.randn(len(wave), dtype=torch.float64)
    found = np.array([hoarseness(wave, wave + part * hiss, RATE) for part in (0, 0.1, 0.3, 1)])
    assert (np.diff(found, axis=0) < 0).all()


@praat
def test_a_copy_without_a_voice_is_not_spared(clip):
    assert hoarseness(clip, torch.zeros(len(clip)), RATE) == (-20, 0, 0, 0)
    whisper = clip.std() * torch.randn(len(clip), dtype=torch.float64)
    assert hoarseness(clip, whisper, RATE)[0] < -4


@praat
def test_only_the_recordings_voiced_frames_count(clip):
    """What a copy says in the recording's pauses does not change them."""
    track = pitch(clip, RATE)
    voiced = torch.from_numpy(np.interp(np.arange(len(clip)) / RATE, track.seconds, track.frequency > 0))
    far = torch.nn.functional.max_pool1d(voiced[None], 2205, 1, 1102)[0, : len(clip)] == 0
    assert far.any()
    hiss = torch.where(far, 0.01 * torch.randn(len(clip), dtype=torch.float64), 0)
    assert hoarseness(clip, clip + hiss, RATE) == pytest.approx(hoarseness(clip, clip, RATE), abs=0.02)


@praat
def test_voicing_of_a_signal_with_itself_is_1(clip):
    assert voice(clip, clip, RATE)[2] == 1 and score(clip, 0.1 * clip, RATE)["voicing_f1"] == 1
    assert math.isnan(voice(torch.zeros(RATE), torch.zeros(RATE), RATE)[2])
    assert voice(clip, torch.zeros(len(clip)), RATE)[2] == 0


# Opinions


@mos
@pytest.mark.parametrize("seconds", [1.0, 3.0, 12.5])
def test_opinions_are_the_librarys(clip, seconds):
    dnsmos = pytest.importorskip("speechmos.dnsmos", reason="needs librosa and requests, which speechmos imports")
    from speechmos import plcmos

    wave = clip.repeat(6)[: round(seconds * RATE)] + 0.003 * torch.randn(round(seconds * RATE))
    samples = soxr.resample(wave.numpy(), RATE, 16000, quality="HQ")
    theirs = dnsmos.run(samples, 16000)
    overall, p808, loss = opinions(wave, wave, RATE)
    assert (overall, p808) == pytest.approx((theirs["ovrl_mos"], theirs["p808_mos"]), abs=1e-3)
    assert loss == pytest.approx(plcmos.run(samples, 16000)["plcmos"], abs=0.1)  # whose raters are random


@mos
def test_opinions_are_the_same_every_time_and_hear_noise(clip):
    assert opinions(clip, clip, RATE) == opinions(clip[:0], clip, RATE)  # the recording is not heard
    hiss = clip.std() * torch.randn(len(clip))
    grades = np.array([opinions(clip, clip + part * hiss, RATE) for part in (0, 0.3, 1)])
    assert (np.diff(grades[:, :2], axis=0) < 0).all() and (1 < grades).all() and (grades < 5).all()


@mos
def test_silence_has_no_opinion(clip):
    assert all(map(math.isnan, opinions(clip, torch.zeros(len(clip)), RATE)))
    assert all(map(math.isnan, opinions(clip, clip[:1000], RATE)))
