"""The web page: laws of its experiments, bad files told in a sentence, and the page itself in a real browser."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import CLIPS

from flowavenet import Vocoder
from flowavenet.demo import actions
from flowavenet.demo.clips import load_clip
from flowavenet.demo.likelihood import likelihood_over_time

DATA = Path(__file__).parent / "data"
RATE = 22050


@pytest.fixture(scope="module")
def vocoder():
    return Vocoder.from_pretrained()


@pytest.fixture(scope="module")
def clip(vocoder):
    return load_clip(CLIPS[0], vocoder).beginning(72, 256)


@pytest.fixture(scope="module")
def mel(vocoder):
    return load_clip(DATA / "tacotron2.npy", vocoder).beginning(60, 256)


def test_clips_are_what_the_files_hold(vocoder):
    recording, mel = (load_clip(file, vocoder) for file in (CLIPS[0], DATA / "tacotron2.npy"))
    assert recording.wave.shape[1] == soundfile.info(CLIPS[0]).frames
    assert recording.mel.shape[-1] == vocoder.mel(recording.wave).shape[-1]
    assert mel.wave is None and mel.mel.shape == (1, 80, 285)
    assert recording.whole(vocoder).wave.shape[1] % vocoder.model.group == 0
    assert 0 <= recording.wave.shape[1] - recording.whole(vocoder).wave.shape[1] < vocoder.model.group + 256


@pytest.mark.parametrize("of", ["clip", "mel"])
def test_round_trip_is_exact(vocoder, of, request):
    trip = actions.round_trip(vocoder, request.getfixturevalue(of), 0.8, 0)
    assert trip.error < 1e-5 and trip.exactness > 90
    assert trip.noise.std().item() == pytest.approx(1 if of == "clip" else 0.8, rel=0.1)


def test_sweep_changes_nothing_but_the_temperature(vocoder, clip):
    waves = actions.sweep(vocoder, clip, (0.0, 0.5, 1.0), 0, 3)
    noises = [vocoder.encode(wave, clip.mel) for wave in waves]
    assert noises[0].abs().max() < 0.01
    torch.testing.assert_close(noises[2], 2 * noises[1], atol=0.01, rtol=0.01)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_slerp_stays_on_the_sphere_and_turns_steadily(weight):
    a, b = torch.randn(2, 1, 4096, dtype=torch.float64)
    a, b = a / a.norm(), b / b.norm()
    between = actions.slerp(a, b, weight)
    assert between.norm().item() == pytest.approx(1)
    angle = torch.acos((a * b).sum())
    assert torch.acos((a * between).sum().clamp(-1, 1)).item() == pytest.approx(weight * angle.item(), abs=1e-6)
    torch.testing.assert_close(actions.slerp(a, 2 * a, weight), (1 + weight) * a)


def test_interpolation_ends_at_both_clips(vocoder, clip):
    other = load_clip(CLIPS[1], vocoder)
    first, second = (actions.interpolate(vocoder, clip, other, end, end, 0.8, 0) for end in (0.0, 1.0))
    torch.testing.assert_close(first, clip.wave[:, : first.shape[1]], atol=1e-5, rtol=0)
    torch.testing.assert_close(second, other.wave[:, : first.shape[1]], atol=1e-5, rtol=0)
    between = actions.interpolate(vocoder, clip, other, 0.5, 0.0, 0.8, 0)
    assert min((between - first).std(), (between - second).std()) > 0.1 * first.std()


@pytest.mark.parametrize("gain", [None, 0.0, 2.0, 1.0])
@pytest.mark.parametrize("of", ["clip", "mel"])
def test_edit_is_heard_as_far_as_the_flow_reaches_and_no_further(of, gain, request):
    vocoder = Vocoder.from_pretrained("lapflow-stream-22k")            # whose reach is short
    edited = actions.edit_noise(vocoder, request.getfixturevalue(of), 0.35, 0.4, gain, 0.8, 0)
    change = (edited.after - edited.before)[0].abs()
    before, after = edited.reach
    assert change[: edited.span.start - before].max() < 1e-6
    assert change[edited.span.stop + after :].numel() == 0 or change[edited.span.stop + after :].max() < 1e-6
    if gain == 1.0:
        assert change.max() == 0
    else:
        assert change[edited.span].max() > 10 * edited.loudest(2205) > 0 or edited.loudest(2205) == 0


@pytest.mark.parametrize("start, stop", [(0.5, 0.5), (0.7, 0.2), (5.0, 6.0), (-0.5, 0.2)])
def test_empty_span_is_refused(vocoder, clip, start, stop):
    with pytest.raises(ValueError, match=r"the span .* is empty in a clip of 0.8"):
        actions.edit_noise(vocoder, clip, start, stop, None, 0.8, 0)


def test_likelihood_over_time_adds_up(tiny, vocoder, clip):
    """Exactly, whatever the model, if the context goes back to the beginning; nearly, if it is half a second."""
    for one in (Vocoder.from_pretrained(tiny), vocoder):
        added = likelihood_over_time(one, clip.wave, clip.mel, step=24, context=72)
        assert added.mean().item() * clip.wave.shape[1] == pytest.approx(one.log_prob(clip.wave, clip.mel).item(), rel=1e-4)
    nearly = likelihood_over_time(vocoder, clip.wave, clip.mel, step=24, context=40)
    torch.testing.assert_close(nearly, added, atol=0.1, rtol=0)


def wav(path, samples, rate=RATE):
    soundfile.write(path, np.random.default_rng(0).standard_normal(samples) / 100, rate)


def squeezed(path):
    """A thousandth of what it would become."""
    torch.save(torch.zeros(80, 50_000), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    assert path.stat().st_size < 20_000


def numpy_header(path, shape):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(bytes(1000))


BAD = {
    "text.wav": lambda p: p.write_text("this is not audio " * 50),
    "empty.wav": lambda p: p.write_bytes(b""),
    "silent.wav": lambda p: wav(p, 0),
    "nan.wav": lambda p: soundfile.write(p, np.full(9000, np.nan), RATE, subtype="FLOAT"),
    "short.wav": lambda p: wav(p, 3),
    "long.wav": lambda p: wav(p, 61 * 8000, 8000),
    "slow.wav": lambda p: wav(p, 3000, 1),
    "cut.wav": lambda p: (wav(p, 9000), p.write_bytes(p.read_bytes()[:5000])),
    "cut.flac": lambda p: p.write_bytes(CLIPS[0].read_bytes()[:20000]),
    "noise.mp3": lambda p: p.write_bytes(np.random.default_rng(0).bytes(9000)),
    "page.ogg": lambda p: p.write_text("<html></html>"),
    "huge.npy": lambda p: numpy_header(p, (80, 10**12)),
    "nan.npy": lambda p: np.save(p, np.full((80, 50), np.nan, np.float32)),
    "bands.npy": lambda p: np.save(p, np.random.default_rng(0).standard_normal((33, 500)).astype(np.float32)),
    "pickle.npy": lambda p: np.save(p, np.array([{"a": 1}], dtype=object), allow_pickle=True),
    "flat.npy": lambda p: np.save(p, np.zeros(800, np.float32)),
    "many.npy": lambda p: np.save(p, np.zeros((3, 80, 50), np.float32)),
    "int.npy": lambda p: np.save(p, np.zeros((80, 50), int)),
    "none.npy": lambda p: np.save(p, np.zeros((80, 0), np.float32)),
    "long.npy": lambda p: np.save(p, np.random.default_rng(0).standard_normal((80, 6000)).astype(np.float32) - 5),
    "cut.npy": lambda p: p.write_bytes((DATA / "tacotron2.npy").read_bytes()[:2000]),
    "code.pt": lambda p: p.write_bytes(pickle.dumps(Path("x"))),
    "squeezed.pt": squeezed,
    "bad.safetensors": lambda p: p.write_bytes(b"\xff" * 7 + b"\x7f" + bytes(100)),
    "song.m4a": lambda p: p.write_bytes(b"\x00\x00\x00 ftypM4A " + bytes(500)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_in_one_line(vocoder, tmp_path, name):
    """Which names the file but not the folder that it was uploaded to."""
    BAD[name](tmp_path / name)
    with pytest.raises(ValueError) as caught:
        load_clip(tmp_path / name, vocoder)
    said = str(caught.value)
    assert said.startswith(f"{name}: ") and "\n" not in said and str(tmp_path) not in said and len(said) < 400
