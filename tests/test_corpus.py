"""Laws of a corpus: every layout is read alike, splits stay put, and preparing goes on past bad files."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flowavenet.audio import load_audio
from flowavenet.data import corpus
from flowavenet.data.corpus import Clip, prepare_corpus, read_corpus

DATA = Path(__file__).parent / "data"
RATE = 22050


def write(path: Path, samples: int = 4000, rate: int = 16000, peak: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, peak * np.sin(np.arange(samples) / 7), rate)
    return path


def refusal(error: type[Exception], call, *args, **options) -> str:
    """The message of the error that a call raises; it must be one line."""
    with pytest.raises(error) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def speakers(clips: list[Clip], root: Path) -> dict[str, str]:
    return {clip.path.relative_to(root).as_posix(): clip.speaker for clip in clips}


# Layouts


def test_a_folder_of_folders(tmp_path):
    names = ["anna/1.wav", "anna/deep/2.flac", "ben/1.WAV", "3.ogg"]
    for name in names:
        write(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    clips = read_corpus(tmp_path)
    assert speakers(clips, tmp_path) == dict(zip(sorted(names), ["", "anna", "anna", "ben"], strict=True))
    assert all(clip.path.is_absolute() and clip.seconds == 0.25 for clip in clips)
    assert {clip.split for clip in clips} == {"train", "valid"}


def test_ljspeech(tmp_path):
    for stem in ("LJ1", "LJ2", "unlisted"):
        write(tmp_path / f"wavs/{stem}.wav")
    (tmp_path / "metadata.csv").write_text('LJ1|Printing, "he said|Printing\n\nLJ2|in the|in the\n')
    assert speakers(read_corpus(tmp_path), tmp_path) == {"wavs/LJ1.wav": "", "wavs/LJ2.wav": ""}
    with (tmp_path / "metadata.csv").open("a") as file:
        file.write("LJ3|gone|gone\n")
    message = refusal(FileNotFoundError, read_corpus, tmp_path)
    assert "metadata.csv row 4" in message and "LJ3.wav" in message


def test_vctk_prefers_the_first_microphone(tmp_path):
    for name in ["p225/p225_1_mic1", "p225/p225_1_mic2", "p226/p226_1_mic2", "p226/p226_2_mic1"]:
        write(tmp_path / f"wav48_silence_trimmed/{name}.flac")
    write(tmp_path / "samples/extra.wav")
    found = {Path(name).stem: speaker for name, speaker in speakers(read_corpus(tmp_path), tmp_path).items()}
    assert found == {"p225_1_mic1": "p225", "p226_1_mic2": "p226", "p226_2_mic1": "p226"}


def test_a_manifest_is_taken_at_its_word(tmp_path):
    other = write(tmp_path / "elsewhere/c.wav")
    root = tmp_path / "root"
    write(root / "a b.wav"), write(root / "ignored.wav")
    manifest = root / "manifest.csv"
    rows = ["\ufeffseconds,path,split,speaker", "9.5,a b.wav,valid,Ann", f",{other},train,"]
    manifest.write_text("\n".join(rows), "utf-8")
    expected = [Clip(root / "a b.wav", "Ann", "valid", 9.5), Clip(other, "", "train", 0.25)]
    assert read_corpus(root) == read_corpus(manifest) == expected
    renamed = manifest.rename(root / "mine.csv")
    assert read_corpus(renamed) == expected


def test_only_path_is_needed(tmp_path):
    write(tmp_path / "a.wav"), write(tmp_path / "b/b.wav")
    (tmp_path / "manifest.csv").write_text("path\na.wav\nb/b.wav\n")
    clips = read_corpus(tmp_path)
    assert [clip.speaker for clip in clips] == ["", ""]
    assert {clip.split for clip in clips} == {"train", "valid"}


# Splits


def many(tmp_path: Path, count: int) -> Path:
    """A corpus of many names; the seconds are given, so that nothing is opened."""
    names = [f"{i}.wav" for i in range(count)]
    for name in names:
        (tmp_path / name).touch()
    rows = [f"{name},1" for name in names]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,seconds", *rows]))
    return tmp_path


def valid(clips: list[Clip]) -> set[str]:
    return {clip.path.name for clip in clips if clip.split == "valid"}


def test_the_split_is_drawn_by_name_and_seed(tmp_path):
    first = valid(read_corpus(many(tmp_path, 500), valid_fraction=0.1))
    assert 30 <= len(first) <= 70
    assert valid(read_corpus(tmp_path, valid_fraction=0.1)) == first
    assert valid(read_corpus(tmp_path, valid_fraction=0.1, seed=1)) != first
    of_more = valid(read_corpus(many(tmp_path, 1000), valid_fraction=0.1))
    assert of_more & {f"{i}.wav" for i in range(500)} == first


@pytest.mark.parametrize("fraction", [0.0, 1e-9])
def test_at_least_one_clip_is_for_validation(tmp_path, fraction):
    assert len(valid(read_corpus(many(tmp_path, 5), fraction))) == 1


# Refusing


@pytest.mark.parametrize(
    "text, words",
    [
        ("file,speaker\na.wav,Ann\n", "no column path, only file, speaker"),
        ("", "no column path"),
        ("path\n", "no audio"),
        ("path\na.wav\nb.wav\n", "row 3"),
        ("path,split\na.wav,test\n", "'test'"),
        ("path,seconds\na.wav,long\n", "'long'"),
        ("path,seconds\na.wav,nan\n", "'nan'"),
        ("path,split\na.wav,train\n./a.wav,valid\n", "row 2 already"),
        ("path,speaker\n,Ann\n", "row 2: has no path"),
        ("path,split\na.wav,valid\n", "no clip to train on"),
    ],
)
def test_a_faulty_manifest(tmp_path, text, words):
    write(tmp_path / "a.wav")
    (tmp_path / "manifest.csv").write_text(text)
    assert words in refusal((ValueError, FileNotFoundError), read_corpus, tmp_path)


def test_a_folder_that_is_missing_or_empty_or_too_small(tmp_path):
    assert "none" in refusal(FileNotFoundError, read_corpus, tmp_path / "none")
    assert "no audio" in refusal(ValueError, read_corpus, tmp_path)
    write(tmp_path / "a.wav")
    assert "no clip to train on" in refusal(ValueError, read_corpus, tmp_path)
    assert "valid_fraction is 1.0" in refusal(ValueError, read_corpus, tmp_path, 1.0)


# Preparing


def test_preparing_goes_on_past_bad_files_and_says_why(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    for name in ("lj", "kerstin", "kathleen"):
        (source / name).mkdir(parents=True)
        shutil.copy(DATA / f"{name}.flac", source / name / "1.flac")
    write(source / "stereo.wav", 48000, 48000)
    write(source / "three.wav", 3)
    write(source / "silent.wav", peak=1e-4)
    write(source / "loud.wav", peak=3.0)
    (source / "text.wav").write_text("not audio")
    whole = (source / "lj" / "1.flac").read_bytes()
    (source / "cut.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(source / "nan.wav", np.full(9999, np.nan), RATE, subtype="FLOAT")
    write(source / "lj" / "1.wav")  # would become the same file as 1.flac
    steps = []
    report = prepare_corpus(source, out, RATE, workers=2, progress=lambda *step: steps.append(step))

    reasons = {path.relative_to(source).as_posix(): reason for path, reason in report.skipped}
    assert set(reasons) == {"three.wav", "silent.wav", "text.wav", "cut.flac", "nan.wav", "lj/1.wav"}
    for name, words in [
        ("three.wav", "shorter than 2205"),
        ("silent.wav", "next to silent"),
        ("text.wav", "not an audio file"),
        ("cut.flac", "cut short"),
        ("nan.wav", "NaN"),
        ("lj/1.wav", "same file"),
    ]:
        assert words in reasons[name]
    assert [path.name for path, _ in report.doubtful] == ["loud.wav"]
    assert steps == [(i, 11) for i in range(1, 12)]

    clips = read_corpus(out)
    assert report.kept == len(clips) == 5
    assert report.seconds == pytest.approx(sum(clip.seconds for clip in clips), abs=0.005)
    names = ["kathleen/1.flac", "kerstin/1.flac", "lj/1.flac", "loud.flac", "stereo.flac"]
    assert speakers(clips, out) == dict(zip(names, ["kathleen", "kerstin", "lj", "", ""], strict=True))
    for clip in clips:
        info = soundfile.info(clip.path)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert clip.seconds == pytest.approx(info.duration, abs=0.001)
    assert (load_audio(out / "lj/1.flac", RATE) == load_audio(DATA / "lj.flac", RATE)).all()
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["kathleen", "kerstin", "lj", "loud.flac", "manifest.csv", "stereo.flac"]
    )


def test_preparing_again_redoes_only_what_changed(tmp_path, monkeypatch):
    source, out = tmp_path / "source", tmp_path / "out"
    for i in range(4):
        write(source / f"{i}.wav")
    first = prepare_corpus(source, out, 16000)
    manifest = (out / "manifest.csv").read_text()
    loaded = []

    def spy(path, rate):
        loaded.append(path.name)
        return load_audio(path, rate)

    monkeypatch.setattr(corpus, "load_audio", spy)
    assert prepare_corpus(source, out, 16000) == first and loaded == []
    assert (out / "manifest.csv").read_text() == manifest
    later = (out / "2.flac").stat().st_mtime + 10
    os.utime(source / "2.wav", (later, later))
    (out / "3.flac").unlink()
    (out / "1.flac").write_bytes(b"")
    assert prepare_corpus(source, out, 16000) == first and sorted(loaded) == ["1.wav", "2.wav", "3.wav"]
    loaded.clear()
    assert prepare_corpus(source, out, 8000).seconds == first.seconds and len(loaded) == 4
    assert soundfile.info(out / "1.flac").samplerate == 8000


def test_splits_and_speakers_of_a_manifest_are_kept_wherever_its_files_are(tmp_path):
    paths = [write(tmp_path / f"far/{i}.x.wav") for i in range(3)] + [tmp_path / "far/gone.wav"]
    manifest = tmp_path / "lists" / "my.csv"
    manifest.parent.mkdir()
    relative = os.path.relpath(paths[0], manifest.parent)
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "split", "speaker"], [relative, "valid", "a, b"]])
        csv.writer(file).writerows([[path, "train", "c"] for path in paths[1:]])
    report = prepare_corpus(manifest, tmp_path / "out", 16000)
    assert [path for path, _ in report.skipped] == [paths[3]]
    clips = read_corpus(tmp_path / "out")
    assert [clip.split for clip in clips] == ["valid", "train", "train"]
    assert [clip.speaker for clip in clips] == ["a, b", "c", "c"]
    assert all(clip.path.is_relative_to(tmp_path / "out") for clip in clips)


def test_preparing_refuses_to_mix_with_the_source(tmp_path):
    write(tmp_path / "source" / "a.wav")
    for out in ("source", "source/out", "source/../source"):
        message = refusal(ValueError, prepare_corpus, tmp_path / "source", tmp_path / out, 16000)
        assert "choose another folder" in message
    assert os.listdir(tmp_path / "source") == ["a.wav"]


def test_preparing_refuses_when_nothing_is_usable(tmp_path):
    write(tmp_path / "source" / "a.wav", 3)
    message = refusal(ValueError, prepare_corpus, tmp_path / "source", tmp_path / "out", 16000)
    assert "none of 1 clips" in message and "3 samples" in message
    assert not (tmp_path / "out").exists()


def test_a_full_disk_stops_the_work_and_leaves_no_manifest(tmp_path, monkeypatch):
    for i in range(3):
        write(tmp_path / f"source/{i}.wav")

    def full_disk(*args):
        raise corpus.Unwritable("no space left on device")

    monkeypatch.setattr(corpus, "save_audio", full_disk)
    refusal(OSError, prepare_corpus, tmp_path / "source", tmp_path / "out", 16000)
    assert os.listdir(tmp_path / "out") == []
