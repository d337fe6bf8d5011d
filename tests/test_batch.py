"""A file's samples depend on the file alone: not on those beside it, on what goes wrong with them, or on its length."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import CLIPS
from safetensors.torch import save_file

from flowavenet import Vocoder, load_audio, save_audio
from flowavenet.audio import MEL_SUFFIXES, MelSpectrogram, convention, load_mel
from flowavenet.batch import Job, Recording, find_files, vocode_files
from flowavenet.batch.loop import in_background
from flowavenet.batch.plan import File, divide

STEP = 1 / 32768
"""Of 16 bits."""


@pytest.fixture(scope="module")
def vocoder(tiny):
    return Vocoder.from_pretrained(tiny)


@pytest.fixture
def folder(tmp_path):
    """Mels a to e of 7 frames, but d of 9; and a recording of 7."""
    inside = tmp_path / "in"
    inside.mkdir()
    for name, frames in {"a": 7, "b": 7, "c": 7, "d": 9, "e": 7}.items():
        np.save(inside / f"{name}.npy", np.random.default_rng(ord(name)).normal(-5, 1, (80, frames)).astype(np.float32))
    soundfile.write(inside / "f.wav", 0.1 * np.random.default_rng(0).standard_normal(7 * 256 - 3), 22050)
    return inside


@pytest.fixture
def short_tiles(monkeypatch):
    """As if 12 frames were long."""
    monkeypatch.setattr("flowavenet.batch.sources.BLOCK", 8)
    monkeypatch.setattr(Vocoder, "tile", lambda *_: 8)


def run(vocoder, files, out, skip=False, progress=lambda done, total: None, **options):
    found = find_files(files, (".npy", ".wav"))
    return vocode_files(found, vocoder, Job(str(out), how={"match": 2}, **options), skip, progress=progress)


def by_name(lines):
    return {Path(file.place).name: line for file, line in lines.items()}


def alone(vocoder, file):
    """What the library makes of a file, through 16 bits, quieter if it exceeds full scale in its first tile."""
    if file.suffix in MEL_SUFFIXES:
        mel = load_mel(file, 80)
    else:
        mel = vocoder.mel(vocoder.spectrogram.normalise(load_audio(file, 22050)))
    wave = vocoder(mel, seed=0, match=2)
    first = wave[:, : 8 * 256] if mel.shape[-1] > 12 else wave         # the length of short_tiles
    save_audio(file.parent / "alone.flac", wave / first.abs().max().clamp(min=1), 22050)
    return soundfile.read(file.parent / "alone.flac")[0]


def assert_as_alone(vocoder, files, out):
    for file in files:
        made = soundfile.read(out / f"{file.stem}.wav")[0]
        np.testing.assert_allclose(made, alone(vocoder, file), atol=1.01 * STEP, rtol=0, err_msg=file.name)


def left(folder):
    return sorted(os.listdir(folder))


def watched(monkeypatch, vocoder, spoil=lambda mel: None):
    """Sees the shapes that are synthesised, and may object."""
    seen, stream = [], vocoder.stream

    def watch(mel, *rest, **options):
        spoil(mel)
        seen.append(tuple(mel.shape))
        return stream(mel, *rest, **options)

    monkeypatch.setattr(vocoder, "stream", watch)
    return seen


# Company


@pytest.mark.parametrize("batch, packs", [(1, [1] * 5), (2, [2, 2, 1]), (16, [5])])
def test_samples_do_not_depend_on_company(vocoder, folder, tmp_path, monkeypatch, batch, packs):
    files = sorted(folder.iterdir())
    seen, told = watched(monkeypatch, vocoder), []
    report = run(vocoder, files, tmp_path / "out", batch=batch, progress=lambda *one: told.append(one))
    assert report.failed == {} and report.frames == 5 * 7 + 9 and told == sorted(told) and told[-1] == (6, 6)
    assert seen == [(n, 80, 7) for n in packs] + [(1, 80, 9)]
    monkeypatch.undo()
    assert_as_alone(vocoder, files, tmp_path / "out")


def test_what_is_bad_leaves_its_batch_and_no_trace(vocoder, folder, tmp_path):
    np.save(folder / "b.npy", np.full((80, 7), np.nan, np.float32))    # found when read
    np.save(folder / "c.npy", np.zeros((81, 7), np.float32))           # found by the header
    files = sorted(folder.iterdir())
    report = run(vocoder, files, tmp_path / "out", batch=16)
    failed = by_name(report.failed)
    assert failed.keys() == {"b.npy", "c.npy"}
    assert all(f"{folder / name}: " in line and "\n" not in line for name, line in failed.items())
    assert left(tmp_path / "out") == ["a.wav", "d.wav", "e.wav", "f.wav"]
    assert_as_alone(vocoder, [file for file in files if file.name not in failed], tmp_path / "out")


def test_what_cannot_be_written_is_told(vocoder, folder, tmp_path):
    (tmp_path / "out" / "b.wav").mkdir(parents=True)
    files = sorted(folder.iterdir())
    failed = by_name(run(vocoder, files, tmp_path / "out", batch=16).failed)
    assert list(failed) == ["b.npy"] and str(folder / "b.npy") in failed["b.npy"]
    assert left(tmp_path / "out") == [f"{name}.wav" for name in "abcdef"]


def test_a_batch_that_is_too_much_is_made_one_by_one(vocoder, folder, tmp_path, monkeypatch):
    def spoil(mel):
        if len(mel) > 1 or mel.shape[-1] == 9:
            raise RuntimeError("out of memory")

    watched(monkeypatch, vocoder, spoil)
    report = run(vocoder, sorted(folder.iterdir()), tmp_path / "out", batch=16)
    assert left(tmp_path / "out") == [f"{name}.wav" for name in "abcef"]
    assert by_name(report.failed) == {"d.npy": f"{folder / 'd.npy'}: not enough memory; free some, or give it less at once"}


def test_nothing_is_half_written_after_an_interruption(vocoder, folder, tmp_path, monkeypatch):
    def spoil(mel):
        if mel.shape[-1] == 9:
            raise KeyboardInterrupt

    watched(monkeypatch, vocoder, spoil)
    with pytest.raises(KeyboardInterrupt):
        run(vocoder, sorted(folder.iterdir()), tmp_path / "out")
    assert left(tmp_path / "out") == []                                # a portion is written when all of it is made


# Going on


@pytest.mark.parametrize("batch", [1, 4])
def test_what_is_there_is_left_and_the_rest_comes_out_to_the_last_bit(vocoder, folder, tmp_path, monkeypatch, batch):
    files, whole, part = sorted(folder.iterdir()), tmp_path / "whole", tmp_path / "part"
    run(vocoder, files, whole, batch=batch)
    shutil.copytree(whole, part)
    for name in "bd":
        (part / f"{name}.wav").unlink()
    os.utime(part / "f.wav", (0, 0))                                   # its source is newer
    (part / "a.wav").write_bytes(b"mine")
    written, save = [], save_audio
    watch = lambda path, *rest: written.append(path.name) or save(path, *rest)  # noqa: E731
    monkeypatch.setattr("flowavenet.batch.loop.save_audio", watch)
    report = run(vocoder, files, part, batch=batch, skip=True)
    assert sorted(written) == ["b.wav", "d.wav", "f.wav"] and report.skipped == 3
    assert (part / "a.wav").read_bytes() == b"mine"
    for name in "bcdef":
        assert (part / f"{name}.wav").read_bytes() == (whole / f"{name}.wav").read_bytes()


def test_batches_do_not_depend_on_what_is_bad(vocoder, folder, tmp_path):
    files = sorted(folder.iterdir())
    run(vocoder, files, tmp_path / "good", batch=2)
    np.save(folder / "a.npy", np.full((80, 7), np.nan, np.float32))
    run(vocoder, files, tmp_path / "bad", batch=2)
    assert left(tmp_path / "bad") == [f"{name}.wav" for name in "bcdef"]
    for name in "cdef":                                                # b is alone now
        assert (tmp_path / "bad" / f"{name}.wav").read_bytes() == (tmp_path / "good" / f"{name}.wav").read_bytes()


def test_a_picture_that_is_missing_is_made(vocoder, folder, tmp_path):
    files = [folder / "a.npy"]
    run(vocoder, files, tmp_path / "out")
    assert run(vocoder, files, tmp_path / "out", skip=True).frames == 0
    assert run(vocoder, files, tmp_path / "out", skip=True, picture=True).frames == 7
    assert left(tmp_path / "out") == ["a.png", "a.wav"]


# Length


@pytest.mark.parametrize("name", ["long.npy", "turned.npy", "long.pt", "old.pt", "long.safetensors", "long.wav", "48k.wav"])
def test_a_long_file_is_streamed_without_a_trace(vocoder, tmp_path, short_tiles, monkeypatch, name):
    mel = torch.randn(80, 45) - 5
    file = tmp_path / name
    if name == "long.npy":
        np.save(file, mel.numpy())
    elif name == "turned.npy":
        np.save(file, mel.numpy().T[None].copy())
    elif name == "long.pt":
        torch.save({"mel": mel}, file)
    elif name == "old.pt":
        torch.save(mel, file, _use_new_zipfile_serialization=False)
    elif name == "long.safetensors":
        save_file({"mel": mel}, file)
    else:
        soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal((20000, 2)), 22050 if name[0] == "l" else 48000)
    lengths, render, told = [], vocoder.model.render, []

    def watched(noise, mel, *rest):
        lengths.append(mel.shape[-1])
        return render(noise, mel, *rest)

    monkeypatch.setattr(vocoder.model, "render", watched)
    report = run(vocoder, [file], tmp_path / "out", picture=name == "long.npy", progress=lambda done, _: told.append(done))
    assert report.failed == {} and 0 < told[0] < told[1] < told[-1] == 1
    assert max(lengths) <= 8 + sum(vocoder.receptive_field(match=2)) + 8
    assert_as_alone(vocoder, [file], tmp_path / "out")
    assert left(tmp_path / "out") == ["long.png"] * (name == "long.npy") + [f"{file.stem}.wav"]


def test_a_long_file_that_is_bad_at_its_end_leaves_nothing(vocoder, tmp_path, short_tiles):
    mel = np.zeros((80, 45), np.float32)
    mel[3, 44] = np.inf
    np.save(tmp_path / "a.npy", mel)
    shutil.copy(CLIPS[0], tmp_path / "b.flac")
    (tmp_path / "b.flac").write_bytes(CLIPS[0].read_bytes()[:-3000])
    failed = by_name(run(vocoder, [tmp_path / "a.npy", tmp_path / "b.flac"], tmp_path / "out").failed)
    assert "not finite" in failed["a.npy"] and "cut short" in failed["b.flac"]
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize("samples", [1, 255, 256 * 24, 256 * 24 + 100, 256 * 25 + 1, 9999])
@pytest.mark.parametrize("name", ["hifigan", "flowavenet"])
def test_a_recording_is_analysed_in_pieces_as_at_once(tmp_path, short_tiles, name, samples):
    spectrogram = MelSpectrogram(convention(name))
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(samples), 22050, subtype="FLOAT")
    source = Recording(tmp_path / "a.wav", spectrogram)
    pieces = list(source.mel())
    whole = spectrogram(spectrogram.normalise(load_audio(tmp_path / "a.wav", 22050)))
    assert max(piece.shape[-1] for piece in pieces) <= 8 and source.frames == whole.shape[-1]
    torch.testing.assert_close(torch.cat(pieces, dim=-1), whole, atol=1e-5, rtol=1e-5)


# The plan


def files_in(*names, size=None):
    return [File(f"in/{name}.npy", name, size) for name in names]


def test_results_keep_sub_folders_and_are_told_apart(tmp_path):
    for name in ("a/x.npy", "a/deep/y.npy", "b/x.npy", "b/z.NPY", "b/.z.npy", "b/.unfinished/w.npy", "b/note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    one, two = (
        {file.name: str(Path(file.place).relative_to(tmp_path)) for file in find_files(places, (".npy",))}
        for places in ([tmp_path / "a"], [tmp_path / "a", tmp_path / "b" / "x.npy", tmp_path / "b" / "z.NPY"])
    )
    assert one == {"deep/y": "a/deep/y.npy", "x": "a/x.npy"}
    assert two == {"deep/y": "a/deep/y.npy", "a/x": "a/x.npy", "b/x": "b/x.npy", "z": "b/z.NPY"}
    with pytest.raises(ValueError, match="x.npy: its result would overwrite that of .*x.npy"):
        find_files([tmp_path / "a" / "x.npy"] * 2, (".npy",))
    with pytest.raises(ValueError, match="there are no .flac files in this folder or below it"):
        find_files([tmp_path], (".flac",))


@pytest.mark.parametrize("batch", [1, 3])
def test_portions_are_whole_batches_of_files_of_about_one_size(batch):
    files = [one for number in range(60) for one in files_in(f"{number}", size=100_000 * (number % 7 + 1))]
    files += files_in("long", "longer", size=200_000_000)
    portions = list(divide(files, batch))
    sizes = [file.size for portion in portions for file in portion]
    assert sizes == sorted(sizes) and set(files) == {file for portion in portions for file in portion}
    assert all(len(portion) % batch == 0 and sum(file.size for file in portion) >= 1_000_000 for portion in portions[:-3])
    assert [file.name for file in portions[-1]] == ["longer"]


# The background


def test_background_work_is_done_in_order_and_one_item_ahead():
    asked, done = 0, []

    def items():
        nonlocal asked
        while asked < 9:
            asked += 1
            yield asked

    def work(item):
        done.append(threading.current_thread())
        if item == 8:
            raise ValueError("eight")
        return -item

    results = in_background(work, items())
    for number in range(1, 8):
        assert next(results) == -number and asked <= number + 1
    with pytest.raises(ValueError, match="eight"):
        next(results)
    assert threading.main_thread() not in done
