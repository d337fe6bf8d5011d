"""The metrics know what they should: identity, level, noise, pitch, and what the libraries themselves say."""

import math
import sys

import numpy as np
import pytest
import soxr
import torch
from conftest import CLIPS

from flowavenet import load_audio
from flowavenet.audio import MelSettings, MelSpectrogram
from flowavenet.evaluation.alignment import find_lag, without_lag
from flowavenet.evaluation.artefacts import tonal_lines, tremble
from flowavenet.evaluation.metrics import MEASURES, METRICS, describe, hints, score
from flowavenet.evaluation.opinion import _sessions
from flowavenet.evaluation.perceptual import pesq_wb
from flowavenet.evaluation.pitch import FLOOR_HZ, pitch, voice
from flowavenet.evaluation.spectral import RESOLUTIONS, mel_distances, mr_stft
from flowavenet.evaluation.tuning import temperatures
from flowavenet.vocoder import Vocoder

RATE = 22050


@pytest.fixture(scope="module")
def clip():
    return load_audio(CLIPS[0], RATE)[0]


@pytest.fixture(scope="module")
def identity(clip):
    return score(clip, clip, RATE)


def buzz(frequency, seconds=1.0):
    """All harmonics of a pitch below 3 kHz."""
    t = torch.arange(round(seconds * RATE)).double() / RATE
    return sum(torch.sin(2 * torch.pi * k * frequency * t + k * k) for k in range(1, int(3000 / frequency))) / 20


def rephased(wave):
    """A copy with the same spectrogram, nearly, and phases of its own, as from Griffin-Lim."""
    grid = {"n_fft": 512, "hop_length": 64, "window": torch.hann_window(512)}
    magnitude = torch.stft(wave, **grid, return_complex=True).abs()
    phases = 2 * torch.pi * torch.rand(magnitude.shape)
    for _ in range(8):
        wave = torch.istft(torch.polar(magnitude, phases), **grid, length=len(wave))
        phases = torch.stft(wave, **grid, return_complex=True).angle()
    return wave


# Laws


def test_every_column_is_measured_once():
    assert sorted(name for names in MEASURES for name in names) == sorted(METRICS)


def test_a_recording_is_itself(clip, identity):
    assert identity["pesq_wb"] > 4.5 and identity["stoi"] == pytest.approx(1) and identity["voicing_f1"] == 1
    own = describe(clip, RATE)
    for name, metric in METRICS.items():
        if metric.alone:
            assert own[name] == pytest.approx(identity[name], nan_ok=True), name
        elif name not in ("pesq_wb", "stoi", "voicing_f1"):
            assert identity[name] == 0 and math.isnan(own[name]), name


def test_level_and_a_last_hop_do_not_count(clip, identity):
    louder = torch.cat([1.9 * clip, torch.randn(200)])
    for name, value in score(clip, louder, RATE).items():
        assert value == pytest.approx(identity[name], abs=1e-3, nan_ok=True), name


def test_noise_is_worse_on_every_metric_the_more_there_is(clip):
    noise = clip.std() * torch.randn(len(clip), generator=torch.Generator().manual_seed(0))
    some, much = score(clip, clip + 0.03 * noise, RATE), score(clip, clip + noise, RATE)
    for name, metric in METRICS.items():
        if metric.best != "0" and name not in ("f0_rmse_cents", "plcmos") and not math.isnan(some[name]):
            assert (some[name] > much[name]) if metric.best == "high" else (some[name] < much[name]), name
    assert score(clip, noise, RATE)["stoi"] < 0.5


def test_silence_does_not_break_it(clip):
    zeros = torch.zeros(len(clip))
    for pair in ((clip, zeros), (zeros, clip), (zeros, zeros)):
        assert list(score(*pair, RATE)) == list(METRICS)


def test_a_missing_library_is_a_blank_and_a_hint(clip, monkeypatch):
    for name in ("pesq", "pystoi", "parselmouth", "speechmos", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    _sessions.cache_clear()
    found = score(clip, clip, RATE)
    blank = [name for name, metric in METRICS.items() if metric.needs]
    assert len(blank) == 13 and all(math.isnan(found[name]) for name in blank) and found["log_mel_l1"] == 0
    assert len(hints()) == 5 and all("pip install 'flowavenet[evaluate]'" in hint for hint in hints())


# What the libraries say


def test_pesq_and_stoi_are_the_libraries(clip):
    pesq, pystoi = (pytest.importorskip(name) for name in ("pesq", "pystoi"))
    other = clip + 0.01 * torch.randn(len(clip), generator=torch.Generator().manual_seed(0))
    other = other * (clip.square().mean() / other.square().mean()).sqrt()
    found = score(clip, other, RATE)
    a, b = (soxr.resample(x.double().numpy(), RATE, 16000) for x in (clip, other))
    assert found["pesq_wb"] == pytest.approx(pesq.pesq(16000, a, b, "wb"), abs=0.01)
    assert found["stoi"] == pytest.approx(pystoi.stoi(clip.numpy(), other.numpy(), RATE), abs=1e-4)


def test_pesq_survives_long_recordings(clip):
    """Its library crashes on more than 50 utterances, as in 44 s of words and pauses."""
    pytest.importorskip("pesq")
    words = torch.cat([clip[8000:16000], torch.zeros(8000)]).repeat(60)
    assert pesq_wb(words, words, RATE) > 4.5


@pytest.mark.parametrize("path", CLIPS[:2], ids=lambda path: path.stem)
def test_pitch_is_praats(path):
    parselmouth = pytest.importorskip("parselmouth")
    wave = load_audio(path, RATE)[0]
    praat = parselmouth.Sound(wave.double().numpy(), RATE).to_pitch(time_step=0.005, pitch_floor=75, pitch_ceiling=600)
    chosen, found = praat.selected_array, pitch(wave, RATE)
    np.testing.assert_array_equal(found.frequency, chosen["frequency"])
    assert (found.periodicity >= chosen["strength"]).all() and found.periodicity.max() <= 1
    assert np.mean(found.periodicity == chosen["strength"]) > 0.4      # the best candidate, which mostly is the chosen one


def test_mel_cepstra_are_librosas(clip):
    librosa = pytest.importorskip("librosa")
    other = clip + 0.01 * torch.randn_like(clip)
    mels = MelSpectrogram(MelSettings())(torch.stack([clip, other])).numpy()
    a, b = (librosa.feature.mfcc(S=mel, n_mfcc=25)[1:] * math.sqrt(2 / 80) for mel in mels)
    distortion = 10 / math.log(10) * np.sqrt(2 * ((a - b) ** 2).sum(axis=0)).mean()
    assert mel_distances(clip, other, RATE) == pytest.approx((np.abs(mels[0] - mels[1]).mean(), distortion), rel=1e-4)


@pytest.mark.parametrize("block", [50, 1024])
def test_stft_distances_are_their_formulas(block, monkeypatch):
    monkeypatch.setattr("flowavenet.evaluation.spectral.BLOCK", block)
    rng = np.random.default_rng(0)
    a, b = 0.1 * rng.standard_normal((2, 6000))
    logs, convergences = [], []
    for n_fft, hop, win in RESOLUTIONS:
        window = np.zeros(n_fft)
        start = (n_fft - win) // 2
        window[start : start + win] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win) / win)

        def magnitudes(x, n_fft=n_fft, hop=hop, window=window):
            x = np.pad(x, n_fft // 2)
            frames = [x[i : i + n_fft] * window for i in range(0, len(x) - n_fft + 1, hop)]
            return np.abs(np.fft.rfft(frames))

        ma, mb = magnitudes(a), magnitudes(b)
        logs.append(np.abs(np.log(np.maximum(ma, 3e-4)) - np.log(np.maximum(mb, 3e-4))).mean())
        convergences.append(np.linalg.norm(ma - mb) / np.linalg.norm(ma))
    found = mr_stft(torch.from_numpy(a), torch.from_numpy(b), RATE)
    assert found == pytest.approx((np.mean(logs), np.mean(convergences)), rel=1e-6)


# Known answers


@pytest.mark.parametrize("hz", [100, 220])
def test_a_semitone_is_100_cents(hz):
    pytest.importorskip("parselmouth")
    cents, unvoiced, _, _ = voice(buzz(hz), buzz(hz * 2 ** (1 / 12)), RATE)
    assert cents == pytest.approx(100, abs=0.5) and unvoiced < 0.02


def test_speech_a_semitone_higher_shows_in_its_pitch_and_little_else(clip, identity):
    parselmouth = pytest.importorskip("parselmouth")
    call = parselmouth.praat.call
    sound = parselmouth.Sound(clip.double().numpy(), RATE)
    copies = []
    for factor in (1, 2 ** (1 / 12)):
        manipulation = call(sound, "To Manipulation", 0.01, FLOOR_HZ, 600)
        tier = call(manipulation, "Extract pitch tier")
        call(tier, "Multiply frequencies", sound.xmin, sound.xmax, factor)
        call([tier, manipulation], "Replace pitch tier")
        copies.append(torch.from_numpy(call(manipulation, "Get resynthesis (overlap-add)").values[0]))
    same, higher = (score(clip, copy, RATE) for copy in copies)
    assert same["f0_rmse_cents"] < 30 and higher["f0_rmse_cents"] == pytest.approx(100, abs=20)
    assert higher["stoi"] > 0.9


def test_what_loses_its_voice_is_an_error_of_voicing():
    pytest.importorskip("parselmouth")
    whole = buzz(150)
    half = torch.cat([whole[: RATE // 2], 0.1 * torch.randn(RATE - RATE // 2)])
    cents, unvoiced, f1, periodicity = voice(whole, half, RATE)
    assert cents < 5 and unvoiced == pytest.approx(0.5, abs=0.05) and periodicity > 0.4
    assert f1 == pytest.approx(2 / 3, abs=0.05)                        # precision 1, recall 1/2


def test_silence_around_speech_dilutes_the_voicing_error_but_not_its_f1(clip):
    pytest.importorskip("parselmouth")
    hoarse = clip + 0.3 * clip.std() * torch.randn(len(clip))
    silence = torch.zeros(2 * RATE)
    (_, error, f1, _), (_, diluted, same, _) = (
        voice(torch.cat([clip, rest]), torch.cat([hoarse, rest]), RATE) for rest in (silence[:0], silence)
    )
    assert diluted < 0.7 * error and same == pytest.approx(f1, abs=0.02) and f1 < 1


def test_periodicity_is_the_share_of_what_repeats():
    pytest.importorskip("parselmouth")
    clear = buzz(150)
    hoarse = clear + clear.std() * torch.randn(len(clear))
    assert np.median(pitch(clear, RATE).periodicity) > 0.99
    assert np.median(pitch(hoarse, RATE).periodicity) == pytest.approx(0.5, abs=0.08)


def test_an_envelope_that_ripples_by_known_decibels():
    """A ripple of r dB along the mel axis is one cepstral coefficient: MCD is its RMS, r / sqrt(2)."""
    mel = MelSpectrogram(MelSettings())
    noise = torch.randn(4 * RATE)
    centres = mel.filter_bank @ torch.linspace(0, RATE / 2, 513) / mel.filter_bank.sum(dim=1)
    ripple = 6 * torch.cos(math.pi * 4 * (torch.arange(80) + 0.5) / 80)
    gain = np.interp(np.fft.rfftfreq(len(noise), 1 / RATE), centres, ripple)
    rippled = torch.from_numpy(np.fft.irfft(np.fft.rfft(noise) * 10 ** (gain / 20)))
    assert mel_distances(noise, rippled, RATE)[1] == pytest.approx(6 / math.sqrt(2), rel=0.05)


def test_griffin_lim_is_exposed_by_the_first_column(clip):
    """PESQ and STOI take it for good speech; the log-magnitude has it far above what a vocoder may miss."""
    librosa = pytest.importorskip("librosa")
    bank = MelSpectrogram(MelSettings()).filter_bank.numpy()
    mel = bank @ np.abs(librosa.stft(clip.numpy(), n_fft=1024, hop_length=256))
    magnitude = np.maximum(np.linalg.pinv(bank) @ mel, 0)
    made = librosa.griffinlim(magnitude, n_iter=32, hop_length=256, n_fft=1024, length=len(clip), random_state=0)
    vocoder = Vocoder.from_pretrained()
    ours = vocoder(vocoder.mel(clip[None]), seed=0)[0]
    griffin_lim, lapflow = (score(clip, wave, RATE) for wave in (torch.from_numpy(made), ours))
    first = next(iter(METRICS))
    assert griffin_lim["stoi"] > 0.95 and griffin_lim[first] > 1.5 * lapflow[first]


@pytest.mark.parametrize("period", [128, 256, 512])
def test_what_repeats_every_hop_shows_as_lines(clip, period):
    ticks = torch.zeros_like(clip)
    ticks[::period] = 0.1 * clip.std()
    assert tonal_lines(clip, clip + ticks, RATE) > 1
    uneven = torch.zeros_like(clip)                                    # as many ticks, as loud, but they do not repeat
    uneven[torch.randperm(len(clip))[: len(clip) // period]] = 0.1 * clip.std()
    assert abs(tonal_lines(clip, clip + uneven, RATE)) < 0.5


def test_a_trembling_voice_shows(clip):
    t = torch.arange(len(clip)) / RATE
    some, much = (tremble(clip, clip * (1 + depth * torch.sin(2 * torch.pi * 30 * t)), RATE) for depth in (0.1, 0.4))
    assert 0 < some < much and much > 0.5
    assert abs(tremble(clip, clip * (1 + 0.4 * torch.sin(2 * torch.pi * t)), RATE)) < 0.1  # loudness may change slowly


# Alignment


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("lag", [0, 5, 1105, -300])
def test_the_lag_of_the_same_waveform_is_exact(clip, lag, sign):
    late = torch.cat([torch.zeros(max(lag, 0)), sign * clip[max(-lag, 0) :]]) + 0.01 * clip.std()
    assert find_lag(clip, late, RATE) == lag
    a, b = without_lag(clip, late - 0.01 * clip.std(), lag)
    torch.testing.assert_close(a, sign * b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.stem)
def test_the_lag_of_other_phases_is_near_and_never_invented(path):
    wave = load_audio(path, RATE)[0]
    copy = rephased(wave)
    assert find_lag(wave, copy, RATE) == 0
    assert find_lag(wave, torch.cat([torch.zeros(882), copy]), RATE) == pytest.approx(882, abs=2 * RATE / 1000)
    assert find_lag(wave, torch.randn(len(wave)), RATE) == 0
    assert find_lag(wave, torch.zeros(len(wave)), RATE) == 0


# Choosing a temperature


def test_temperatures_are_ranked_by_all_criteria(tiny, clip):
    vocoder = Vocoder.from_pretrained(tiny)
    rows = temperatures(vocoder, [clip[None, :22016], clip[None, 22016:44032]], [0.0, 0.5, 5.0], match=0)
    made = vocoder(vocoder.mel(clip[None, :22016]), 0.5, seed=0, match=0)[0]
    other = vocoder(vocoder.mel(clip[None, 22016:44032]), 0.5, seed=0, match=0)[0]
    a, b = score(clip[:22016], made, RATE), score(clip[22016:44032], other, RATE)
    assert rows[1]["log_mel_l1"] == pytest.approx((a["log_mel_l1"] + b["log_mel_l1"]) / 2)
    assert all(1 <= row["rank"] <= 3 for row in rows) and len({row["rank"] for row in rows}) > 1


def test_a_temperature_that_is_more_periodic_than_the_recording_is_no_better_for_it(tiny, clip, monkeypatch):
    own = describe(clip[:22016], RATE)["hnr_db"]
    told = {  # DNSMOS, HNR less the recording's, PESQ, log-magnitude
        0.1: (3.0, 4.0, 2.0, 0.9), 0.5: (3.2, -0.5, 2.0, 0.8), 1.0: (3.1, -2.0, 1.9, 0.8),
    }
    names = ("dnsmos", "hnr_db", "pesq_wb", "mr_stft_log_magnitude")
    answers = iter(told.values())

    def fake(*_):
        return dict.fromkeys(METRICS, math.nan) | {
            name: value + own * (name == "hnr_db") for name, value in zip(names, next(answers), strict=True)
        }

    monkeypatch.setattr("flowavenet.evaluation.tuning.score", fake)
    rows = temperatures(Vocoder.from_pretrained(tiny), [clip[None, :22016]], list(told), match=0)
    if math.isnan(own):
        pytest.skip("needs praat-parselmouth: pip install 'flowavenet[evaluate]'")
    assert [row["hnr_gap_db"] for row in rows] == pytest.approx([4, 0.5, 2], abs=1e-4)
    assert [row["rank"] for row in rows] == [(3 + 3 + 1 + 3) / 4, 1, (2 + 2 + 3 + 1) / 4]
