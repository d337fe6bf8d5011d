"""Laws of a corpus in shards: every clip is in one of them, each is read once an epoch, and a run goes on where it stood."""

import json
import shutil
import tarfile
from collections import Counter
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from flowavenet.audio import MelSettings, MelSpectrogram, load_audio
from flowavenet.data import shards
from flowavenet.data.corpus import Clip
from flowavenet.data.crops import Crops
from flowavenet.data.pairs import Pairs
from flowavenet.data.shards import (
    INDEX,
    PackedWave,
    ShardCrops,
    ShardedCorpus,
    StreamedCrops,
    prepare_shards,
    read_index,
)
from flowavenet.training.data import SpeechData

RATE = 22050
MEL = MelSpectrogram(MelSettings())
FRAMES, BATCH = 8, 2


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """24 recordings of noise of two voices, 0.2 to 0.8 s, in LJSpeech's layout but for speakers; and one that is silent."""
    root, random = tmp_path_factory.mktemp("source"), np.random.default_rng(0)
    rows = ["path,speaker,split,text"]
    for number in range(24):
        samples = 0.1 * random.standard_normal(random.integers(4410, 17640))
        soundfile.write(root / f"{number}.v1.flac", samples, RATE)
        rows.append(f'{number}.v1.flac,{"ab"[number % 2]},{"valid" if number < 2 else "train"},"Nummer {number}, ä"')
    soundfile.write(root / "silent.wav", np.zeros(9000), RATE)
    (root / "manifest.csv").write_text("\n".join([*rows, "silent.wav,a,train,"]), "utf-8")
    return root


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    return out, prepare_shards(source, out, RATE, 0.1)


@pytest.fixture(scope="module")
def corpus(made):
    return read_index(str(made[0]))


def streamed(corpus, readers=1, share=0.0):
    return StreamedCrops(corpus, MEL, FRAMES, 0, -80.0, share, BATCH, readers)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(call, *arguments):
    with pytest.raises(ValueError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Writing


def test_every_usable_clip_is_in_one_shard_as_it_was(source, made, corpus):
    packed = [one for shard in corpus.shards for one in corpus.read(shard)]
    assert Counter(one.clip.path.stem for one in packed) == Counter(f"{number}.v1" for number in range(24))
    for one in packed:
        shard, name = one.clip.path.parts
        number = int(name.split(".")[0])
        assert one.clip.split == shard.split("-")[0] == ("valid" if number < 2 else "train")
        assert one.clip.speaker == "ab"[number % 2]
        wave = PackedWave(one, MEL)
        torch.testing.assert_close(
            torch.from_numpy(wave._decoded(0, wave.file.frames)) / 32768, load_audio(source / name, RATE)[0], rtol=0, atol=0
        )
    _, report = made
    assert (report.kept, [path.name for path, _ in report.skipped]) == (24, ["silent.wav"])
    assert report.seconds == pytest.approx(sum(one.clip.seconds for one in packed), abs=0.05)


def test_shards_are_tar_files_of_flac_and_json_about_as_large_as_asked(made, corpus):
    train = [shard for shard in corpus.shards if shard.split == "train"]
    sizes = [(made[0] / shard.name).stat().st_size for shard in train]
    assert len(train) >= 4 and all(1e5 < size < 1.6e5 for size in sizes[:-1])
    with tarfile.open(made[0] / train[0].name) as tar:
        assert tar.getnames()[:3] == ["000000.flac", "000000.json", "000001.flac"]
        said = json.load(tar.extractfile("000000.json"))
    assert said.keys() == {"name", "speaker", "split", "seconds", "text"} and said["text"].endswith(", ä")
    numbers = [int(one.clip.path.name.split(".")[0]) for shard in train for one in corpus.read(shard)]
    assert numbers != sorted(numbers)


@pytest.mark.parametrize("stops_at", [0, 2])
def test_interrupted_and_called_again_it_makes_the_same_bytes(source, made, tmp_path, monkeypatch, stops_at):
    written, write = [], shards._write

    def stopping(*arguments):
        if len(written) == stops_at:
            raise KeyboardInterrupt
        written.append(write(*arguments))
        return written[-1]

    monkeypatch.setattr(shards, "_write", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare_shards(source, tmp_path / "out", RATE, 0.1)
    assert len(list((tmp_path / "out").iterdir())) == 2 * stops_at
    if stops_at:                                                       # killed between shard and sidecar
        Path(tmp_path / "out" / written[-1]["name"]).with_suffix(".json").unlink()
    monkeypatch.undo()
    prepare_shards(source, tmp_path / "out", RATE, 0.1)
    assert contents(tmp_path / "out") == contents(made[0])
    prepare_shards(source, tmp_path / "out", RATE, 0.1)
    assert contents(tmp_path / "out") == contents(made[0])


def test_shards_of_another_kind_are_not_gone_on_with(source, made):
    assert "22050 Hz without mels, now it is 24000 Hz without" in refusal(prepare_shards, source, made[0], 24000)


# Reading


@pytest.mark.parametrize("options", [{}, {"pad_mode": "constant"}, {"peak": 0.9}])
def test_what_is_decoded_in_part_is_what_is_decoded_whole(corpus, tmp_path, options):
    mel = MelSpectrogram(MelSettings(**options))
    packed = corpus.read(corpus.shards[0])[0]
    (tmp_path / "it.flac").write_bytes(packed.flac)
    whole = Crops([Clip(tmp_path / "it.flac", "", "train", packed.clip.seconds)], mel, FRAMES, 0, -80.0).wave(0)
    part = PackedWave(packed, mel)
    assert len(part) == len(whole)
    for start in (0, 1, 384, 385, 2000, len(whole) - 2817, len(whole) - 2816, len(whole) - 100):
        assert torch.equal(part[start : start + 2816], whole[start : start + 2816])


def test_crops_of_a_shard_are_those_of_its_files(corpus, tmp_path):
    packed = corpus.read(corpus.shards[0])
    clips = []
    for number, one in enumerate(packed):
        (tmp_path / f"{number}.flac").write_bytes(one.flac)
        clips.append(Clip(tmp_path / f"{number}.flac", one.clip.speaker, "train", one.clip.seconds))
    options = MEL, FRAMES, 0, -80.0, ["a", "b"]
    for index in range(20):
        one, other = ShardCrops(packed, *options)[index], Crops(clips, *options)[index]
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("readers", [1, 2, 3])
def test_in_an_epoch_every_shard_is_read_once_and_for_its_seconds(corpus, readers):
    data = streamed(corpus, readers)
    for epoch in range(3):
        seen = []
        for reader in range(readers):
            share = len(range(reader, len(data.shards), readers))
            schedule = data.schedule(reader)
            mine = [next(schedule) for _ in range((epoch + 1) * share)]
            assert all(one.stop == other.start for (one, _), (other, _) in zip(mine, mine[1:], strict=False))
            seen += mine[epoch * share :]
        assert sorted(shard.name for _, shard in seen) == [shard.name for shard in data.shards]
        batch = BATCH * FRAMES * 256 / RATE
        assert all(len(steps) * batch == pytest.approx(shard.seconds, abs=batch / 2) for steps, shard in seen)


def test_epochs_differ(corpus):
    schedule = streamed(corpus).schedule(0)
    one, two = ([next(schedule)[1].name for _ in range(len(corpus.shards) - 1)] for _ in range(2))
    assert one != two and sorted(one) == sorted(two)


def batches(first, stop, rank=0, processes=1):
    """Of one process, as FromPosition has them: the indices from `first` on are shared out among the processes."""
    return [[i, i + 1] for i in range(first + rank * BATCH, stop, processes * BATCH)]


@pytest.mark.parametrize("workers, rank, processes", [(0, 0, 1), (2, 0, 1), (0, 1, 2), (2, 1, 2)])
@pytest.mark.parametrize("start", [0, 3])                              # 3: after part of the run had batches of another size
def test_a_run_goes_on_with_the_crops_it_would_have_had(corpus, start, workers, rank, processes):
    data, done = streamed(corpus, processes * max(1, workers)), 5
    whole = batches(start, 12 * processes * BATCH, rank, processes)
    rest = batches(start + done * processes * BATCH, 12 * processes * BATCH, rank, processes)
    whole, rest = (list(DataLoader(data, batch_sampler=part, num_workers=workers)) for part in (whole, rest))
    assert len(whole) - done == len(rest) > 4
    for one, other in zip(whole[done:], rest, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert len({one["padded"].sum().item() for one in whole}) == len(whole)


@pytest.mark.parametrize("start", [0, 3])
def test_a_reader_reads_what_it_needs_and_one_ahead(corpus, monkeypatch, start):
    log, read = [], ShardedCorpus.read
    monkeypatch.setattr(ShardedCorpus, "read", lambda self, shard: log.append(shard.name) or read(self, shard))
    data, mine = streamed(corpus, 2), batches(start, 200 * BATCH, rank=1, processes=2)
    first, reader = divmod(mine[0][0] // BATCH, 2)
    needed = takewhile(lambda one: one[0].start < first + len(mine), data.schedule(reader))
    needed = [shard.name for steps, shard in needed if steps.stop > first]
    for batch in mine:
        data.__getitems__(batch)
    data.ahead.result()
    assert log[:-1] == needed and len(needed) > len(data.shards)
    log.clear()
    resumed = streamed(corpus, 2)
    resumed.__getitems__(mine[-1])
    resumed.ahead.result()
    assert log[0] == needed[-1] and len(log) == 2


# Errors


@pytest.mark.parametrize("spoil", ["cut", "bit", "gone", "other"])
def test_a_damaged_shard_is_refused(made, tmp_path, spoil):
    copy = tmp_path / "copy"
    shutil.copytree(made[0], copy)
    path = copy / "train-000001.tar"
    data = bytearray(path.read_bytes())
    if spoil == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif spoil == "bit":
        data[1000] ^= 1
        path.write_bytes(data)
    elif spoil == "other":
        shutil.copy(copy / "train-000000.tar", path)
    else:
        path.unlink()
    corpus = read_index(str(copy))
    message = refusal(corpus.read, next(shard for shard in corpus.shards if shard.name == path.name))
    assert str(path) in message and "copy it again" in message


@pytest.mark.parametrize("name", ["../train-000000.tar", "train-000000.tar; touch x", "/etc/passwd"])
def test_an_index_names_nothing_but_shards_beside_it(made, corpus, tmp_path, name):
    index = json.loads((made[0] / INDEX).read_text())
    index["shards"][0] = asdict(corpus.shards[0]) | {"name": name}
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert name in refusal(read_index, str(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shards": [{}]}', "\x00"])
def test_an_index_that_is_none_is_refused(tmp_path, text):
    (tmp_path / INDEX).write_text(text)
    assert str(tmp_path / INDEX) in refusal(read_index, str(tmp_path))


def test_too_many_readers_are_told(corpus):
    count = len(corpus.shards) - 1                                     # one is for validation
    message = refusal(streamed, corpus, count + 1)
    assert f"has {count} shards to train on, fewer than the {count + 1} readers" in message


MISFITS = [({"mel": "vocos"}, "22050 Hz, the model wants 24000"), ({"in_memory": True}, "--data.in_memory false")]


@pytest.mark.parametrize("options, said", MISFITS)
def test_settings_that_do_not_fit_shards_are_told(made, options, said):
    assert said in refusal(SpeechData(str(made[0]), **options).setup)


# Together


def test_shards_come_through_a_pipe(made, corpus):
    piped = read_index(f"pipe:cat {made[0]}/{{}}")
    assert piped.shards == corpus.shards and piped.read(piped.shards[1]) == corpus.read(corpus.shards[1])


def test_predicted_mels_travel_with_their_clips(source, tmp_path):
    (tmp_path / "mels").mkdir()
    for path in source.glob("*.flac"):
        np.save(tmp_path / "mels" / f"{path.stem}.npy", MEL(load_audio(path, RATE))[0].numpy())
    prepare_shards(source, tmp_path / "out", RATE, 0.2, pairs=Pairs(tmp_path / "mels", MEL.settings))
    data = SpeechData(str(tmp_path / "out"), segment_frames=FRAMES, batch_size=BATCH, predicted_share=0.5, workers=0)
    data.setup()
    for item in [data.train[index] for index in range(12)] + [data.valid[index] | {"padded": None} for index in range(4)]:
        if item["padded"] is None:
            item["padded"] = data.valid.gather(item["start"][None])[0]
        torch.testing.assert_close(item["mel"], MEL.from_padded(item["padded"][None])[0], atol=2e-3, rtol=0)
    assert {bool(data.train[index]["predicted"]) for index in range(12)} == {False, True}


def test_fit_trains_on_shards_and_goes_on_exactly(source, tmp_path, flowavenet):
    from test_training import arguments, losses

    from flowavenet.training.fit import fit

    code, out, _ = flowavenet("prepare", source, tmp_path / "shards", "--shards", "--shard-mb", 0.1)
    assert code == 2 and out.endswith(f"-> {tmp_path / 'shards' / INDEX}\n")  # 2: one clip is silent
    settings = ["--trainer.limit_val_batches", "1", "--showcase.clips", "0", "--data.in_memory", "false"]
    for run, steps in (("whole", [6]), ("run", [4, 6])):
        for more in steps:
            last = ["--ckpt_path", "last"] if more == 6 and run == "run" else []
            fit(arguments(tmp_path / "shards", tmp_path / run, *settings, "--trainer.max_steps", str(more), *last))
    whole = losses(tmp_path / "whole")
    assert losses(tmp_path / "run") == whole and len(whole) == 6
