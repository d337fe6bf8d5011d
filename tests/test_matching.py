"""Mel matching brings a wave to the mel asked for, in any convention; the denoiser takes out a hum and nothing else."""

import pytest
import torch

from flowavenet.audio import CONVENTIONS, BiasDenoiser, MelMatching, MelSettings, MelSpectrogram

SETTINGS = {
    **CONVENTIONS,
    "hop of no power of two": MelSettings(hop_length=275, n_fft=2048, win_length=1100, f_min=55.0, f_max=7600.0),
    "little overlap": MelSettings(hop_length=400, win_length=1000),
    "16 kHz": MelSettings(sample_rate=16000, n_fft=512, win_length=400, hop_length=160, log="log10", power=2.0, floor=1e-10),
}


@pytest.fixture(params=SETTINGS)
def matching(request):
    return MelMatching(MelSpectrogram(SETTINGS[request.param]).double())


def wrong_levels(wave):
    """The same words with the wrong loudness and colour, and another sound beneath."""
    t = torch.arange(wave.shape[1], dtype=wave.dtype)
    coloured = wave - 0.7 * wave.roll(1, dims=1)
    return coloured * (1 + 0.5 * torch.sin(t / 900)) + 1e-3 * torch.randn(wave.shape, dtype=wave.dtype)


def distance(matching, wave, mel):
    settings = matching.spectrogram.settings
    return ((matching.spectrogram(wave) - mel) / settings.scale).abs().mean().item()


def test_rounds_bring_the_mel_closer(matching, speech):
    wave = speech.double()
    mel = matching.spectrogram(wave)
    start = wrong_levels(wave)
    distances = [distance(matching, matching(start, mel, rounds), mel) for rounds in (0, 2, 8, 32)]
    assert distances == sorted(distances, reverse=True)
    assert distances[2] < distances[0] / 3 and distances[3] < distances[0] / 5


def test_a_wave_that_has_the_mel_stays(matching, speech):
    wave = speech[:, :20001].double()
    mel = matching.spectrogram(wave)
    assert (matching(wave, mel, 6) - wave).abs().max() < 1e-9
    assert torch.equal(matching(wave, mel + 1, 0), wave)


def test_what_no_band_hears_stays(speech):
    matching = MelMatching(MelSpectrogram(MelSettings(f_max=4000.0)).double())
    high = torch.sin(torch.arange(22016, dtype=torch.float64)[None] * 2 * torch.pi * 8000 / 22050)
    made = matching(high, matching.spectrogram(speech.double()), 4)
    inside = slice(1024, -1024)
    assert (made - high)[:, inside].abs().max() < 0.1


@pytest.mark.parametrize("samples", [1, 100, 256, 257, 900, 5000])
def test_any_length_stays_finite(matching, speech, samples):
    wave = speech[:, 8000 : 8000 + samples].double()
    mel = matching.spectrogram(wave)
    for start in (torch.randn_like(wave), torch.zeros_like(wave)):
        made = matching(start, mel, 4)
        assert made.shape == wave.shape and made.isfinite().all()


def test_batch_is_one_by_one(matching, speech):
    waves = torch.stack([speech[0, :9000], speech[0, 9000:18000]]).double()
    mels = matching.spectrogram(waves.flip(0))
    torch.testing.assert_close(matching(waves, mels, 3)[1:], matching(waves[1:], mels[1:], 3))


def test_nothing_beyond_the_receptive_field_counts(matching, speech):
    wave = speech.double()
    mel = matching.spectrogram(wave.roll(1000, dims=1))
    rounds, hop = 3, matching.spectrogram.settings.hop_length
    field = matching.receptive_field(rounds)
    changed, changed_mel = wave.clone(), mel.clone()
    changed[:, : 60 * hop] += 0.01
    changed_mel[..., :60] += 0.5
    same = (matching(wave, mel, rounds) == matching(changed, changed_mel, rounds))[0]
    assert same[(60 + field) * hop :].all() and not same[: 60 * hop].all()


def test_denoiser_takes_out_the_hum_and_leaves_the_voice(speech):
    t = torch.arange(22016, dtype=torch.float32)
    hum = 0.01 * torch.sin(t * 2 * torch.pi * 1378.125 / 22050)
    denoiser = BiasDenoiser(hum)
    assert denoiser(hum[None], 1.0).square().mean() < 0.01 * hum.square().mean()
    clean = speech
    noisy = clean + hum
    assert torch.equal(denoiser(noisy, 0.0), noisy)
    assert (denoiser(noisy, 1.0) - clean).square().mean() < 0.4 * (noisy - clean).square().mean()
    nothing = BiasDenoiser(torch.zeros(22016))
    torch.testing.assert_close(nothing(noisy, 1.0), noisy, atol=1e-6, rtol=0)
