"""The web page: laws of its experiments, bad files told in a sentence, and the page itself in a real browser."""

import os
import pickle
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import CLIPS, shake

from flowavenet import Vocoder
from flowavenet.audio import MEL_SUFFIXES, MelSettings
from flowavenet.demo import actions, answers
from flowavenet.demo.answers import Request
from flowavenet.models import build
from flowavenet.serve.uploads import load_clip

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
    vocoder = Vocoder.from_pretrained("lapflow-stream-22k")            # which hears little of what is far away
    edited = actions.edit_noise(vocoder, request.getfixturevalue(of), 0.35, 0.4, gain, 0.8, 0)
    change = (edited.after - edited.before)[0].abs()
    before, after = edited.receptive_field
    assert change[: edited.span.start - before].max() < 1e-6
    assert change[edited.span.stop + after :].numel() == 0 or change[edited.span.stop + after :].max() < 1e-6
    if gain == 1.0:
        assert change.max() == 0
    else:
        assert change[edited.span].max() > 10 * edited.loudest(2205)


@pytest.mark.parametrize("start, stop", [(0.5, 0.5), (0.7, 0.2), (5.0, 6.0), (-0.5, 0.2)])
def test_empty_span_is_refused(vocoder, clip, start, stop):
    with pytest.raises(ValueError, match=r"the span .* is empty in a clip of 0.8"):
        actions.edit_noise(vocoder, clip, start, stop, None, 0.8, 0)


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
    "code.pt": lambda p: p.write_bytes(pickle.dumps(Path("x"), protocol=2)),
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


def test_answers_in_a_voice(tmp_path):
    """Every experiment, with a model that tells voices apart: sounds and a picture that are there, and the voice counts."""
    model = shake(build("lapflow", {"speakers": 2, "speaker_width": 4, "width": 16, "cond_width": 8}, 80, 256), 0.02)
    vocoder = Vocoder(model, MelSettings())
    heard = {}
    for speaker in vocoder.speakers:
        request = Request.of(str(CLIPS[0]), vocoder, tmp_path, 0.8, 2, 0, speaker)
        for answer, *more in (
            (answers.vocode,), (answers.round_trip,), (answers.sweep,), (answers.interpolate, str(CLIPS[1]), 0.5, 0.5),
            (answers.edit, 0.5, 0.6, answers.SCALE, 0.5),
        ):
            *sounds, said, picture = answer(request, *more)
            assert said and Path(picture).stat().st_size > 10_000
            heard[answer, speaker] = [soundfile.read(sound)[0] for sound in sounds]
    for answer in (answers.vocode, answers.sweep, answers.interpolate):
        assert not np.array_equal(heard[answer, "0"][-1], heard[answer, "1"][-1])
    with pytest.raises(ValueError, match="speaker is missing"):
        answers.vocode(Request.of(str(CLIPS[0]), vocoder, tmp_path, 0.8, 2, 0, None))


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BUTTONS = {
    "Vocode": "Vocode", "Round trip": "To noise and back", "Temperature": "Same noise, four temperatures",
    "Interpolate": "Interpolate", "Edit the noise": "Edit",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of the page, served as users serve it, which leaves nothing behind."""
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words, folder = [sys.executable, "-m", "flowavenet.cli", "demo", "--port", str(port)], tmp_path_factory.mktemp("server")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(folder)}) as server:
        try:
            said = server.stdout.readline()
            assert said.startswith(f"http://127.0.0.1:{port} "), said
            yield said.split()[0]
        finally:
            server.terminate()
    assert not list(folder.iterdir())


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium to look at the page with")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Open the page as one more visitor, who notes all that it asks the network for."""
    contexts = []

    def open_page():
        contexts.append(browser.new_context(accept_downloads=True, viewport={"width": 1400, "height": 1000}))
        page = contexts[-1].new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        page.locator("#sound audio, #sound [aria-label=Play]").first.wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()


def give(page, file):
    """Upload a file where its kind belongs."""
    place = "mel" if file.suffix in MEL_SUFFIXES else "sound"
    page.get_by_role("tab", name="Mel file" if place == "mel" else "Recording").click()
    if (clear := page.locator(f"#{place}").get_by_label("Clear")).count():
        clear.first.click()
    page.locator(f"#{place} input[type=file]").set_input_files(file)


def press(page, tab):
    page.get_by_role("tab", name=tab, exact=True).click()
    page.get_by_role("button", name=BUTTONS[tab], exact=True).click()


def downloaded(page, label):
    with page.expect_download() as download:
        page.locator(".block", has=page.get_by_text(label, exact=True)).last.get_by_label("Download").click()
    return soundfile.read(download.value.path()), download.value.suggested_filename


def test_page_gives_what_the_library_makes(visit, vocoder, address):
    page = visit()
    give(page, CLIPS[1])
    press(page, "Vocode")
    page.locator(f"img[src*='{CLIPS[1].stem}-spectrograms']").wait_for()
    (heard, rate), name = downloaded(page, "Vocoded")
    clip = load_clip(CLIPS[1], vocoder)
    made = vocoder(clip.mel, seed=0)[0].numpy()
    assert name == f"{CLIPS[1].stem}-vocoded.wav" and rate == RATE and np.abs(heard).max() > 0.01
    np.testing.assert_allclose(heard, made, atol=1e-3)
    assert page.get_by_text("nats per sample").count() and page.get_by_text("RTF").count()
    others = [url for url in page.asked if not url.startswith((address, "data:", "blob:"))]
    assert page.asked and not others                                   # it would work without a network


def test_every_tab_answers(visit):
    page = visit()
    all_said = "Largest error", "Seed 0", "as long as the shorter", "More than 0.1 s"
    for tab, said in zip([*BUTTONS][1:], all_said, strict=True):
        press(page, tab)
        page.get_by_text(said).first.wait_for()
        page.locator("img[src*='-spectrograms']:visible").wait_for()
    give(page, DATA / "tacotron2.npy")
    press(page, "Vocode")
    page.locator("img[src*='tacotron2-spectrograms']").wait_for()
    assert page.locator(".toast-body.error, .toast-body.warning").count() == 0


def test_bad_uploads_are_sent_back_with_a_sentence(visit, tmp_path):
    page = visit()
    for name in ("text.wav", "cut.flac", "song.m4a", "huge.npy", "pickle.npy", "squeezed.pt", "bad.safetensors"):
        BAD[name](tmp_path / name)
        give(page, tmp_path / name)
        page.locator(".toast-body", has_text=f"{name}: ").wait_for()
        page.locator(".toast-close").first.click()
        page.locator(".toast-body").wait_for(state="detached")
    press(page, "Vocode")
    page.get_by_text("there is nothing to work on").wait_for()
    give(page, CLIPS[0])
    press(page, "Vocode")
    page.locator(f"img[src*='{CLIPS[0].stem}-spectrograms']").wait_for()


def test_two_visitors_at_once_get_each_their_own(visit):
    pages = [visit(), visit()]
    for page, file in zip(pages, CLIPS[:2], strict=True):
        give(page, file)
    for page in pages:
        press(page, "Vocode")
    for page, file in zip(pages, CLIPS[:2], strict=True):
        page.locator(f"img[src*='{file.stem}-spectrograms']").wait_for()
        (heard, _), name = downloaded(page, "Vocoded")
        assert name.startswith(file.stem) and abs(len(heard) - soundfile.info(file).frames) < 256


def test_taken_port_and_open_host_are_told_in_a_line(flowavenet):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, said = flowavenet("demo", "--host", "0.0.0.0", "--port", port)
    warning, error = said.splitlines()
    assert code == 2 and error.startswith(f"error: port {port} of 0.0.0.0 cannot be had") and "--port" in error
    assert warning.startswith("warning: everyone who can reach 0.0.0.0")
