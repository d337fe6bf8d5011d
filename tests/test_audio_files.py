"""Laws of audio files: read whole and right or refused in one line; written whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from flowavenet.audio import audio_blocks, audio_info, list_audio, load_audio, save_audio
from flowavenet.files import write_atomically

DATA = Path(__file__).parent / "data"
CLIPS = sorted(DATA.glob("*.flac"))
RATE = 22050
HALF_STEP = 0.5 / 32768


def tone(samples: int, rate: int = RATE, hz: float = 220.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(samples) / rate)


def refusal(error: type[Exception], call, *args) -> str:
    """The message of the error that a call raises; it must be one line."""
    with pytest.raises(error) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Reading


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.stem)
def test_real_clips_load_as_they_are(path):
    wave = load_audio(path, RATE)
    expected, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE and wave.shape == (1, len(expected)) and wave.dtype == torch.float32
    assert np.array_equal(wave[0].numpy(), expected)
    assert audio_info(path).seconds == len(expected) / RATE


def test_stereo_at_another_rate_becomes_mono_at_ours(tmp_path):
    left, right = tone(48000, 48000, 220.0), tone(48000, 48000, 440.0)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 48000)
    wave = load_audio(tmp_path / "a.wav", RATE)[0].numpy()
    assert wave.shape == (RATE,)
    expected = (tone(RATE) + tone(RATE, hz=440.0)) / 2
    assert np.abs(wave - expected)[500:-500].max() < 1e-3


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_every_format_is_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix.upper()}"
    soundfile.write(path, tone(RATE), RATE)
    wave = load_audio(path, RATE)
    assert wave.shape == (1, RATE)
    assert np.abs(wave[0].numpy() - tone(RATE))[2000:-2000].max() < 0.05


@pytest.mark.parametrize("samples", [1, 3])
def test_a_file_of_three_samples_loads(tmp_path, samples):
    save_audio(tmp_path / "a.wav", torch.full((samples,), 0.5), 48000)
    assert load_audio(tmp_path / "a.wav", 48000).shape == (1, samples)
    assert load_audio(tmp_path / "a.wav", RATE).shape[1] == -(-samples * RATE // 48000)


@pytest.mark.parametrize("rate", [RATE, 48000, 16000, 22051])
@pytest.mark.parametrize("samples", [1, 3, 70000, 200001])
def test_blocks_are_the_whole(tmp_path, rate, samples):
    recorded = np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", recorded, rate, subtype="FLOAT")
    blocks = list(audio_blocks(tmp_path / "a.wav", RATE))
    assert max(block.shape[1] for block in blocks) <= 2 * 65536
    whole = torch.cat(blocks, dim=1)
    assert torch.equal(whole, load_audio(tmp_path / "a.wav", RATE))
    expected = soxr.resample(recorded, rate, RATE) if rate != RATE else recorded
    assert whole.shape == (1, -(-samples * RATE // rate))
    np.testing.assert_allclose(whole[0, : len(expected)], expected, atol=1e-6, rtol=0)


# Refusing


def test_a_missing_file(tmp_path):
    assert "no such file" in refusal(FileNotFoundError, load_audio, tmp_path / "none.wav", RATE)
    assert "none.wav" in refusal(FileNotFoundError, audio_info, tmp_path / "none.wav")
    assert "is a folder" in refusal(ValueError, load_audio, tmp_path, RATE)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.raw"])
def test_a_text_file_with_the_name_of_audio(tmp_path, name):
    (tmp_path / name).write_text("these are words, not samples\n" * 3)
    message = refusal(ValueError, load_audio, tmp_path / name, RATE)
    assert str(tmp_path / name) in message and "convert" in message


def test_a_file_of_no_bytes(tmp_path):
    (tmp_path / "a.wav").touch()
    assert "0 bytes" in refusal(ValueError, load_audio, tmp_path / "a.wav", RATE)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.98])
@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_a_truncated_file(tmp_path, suffix, keep):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, load_audio(CLIPS[0], RATE)[0].numpy(), RATE)
    promised = soundfile.info(path).frames * (2 if suffix == ".wav" else 1)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    message = refusal(ValueError, load_audio, path, RATE)
    assert "cut short" in message and str(promised) in message and str(path) in message


def test_a_wav_from_a_pipe_does_not_know_its_length_and_is_read(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1000), RATE, subtype="PCM_16")
    content = path.read_bytes()
    at = content.index(b"data") + 4
    path.write_bytes(content[:at] + b"\xff\xff\xff\xff" + content[at + 4 :])
    assert load_audio(path, RATE).shape == (1, 1000)


def test_a_flac_from_a_pipe_does_not_know_its_length(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(100000), RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the count of samples is the 36 bits before the checksum
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert "does not tell its length" in refusal(ValueError, load_audio, path, RATE)
    assert "does not tell its length" in refusal(ValueError, audio_info, path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path, value):
    samples = tone(1000)
    samples[[400, 700]] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    message = refusal(ValueError, load_audio, tmp_path / "a.wav", RATE)
    assert "2 of the first 1000" in message and "first at 400" in message


def test_a_file_of_no_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE)
    assert "0 samples" in refusal(ValueError, load_audio, tmp_path / "a.wav", RATE)


@pytest.mark.parametrize("rate", [0, -1, 22050.0, "22050"])
def test_a_sample_rate_that_is_none(rate):
    assert repr(rate) in refusal(ValueError, load_audio, CLIPS[0], rate)


# Writing


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("path", CLIPS[:2], ids=lambda path: path.stem)
def test_a_round_trip_is_within_half_a_step(tmp_path, path, suffix):
    wave = load_audio(path, RATE) * 0.7654321
    save_audio(tmp_path / f"a{suffix}", wave, RATE)
    assert (load_audio(tmp_path / f"a{suffix}", RATE) - wave).abs().max() <= HALF_STEP
    assert soundfile.info(tmp_path / f"a{suffix}").subtype == "PCM_16"


def test_a_second_round_trip_changes_nothing(tmp_path):
    wave = load_audio(CLIPS[0], RATE)
    save_audio(tmp_path / "a.wav", wave, RATE)
    assert torch.equal(load_audio(tmp_path / "a.wav", RATE), wave)


def test_what_exceeds_full_scale_is_clipped(tmp_path):
    save_audio(tmp_path / "a.wav", torch.tensor([2.0, 1.0, -1.0, -3.0]), RATE)
    assert (load_audio(tmp_path / "a.wav", RATE)[0] * 32768).tolist() == [32767, 32767, -32768, -32768]


def test_channels_stay_apart_and_dtypes_are_taken(tmp_path):
    save_audio(tmp_path / "a.flac", np.array([[0.5, 0.25, 0.0], [-0.5, 0.0, 0.0]]), RATE)
    assert soundfile.read(tmp_path / "a.flac")[0].tolist() == [[0.5, -0.5], [0.25, 0.0], [0.0, 0.0]]
    save_audio(tmp_path / "b.wav", torch.full((1, 9), 0.5, dtype=torch.bfloat16, requires_grad=True), RATE)
    assert load_audio(tmp_path / "b.wav", RATE).tolist() == [[0.5] * 9]


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_pieces_are_written_as_the_whole(tmp_path, suffix):
    wave = torch.randn(2, 200000) / 3
    save_audio(tmp_path / f"whole{suffix}", wave, RATE)
    save_audio(tmp_path / f"pieces{suffix}", iter(wave.split([1, 99999, 100000], dim=1)), RATE)
    assert (tmp_path / f"pieces{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def test_pieces_that_end_in_an_error_leave_nothing(tmp_path):
    def pieces(last):
        yield torch.zeros(1, 100000)
        yield last

    path = tmp_path / "a.wav"
    assert "1 of 5" in refusal(ValueError, save_audio, path, pieces(torch.tensor([[0, 0, torch.nan, 0, 0]])), RATE)
    refusal(ValueError, save_audio, path, pieces(torch.zeros(2, 9)), RATE)
    assert "no pieces" in refusal(ValueError, save_audio, path, iter([]), RATE)
    assert os.listdir(tmp_path) == []


def test_a_wav_longer_than_its_header_can_count_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("flowavenet.audio.files.MAX_WAV_BYTES", 4000)
    save_audio(tmp_path / "just.wav", torch.zeros(2000), 22050)
    with pytest.raises(ValueError, match=r"more\.wav: longer than the 0\.0 h that a WAV can hold; write \.flac"):
        save_audio(tmp_path / "more.wav", torch.zeros(2001), 22050)
    save_audio(tmp_path / "more.flac", torch.zeros(2001), 22050)
    assert {path.name for path in tmp_path.iterdir()} == {"just.wav", "more.flac"}


def test_a_minute_of_ogg(tmp_path):
    save_audio(tmp_path / "a.ogg", torch.from_numpy(tone(60 * RATE)), RATE)
    assert audio_info(tmp_path / "a.ogg").seconds == 60


@pytest.mark.parametrize(
    "name, wave, words",
    [
        ("a.wav", torch.tensor([0.0, torch.nan, torch.inf]), "2 of 3"),
        ("a.wav", torch.zeros(0), "no sample"),
        ("a.wav", torch.zeros(1, 1, 9), "(1, 1, 9)"),
        ("a.wav", torch.zeros(99, 1), "wave.T"),
        ("a.wav", torch.zeros(9, dtype=torch.int16), "32768"),
        ("a.mp4", torch.zeros(9), ".flac"),
        ("a", torch.zeros(9), "without suffix"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, name, wave, words):
    message = refusal(ValueError, save_audio, tmp_path / name, wave, RATE)
    assert words in message and name in message
    assert os.listdir(tmp_path) == []


def test_a_failing_save_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    save_audio(tmp_path / "a.wav", torch.ones(9), RATE)
    old = (tmp_path / "a.wav").read_bytes()

    def full_disk(self, data):
        raise OSError("no space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", full_disk)
    for name in ("a.wav", "b.wav"):
        refusal(OSError, save_audio, tmp_path / name, torch.zeros(9), RATE)
    assert os.listdir(tmp_path) == ["a.wav"] and (tmp_path / "a.wav").read_bytes() == old


def test_saving_into_a_missing_folder(tmp_path):
    path = tmp_path / "x" / "a.wav"
    assert "create it" in refusal(FileNotFoundError, save_audio, path, torch.zeros(9), RATE)


def test_a_saved_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "plain").touch()
    with write_atomically(tmp_path / "a.txt") as temporary:
        assert temporary.is_relative_to(tmp_path / ".unfinished") and temporary.name == "a.txt"
        temporary.write_text("whole")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(sys.platform == "win32", reason="has no locks of folders")
def test_what_a_killed_process_leaves_is_cleared_by_the_next_and_what_is_at_work_is_not(tmp_path):
    code = "import os, sys; from flowavenet.files import write_atomically\n"
    code += "with write_atomically(sys.argv[1]): os.kill(os.getpid(), 9)"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, tmp_path / "a.wav"], cwd=DATA.parents[1])
        assert len(list(tmp_path.glob(".unfinished/*/a.wav"))) == 1    # the second cleared what the first had left
    with write_atomically(tmp_path / "b.txt") as slow:
        slow.write_text("slow")
        with write_atomically(tmp_path / "c.txt") as quick:
            quick.write_text("quick")
        assert sorted(os.listdir(tmp_path)) == [".unfinished", "c.txt"] and slow.exists() and not quick.exists()
    assert sorted(os.listdir(tmp_path)) == ["b.txt", "c.txt"] and (tmp_path / "b.txt").read_text() == "slow"


# Listing


def test_list_audio_is_recursive_sorted_and_skips_hidden(tmp_path):
    for name in ["b/2.FLAC", "b/1.wav", "a.Mp3", "c.ogg", "c.txt", ".d.wav", ".e/f.wav", "g.wav/h.wav"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in list_audio(tmp_path)]
    assert found == ["a.Mp3", "b/1.wav", "b/2.FLAC", "c.ogg", "g.wav/h.wav"]
    refusal(FileNotFoundError, list_audio, tmp_path / "none")


def test_importing_audio_loads_no_heavy_library():
    code = "import sys, flowavenet.audio; print({'librosa', 'soundfile', 'scipy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=DATA.parents[1])
    assert result.stdout.strip() == "set()", result.stdout + result.stderr


def test_written_files_have_the_usual_permissions(tmp_path):
    with write_atomically(tmp_path / "private.txt") as temporary:
        temporary.write_text("x")
        temporary.chmod(0o600)
    (tmp_path / "usual.txt").write_text("x")
    assert (tmp_path / "private.txt").stat().st_mode == (tmp_path / "usual.txt").stat().st_mode
