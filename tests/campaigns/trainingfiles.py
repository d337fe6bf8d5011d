"""Corpora, shards and logs as hostile files: valid ones to begin with, and how the verbs read them."""

from __future__ import annotations

import csv
import io
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from .signalfiles import RATE, Seeds, sounds, tone

RESULTS = "results"
"""A folder that reading may write into, as a run does."""


def corpus(name: str, folder: Path) -> Seeds:
    from flowavenet.audio import save_audio

    (folder / "wavs").mkdir(exist_ok=True)
    for stem in ("a", "b", "c"):
        save_audio(folder / "wavs" / f"{stem}.wav", torch.from_numpy(tone()), RATE)
    if name == "metadata.csv":
        return [b"a|Hello.|Hello.\nb|No. 2|Number two\nc|\n", "\ufeffa|Grüße\r\nb|x\r\n".encode()]
    rows = [["path", "speaker", "split", "seconds"], ["wavs/a.wav", "anna", "train", "0.03"], ["wavs/b.wav", "ben", "", ""]]
    out = io.StringIO()
    csv.writer(out).writerows([*rows, ["wavs/c.wav", "", "valid", "1e-2"]])
    return [out.getvalue().encode(), b'text,path\n"one\nline",wavs/a.wav\n,wavs/b.wav\n']


def read_clips(path: Path) -> None:
    from flowavenet.data.corpus import read_corpus

    clips = read_corpus(path.parent)
    assert all(clip.path.is_file() and 0 < clip.seconds < float("inf") for clip in clips), "clips that are none"
    assert {clip.split for clip in clips} <= {"train", "valid"}, "another split"


def shards(file: str, folder: Path) -> Seeds:
    """A corpus of three clips with their mels, in two shards."""
    import tempfile

    from flowavenet.audio import MelSettings
    from flowavenet.data.pairs import Pairs
    from flowavenet.data.shards import prepare_shards

    with tempfile.TemporaryDirectory() as source:
        mels = Path(source, "mels")
        mels.mkdir()
        corpus("", Path(source))
        from flowavenet.audio import MelSpectrogram

        own = MelSpectrogram(MelSettings())(torch.from_numpy(tone())[None])[0]
        for stem in ("a", "b", "c"):
            np.save(mels / f"{stem}.npy", own.numpy())
        prepare_shards(Path(source, "wavs"), folder, RATE, pairs=Pairs(mels, MelSettings()), min_seconds=0.01)
    return [(folder / file).read_bytes()]


def read_shards(path: Path) -> None:
    """As training does, from the index on."""
    from flowavenet.data.shards import read_index

    index = read_index(str(path.parent))
    clips = [packed.clip for shard in index.shards for packed in index.read(shard)]
    assert len(clips) == sum(shard.clips for shard in index.shards)


def read_shard(path: Path) -> None:
    """A shard whose writer also wrote the index, so that it fits."""
    from flowavenet.audio import MelSettings, MelSpectrogram
    from flowavenet.data.shards import Shard, ShardCrops, ShardedCorpus

    shard = Shard(path.name, 2, 0.05, 2, sha256(path.read_bytes()).hexdigest())
    packed = ShardedCorpus(str(path.parent), RATE, True, [""], [shard]).read(shard)
    crops = ShardCrops(packed, MelSpectrogram(MelSettings()), 2, 0, -200.0, None, 1.0)
    for index in range(4):
        item = crops[index]
        assert item["mel"].shape == (80, 2) and item["padded"].isfinite().all(), "a crop that is none"


def read_sidecar(path: Path) -> None:
    from flowavenet.data.shards import read_sidecars

    for sidecar in read_sidecars(path.parent):
        assert isinstance(sidecar["names"], list)


def events(folder: Path) -> Seeds:
    """What a run logs for TensorBoard."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    out = io.BytesIO()
    writer = RecordWriter(out)
    writer.write(Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString())
    sound = sounds([("WAV", "PCM_16")], folder)[0]
    for step in range(6):
        values = [
            Summary.Value(tag=tag, simple_value=7.0 - step / 3) for tag in ("train/nats_per_sample", "valid/nats_per_sample")
        ]
        if step % 3 == 0:
            audio = Summary.Audio(sample_rate=RATE, num_channels=1, length_frames=600, encoded_audio_string=sound)
            values.append(Summary.Value(tag="sample/0", audio=audio))
        writer.write(Event(wall_time=1.0 + 60 * step, step=100 * step, summary=Summary(value=values)).SerializeToString())
    return [out.getvalue()]


def read_log(path: Path) -> None:
    from flowavenet.training.monitor.report import Report
    from flowavenet.training.monitor.runs import read_run

    assert Report(read_run(path.parent)).text()


def training(folder: Path, *more: str) -> list[str]:
    """The words after ``fit`` for a run of the smallest model, which ends with its first step."""
    model = '{"blocks": 1, "flows": 2, "width": 2, "layers": 1, "conditioning": "pooled"}'
    return [
        *("--model.config", model, "--model.init_crops", "1", "--data.corpus", str(folder / "wavs"), "--data.workers", "0"),
        *("--data.segment_frames", "2", "--data.batch_size", "1", "--data.valid_fraction", "0.4"),
        *("--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.enable_model_summary", "false"),
        *("--trainer.logger", "false", "--trainer.enable_progress_bar", "false"),
        *("--trainer.default_root_dir", str(folder / RESULTS), *more),
    ]


def runs(folder: Path) -> Seeds:
    from flowavenet.training.fit import fit

    corpus("", folder)
    fit(training(folder))
    return [(folder / RESULTS / "checkpoints" / "last.ckpt").read_bytes()]


def read_run(path: Path) -> None:
    """As a run does that goes on from it, and then has nothing left to do."""
    from flowavenet.training.fit import fit

    assert fit(training(path.parent, "--ckpt_path", str(path))).global_step == 1, "another step than the last one"


class Parsed(BaseException):
    """Of a recipe: all that it says is known."""


def read_recipe(path: Path) -> None:
    """As ``fit`` does before it makes what the recipe asks for, which may be anything."""
    from unittest.mock import patch

    from flowavenet.training.fit import FitCLI, fit

    with patch.object(FitCLI, "before_instantiate_classes", side_effect=Parsed):
        try:
            fit(["--config", str(path), "--data.corpus", "corpus"])
        except Parsed:
            pass
