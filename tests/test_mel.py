"""Laws of the mel spectrogram: librosa's numbers, in every convention, and frames that know their place."""

import dataclasses
import functools
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import yaml

from flowavenet.audio import CONVENTIONS, MelSettings, MelSpectrogram, convention, load_audio, mel_filter_bank

DATA = Path(__file__).parent / "data"
CLIPS = sorted(path.stem for path in DATA.glob("*.flac"))
ODD = MelSettings(  # nothing here is even, or a power of two, or a default
    sample_rate=16000,
    n_fft=333,
    win_length=300,
    hop_length=100,
    n_mels=21,
    f_min=50,
    f_max=7777,
    power=1.5,
    log="log10",
)
SETTINGS = {
    **CONVENTIONS,
    "odd": ODD,
    "odd zeros": dataclasses.replace(ODD, pad_mode="constant"),
    "odd start": dataclasses.replace(ODD, frame_centre="start", preemphasis=0.9, mel_scale="htk"),
    "odd bands": dataclasses.replace(ODD, norm=None, offset=tuple(range(21)), scale=tuple(range(-21, 0))),
}
SMALL = MelSettings(sample_rate=800, n_fft=16, win_length=16, hop_length=4, n_mels=3, f_max=400)


@functools.cache
def speech(name: str = "lj") -> torch.Tensor:
    return load_audio(DATA / f"{name}.flac", 22050)[:, 20000:60000].double()


def librosa_bank(settings: MelSettings) -> np.ndarray:
    return librosa.filters.mel(
        sr=settings.sample_rate,
        n_fft=settings.n_fft,
        n_mels=settings.n_mels,
        fmin=settings.f_min,
        fmax=settings.f_max,
        htk=settings.mel_scale == "htk",
        norm=settings.norm,
    )


def librosa_bands(samples: np.ndarray, settings: MelSettings) -> np.ndarray:
    samples = np.append(samples[0], samples[1:] - settings.preemphasis * samples[:-1])
    grid = dict(n_fft=settings.n_fft, win_length=settings.win_length, hop_length=settings.hop_length)
    squared = np.abs(librosa.stft(samples, center=False, **grid)) ** 2
    if settings.eps > 1e-14 and settings.power != 2:
        squared += settings.eps
    return librosa_bank(settings) @ squared ** (settings.power / 2)


# The same numbers as librosa


@pytest.mark.parametrize("name", SETTINGS)
def test_the_filter_bank_is_librosas(name):
    ours = mel_filter_bank(SETTINGS[name])
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.numpy(), librosa_bank(SETTINGS[name]), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("name", SETTINGS)
def test_the_mel_is_librosas(name, clip):
    settings = SETTINGS[name]
    module = MelSpectrogram(settings).double()
    wave = module.normalise(speech(clip))
    bands = np.maximum(librosa_bands(module.pad(wave)[0].numpy(), settings), settings.floor)
    expected = {"ln": np.log(bands), "log10": np.log10(bands), "db": 20 * np.log10(bands)}[settings.log]
    expected = ((expected.T + settings.offset) * settings.scale).T
    if settings.clip:
        expected = expected.clip(*settings.clip)
    torch.testing.assert_close(module(wave)[0].numpy(), expected, atol=1e-5, rtol=0)
    # In float32 the transform itself rounds, which shows where a quiet band lies next to a loud one.
    single = module.float()(wave.float())
    assert single.dtype == torch.float32
    unit = np.abs(settings.scale).max() * (20 if settings.log == "db" else 1)
    torch.testing.assert_close(single[0].double().numpy(), expected, atol=2e-3 * max(1, unit), rtol=0)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.filterwarnings("ignore:n_fft=1024 is too large")
@pytest.mark.parametrize("hops", [1, 2, 40])
def test_flowavenet_is_its_published_preprocessing(clip, hops):
    """The mel of the recording, and the recording half a hop late, against our mel of the late recording."""
    samples = speech(clip)[0, : hops * 256].numpy()
    samples = samples / np.abs(samples).max() * 0.999
    bands = dict(n_mels=80, fmin=125, fmax=7600)
    mel = librosa.feature.melspectrogram(y=samples, sr=22050, n_fft=1024, hop_length=256, **bands)
    mel = 20 * np.log10(np.maximum(1e-4, mel)) - 20
    mel = np.clip((mel + 100) / 100, 0, 1)
    late = np.pad(samples, 128)
    ours = MelSpectrogram(convention("flowavenet")).double()(torch.from_numpy(late)[None])[0]
    assert ours.shape == mel.shape == (80, len(late) // 256)
    torch.testing.assert_close(ours.numpy(), mel, atol=1e-5, rtol=0)


def test_hifigan_is_its_published_preprocessing():
    samples = speech()[0, :25600].numpy()
    mel = librosa_bands(np.pad(samples, 384, mode="reflect"), convention("hifigan"))
    ours = MelSpectrogram(convention("hifigan")).double()(torch.from_numpy(samples)[None])[0]
    torch.testing.assert_close(ours.numpy(), np.log(mel.clip(1e-5)), atol=1e-5, rtol=0)


# Frames


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("samples", [1, 2, 3, 99, 100, 101, 255, 256, 257, 384, 385, 1000, 1024, 5000])
def test_frames_are_the_hops_begun(name, samples):
    settings = SETTINGS[name]
    module = MelSpectrogram(settings)
    frames = -(-samples // settings.hop_length)
    wave = speech()[:, :samples]
    padded = module.pad(wave)
    assert padded.shape == (1, frames * settings.hop_length + settings.n_fft - settings.hop_length)
    assert torch.equal(padded[:, settings.context[0] :][:, :samples], wave), "the context is what lies around the wave"
    assert module(wave).shape == (1, settings.n_mels, frames) and settings.frames(samples) == frames
    assert module(wave).isfinite().all()


@pytest.mark.parametrize("samples", [1, 2, 3, 17, 500])
@pytest.mark.parametrize("settings", [CONVENTIONS["hifigan"], ODD, dataclasses.replace(SMALL, hop_length=1)])
def test_mirroring_is_numpys_for_any_length(settings, samples):
    hop, extra = settings.hop_length, settings.n_fft - settings.hop_length
    wave = torch.arange(1.0, samples + 1)[None]
    whole = np.pad(wave[0].numpy(), (0, -samples % hop))
    expected = np.pad(whole, (extra // 2, extra - extra // 2), mode="reflect")
    assert np.array_equal(MelSpectrogram(settings).pad(wave)[0].numpy(), expected)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_click_is_loudest_in_the_frame_of_its_hop(name):
    settings = CONVENTIONS[name]
    hop, middle = settings.hop_length, settings.hop_length // 2 if settings.frame_centre == "hop" else 0
    wave = torch.zeros(1, 20 * hop)
    wave[0, 7 * hop + middle] = 1.0
    assert MelSpectrogram(settings)(wave).sum(dim=1).argmax() == 7


@pytest.mark.parametrize("name", CONVENTIONS)
def test_shifting_by_a_hop_shifts_the_mel(name):
    module, hop = MelSpectrogram(CONVENTIONS[name]).double(), CONVENTIONS[name].hop_length
    wave = speech()[:, : 40 * hop]
    mel, shifted = module(wave), module(wave[:, hop:])
    ends = -(-CONVENTIONS[name].n_fft // hop)  # frames that may see beyond one
    torch.testing.assert_close(mel[:, :, ends + 1 : -ends], shifted[:, :, ends:-ends])


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_a_crop_of_the_padded_wave_gives_a_crop_of_the_mel(name, dtype, atol):
    settings = SETTINGS[name]
    module = MelSpectrogram(settings).to(dtype)
    padded = module.pad(speech().to(dtype))
    mel = module.from_padded(padded)
    hop, atol = settings.hop_length, atol * max(1, np.abs(settings.scale).max())
    for start, frames in [(0, 1), (5, 31), (40, 62), (mel.shape[2] - 7, 7)]:
        crop = padded[:, start * hop : (start + frames) * hop + settings.n_fft - hop]
        expected = mel[:, :, start : start + frames]
        torch.testing.assert_close(module.from_padded(crop), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_batch_is_its_items_one_by_one(name):
    module = MelSpectrogram(CONVENTIONS[name])
    batch = torch.cat([speech(clip)[:, :9999] for clip in CLIPS])
    one_by_one = torch.cat([module(module.normalise(wave[None])) for wave in batch])
    torch.testing.assert_close(module(module.normalise(batch)), one_by_one)


# Gradients, number formats, devices


def test_the_gradient_is_right():
    module = MelSpectrogram(dataclasses.replace(SMALL, f_max=350)).double()
    wave = torch.randn(2, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(module, wave.requires_grad_())


@pytest.mark.parametrize("name", SETTINGS)
def test_the_gradient_is_finite_at_silence(name):
    wave = torch.zeros(1, 3000)
    wave[0, 2500:] = 1e-30  # underflows when squared
    wave.requires_grad_()
    MelSpectrogram(SETTINGS[name])(wave).sum().backward()
    assert wave.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_still_get_an_exact_mel(dtype):
    wave = speech()[:, :5000].to(dtype)
    exact = MelSpectrogram(MelSettings())(wave.float())
    assert torch.equal(MelSpectrogram(MelSettings())(wave), exact)
    assert torch.equal(MelSpectrogram(MelSettings()).to(dtype)(wave), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(MelSpectrogram(MelSettings())(wave.float()), exact)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_the_same_mel():
    wave = speech().float()
    ours = MelSpectrogram(MelSettings()).cuda()(wave.cuda())
    torch.testing.assert_close(ours.cpu(), MelSpectrogram(MelSettings())(wave), rtol=0, atol=2e-3)


def test_the_module_decides_on_float32_or_float64_and_puts_nothing_into_a_checkpoint():
    module = MelSpectrogram(MelSettings())
    assert module(torch.zeros(1, 9).double()).dtype == torch.float32
    assert module.double()(torch.zeros(1, 9)).dtype == torch.float64
    assert module.window.dtype == torch.float64 and module.state_dict() == {}
    back = module.half().float()
    assert torch.equal(back.window, MelSpectrogram(MelSettings()).window)


def test_normalise_brings_each_row_to_the_peak_and_silence_stays():
    wave = torch.stack([torch.linspace(-0.25, 0.1, 50), torch.zeros(50), torch.full((50,), 3.0)])
    out = MelSpectrogram(convention("flowavenet")).normalise(wave)
    torch.testing.assert_close(out.abs().amax(dim=1), torch.tensor([0.999, 0.0, 0.999]))
    assert torch.equal(MelSpectrogram(convention("hifigan")).normalise(wave), wave)


# Settings, and what is refused


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_survive_yaml(name):
    written = yaml.safe_dump(dataclasses.asdict(SETTINGS[name]))
    assert MelSettings(**yaml.safe_load(written)) == SETTINGS[name]
    assert MelSettings(floor="1e-5") == MelSettings(), "YAML reads 1e-5 as text"


@pytest.mark.parametrize(
    "values, words",
    [
        ({"f_max": 11026.0}, "11025"),
        ({"f_min": 9000.0}, "f_min 9000"),
        ({"f_min": -1.0}, "f_min -1"),
        ({"win_length": 2048}, "n_fft 1024"),
        ({"win_length": 128}, "hop_length 256"),
        ({"n_mels": 0}, "n_mels is 0"),
        ({"sample_rate": 22050.5}, "22050.5"),
        ({"power": 0}, "power"),
        ({"floor": -1e-5}, "floor"),
        ({"floor": float("nan")}, "floor"),
        ({"scale": 0.0}, "scale"),
        ({"offset": float("inf")}, "offset"),
        ({"offset": (1.0, 2.0)}, "2 numbers for n_mels 80"),
        ({"scale": (1.0,) * 79 + (0.0,)}, "not 0"),
        ({"floor": "low"}, "'low'"),
        ({"power": (1, 2)}, "(1, 2)"),
        ({"clip": 4}, "two numbers"),
        ({"mel_scale": "bark"}, "slaney or htk"),
        ({"norm": "area"}, "slaney or None"),
        ({"frame_centre": "end"}, "hop or start"),
        ({"frame_centre": "start", "hop_length": 600}, "half of n_fft 1024"),
        ({"preemphasis": 1.0}, "[0, 1)"),
        ({"eps": 0}, "eps is 0"),
        ({"log": "log2"}, "ln, log10, db"),
        ({"clip": (1, 0)}, "low < high"),
        ({"pad_mode": "same"}, "reflect or constant"),
        ({"peak": 1.5}, "1.5"),
    ],
)
def test_settings_that_make_no_sense(values, words):
    with pytest.raises(ValueError) as caught:
        MelSettings(**values)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wave, words",
    [
        (torch.zeros(100), "wave[None]"),
        (torch.zeros(2, 1, 100), "(2, 1, 100)"),
        (torch.zeros(1, 0), "at least 1 sample"),
        (torch.zeros(1, 100, dtype=torch.int16), "32768"),
    ],
)
@pytest.mark.parametrize("call", ["forward", "pad", "from_padded", "normalise"])
def test_waves_that_are_none(call, wave, words):
    with pytest.raises(ValueError) as caught:
        getattr(MelSpectrogram(MelSettings()), call)(wave)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_crop_shorter_than_a_window():
    with pytest.raises(ValueError, match="call pad first"):
        MelSpectrogram(MelSettings()).from_padded(torch.zeros(1, 1000))


def test_an_unknown_convention():
    with pytest.raises(ValueError, match="'waveglow'.*flowavenet, hifigan"):
        convention("waveglow")
