"""The calls that users make, on a small model and on the shipped one."""

import numpy as np
import pytest
import torch

from flowavenet import MelSpectrogram, Vocoder, load_mel
from flowavenet.hub import shipped_checkpoints
from flowavenet.vocoder import DEFAULT


@pytest.fixture(scope="module")
def vocoder(tiny):
    return Vocoder.from_pretrained(tiny)


def test_copy_synthesis_has_the_shapes_of_the_readme(vocoder, speech):
    wave = speech[:, :20000]
    mel = vocoder.mel(wave)
    assert mel.shape == (1, 80, 79)
    assert vocoder(mel, temperature=0.8, seed=0).shape == (1, 79 * 256)
    assert vocoder.encode(wave, mel).shape == (1, 20000)
    assert vocoder.log_prob(wave, mel).shape == (1,)


@pytest.mark.parametrize("samples", [1, 3, 255, 256, 257, 5000, 20001])
def test_encode_decode_is_exact_at_any_length(vocoder, speech, samples):
    wave = speech[:, :samples]
    mel = vocoder.mel(wave)
    assert (vocoder.decode(vocoder.encode(wave, mel), mel) - wave).abs().max() < 1e-4


@pytest.mark.parametrize("given", [
    lambda mel: mel.numpy(), lambda mel: mel[0], lambda mel: mel[0].numpy(), lambda mel: mel.double(),
    lambda mel: mel.numpy().astype("float16").astype("float32"), lambda mel: np.asfortranarray(mel.numpy()),
])
def test_mels_and_waves_come_as_they_are(vocoder, speech, given):
    """Tensors or arrays, of any float type, with or without a batch dimension."""
    wave = speech[:, :5000]
    mel = vocoder.mel(wave)
    close = {"atol": 1e-2, "rtol": 0}                                  # one of them went through half precision
    torch.testing.assert_close(vocoder(given(mel), seed=0), vocoder(mel, seed=0), **close)
    torch.testing.assert_close(vocoder.mel(wave[0].numpy()), mel)
    torch.testing.assert_close(vocoder.encode(wave[0].numpy(), given(mel)), vocoder.encode(wave, mel), atol=0.1, rtol=0)
    torch.testing.assert_close(torch.cat(list(vocoder.stream(given(mel), 8, seed=0)), dim=1), vocoder(mel, seed=0), **close)


def test_half_precision_mels_are_widened(vocoder):
    mel = torch.randn(1, 80, 5) - 5
    assert vocoder(mel.half(), seed=0).dtype == vocoder(mel.bfloat16(), seed=0).dtype == torch.float32


@pytest.mark.parametrize("mel, says", [
    (torch.zeros(30, 80), r"mel has shape \(30, 80\), this vocoder wants \(80, frames\) or .* give mel.T"),
    (torch.zeros(1, 30, 80), r"give mel.transpose\(1, 2\)"),
    (np.zeros((1, 30, 80), "float32"), r"give mel.swapaxes\(1, 2\)"),
    (torch.zeros(100, 30), "compute it with this checkpoint's mel settings"), (torch.zeros(2, 3, 80, 9), "wants"),
    (torch.zeros(80), "wants"), (torch.zeros(80, 9, dtype=torch.int16), "floating-point"), (torch.zeros(80, 0), "0 frames"),
])
def test_what_is_no_mel_is_told_with_the_cure(vocoder, mel, says):
    with pytest.raises(ValueError, match=says) as caught:
        vocoder(mel)
    assert "\n" not in str(caught.value)


def test_what_is_no_wave_is_told_with_the_cure(vocoder):
    with pytest.raises(ValueError, match="divide 16-bit samples by 32768"):
        vocoder.mel(torch.zeros(1, 5000, dtype=torch.int16))
    with pytest.raises(ValueError, match=r"wave has shape \(1, 1, 5000\)"):
        vocoder.mel(torch.zeros(1, 1, 5000))


def test_load_mel_and_vocode_are_two_lines(vocoder, tmp_path):
    np.save(tmp_path / "mel.npy", np.full((7, 80), -5.0, np.float16))  # as Tacotrons write them: (frames, bands)
    assert vocoder(load_mel(tmp_path / "mel.npy")).shape == (1, 7 * 256)


def test_seed_decides_the_samples(vocoder):
    mel = torch.randn(2, 80, 5) - 5
    assert torch.equal(vocoder(mel, seed=3), vocoder(mel, seed=3))
    assert not torch.equal(vocoder(mel, seed=3), vocoder(mel, seed=4))
    assert not torch.equal(vocoder(mel), vocoder(mel))


def test_sampled_noise_is_what_encode_finds(vocoder):
    mel = torch.randn(1, 80, 50) - 5
    for temperature in (0.5, 0.8):
        wave = vocoder(mel, temperature, seed=0, match=0)
        assert vocoder.encode(wave, mel).std().item() == pytest.approx(temperature, rel=0.05)


def test_matching_brings_the_sample_to_its_mel(vocoder, speech):
    mel = vocoder.mel(speech)
    distances = [(vocoder.mel(vocoder(mel, seed=0, match=rounds)) - mel).abs().mean() for rounds in (0, 4, 16)]
    assert distances[0] > 2 * distances[1] > 2 * distances[2] > 0
    assert torch.equal(vocoder(mel, seed=0), vocoder(mel, vocoder.synthesis["temperature"], 0, vocoder.synthesis["match"]))


def test_denoising_takes_out_what_is_made_of_silence(tiny):
    vocoder = Vocoder.from_pretrained(tiny)
    silence = vocoder.mel(torch.zeros(1, 40 * 256))
    power = [vocoder(silence, 0.0, 0, match=0, denoise=strength).square().mean() for strength in (0.0, 0.5, 1.0)]
    assert power[0] > 2 * power[1] and power[2] < 0.05 * power[0]


def test_bfloat16_is_close_and_other_precisions_are_refused(tiny, speech):
    exact, half = Vocoder.from_pretrained(tiny), Vocoder.from_pretrained(tiny, precision="bfloat16")
    mel = exact.mel(speech)
    a, b = exact(mel, seed=0, match=0), half(mel, seed=0, match=0)
    assert b.dtype == torch.float32 and 0 < (a - b).square().mean() < 0.01 * a.square().mean()
    with pytest.raises(ValueError, match="float32, bfloat16"):
        Vocoder.from_pretrained(tiny, precision="float16")


def test_nothing_keeps_gradients(vocoder, speech):
    mel = vocoder.mel(speech)
    for result in (mel, vocoder(mel), vocoder.encode(speech, mel), vocoder.log_prob(speech, mel)):
        assert not result.requires_grad


def test_mel_is_that_of_the_settings(vocoder, speech):
    torch.testing.assert_close(vocoder.mel(speech), MelSpectrogram(vocoder.settings)(speech))


def test_saved_and_loaded_it_is_the_same(vocoder, speech, tmp_path):
    vocoder.save(tmp_path / "copy")
    copy = Vocoder.from_pretrained(tmp_path / "copy")
    mel = vocoder.mel(speech)
    assert torch.equal(copy(mel, seed=0), vocoder(mel, seed=0))
    assert copy.settings == vocoder.settings and copy.facts == vocoder.facts


def test_unknown_checkpoint_names_the_shipped_ones():
    with pytest.raises(FileNotFoundError, match=f"no/such/: no such checkpoint folder.*{DEFAULT}"):
        Vocoder.from_pretrained("no/such/")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_device_that_is_not_there_is_one_line(tiny, device):
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used here") as caught:
        Vocoder.from_pretrained(tiny, device)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", shipped_checkpoints())
def test_shipped_checkpoint_speaks(name, speech):
    """Copy synthesis of a real recording: its mel comes back, it is neither silent nor clipped, and likely."""
    vocoder = Vocoder.from_pretrained(name)
    mel = vocoder.mel(speech)
    wave = vocoder(mel, seed=0)
    distance = (vocoder.mel(wave) - mel).abs().mean()
    assert distance < 1.2
    assert 0.3 < wave.std() / speech.std() < 2 and wave.abs().max() <= 1.5
    assert vocoder.log_prob(speech, mel).item() / speech.shape[1] > 3.0
    assert (vocoder.decode(vocoder.encode(speech, mel), mel) - speech).abs().max() < 1e-3


def test_the_default_is_shipped():
    assert DEFAULT in shipped_checkpoints()


def test_synthesis_leaves_the_random_numbers_of_others_alone(vocoder):
    mel = torch.randn(1, 80, 5) - 5
    for seed in (None, 3):
        before = torch.random.get_rng_state()
        vocoder(mel, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
