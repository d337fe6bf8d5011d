"""Training: crops that a position decides, steps that can be skipped, runs that can be killed and resumed."""

import math
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
from conftest import CLIPS, shake

from flowavenet.audio import MelSettings, MelSpectrogram
from flowavenet.checkpoint import load_checkpoint, save_checkpoint
from flowavenet.data.corpus import Clip, read_corpus
from flowavenet.data.crops import Crops, CropsInMemory, FixedCrops, FromPosition
from flowavenet.losses import PCM_STEP, bits_per_sample, dequantise, gaussian_log_prob
from flowavenet.models import FloWaveNet, FloWaveNetConfig
from flowavenet.training.data import SpeechData
from flowavenet.training.likelihood import LikelihoodTraining

MEL = MelSpectrogram(MelSettings())
TINY = {"blocks": 3, "flows": 2, "width": 8, "conditioning": "pooled"}


@pytest.fixture(scope="module")
def clips(corpus):
    return [clip for clip in read_corpus(corpus) if clip.split == "train"]


def crops(clips, kind=Crops, silence_db=-80.0, seed=0, frames=8):
    return kind(clips, MEL, frames, seed, silence_db)


class TestCrops:
    def test_position_and_seed_decide_alone(self, clips):
        one, two, other = crops(clips), crops(clips), crops(clips, seed=1)
        for index in (0, 7, 10**9):
            assert torch.equal(one[index]["padded"], two[index]["padded"])
            assert not torch.equal(one[index]["padded"], other[index]["padded"])

    def test_in_memory_they_are_the_same(self, clips, tmp_path):
        soundfile.write(tmp_path / "three.wav", np.array([0.5, 0.5, 0.5]), 22050)
        clips = [*clips, Clip(tmp_path / "three.wav", "", "train", 2.0)]
        decoded, kept = crops(clips), crops(clips, CropsInMemory)
        start = torch.stack([kept[index]["start"] for index in range(30)])
        torch.testing.assert_close(kept.gather(start), torch.stack([decoded[i]["padded"] for i in range(30)]))

    def test_mel_of_a_crop_is_a_crop_of_the_mel(self, clips):
        wave = MEL.pad(torch.from_numpy(soundfile.read(clips[0].path, dtype="float32")[0])[None])
        start = 256 * 20
        whole = MEL.from_padded(wave)
        part = MEL.from_padded(crops(clips).cut(crops(clips).wave(0), start)[None])
        torch.testing.assert_close(part, whole[..., 20:28], atol=2e-3, rtol=0)

    def test_every_second_is_equally_likely(self, tmp_path):
        for name, seconds in (("short", 1), ("long", 3)):
            level = 0.2 if name == "short" else 0.5
            soundfile.write(tmp_path / f"{name}.wav", np.full(seconds * 22050, level), 22050)
        data = crops([Clip(tmp_path / "short.wav", "", "train", 1.0), Clip(tmp_path / "long.wav", "", "train", 3.0)])
        long = sum(data[i]["padded"].median() > 0.35 for i in range(400)) / 400
        assert abs(long - 0.75) < 0.08

    def test_silence_is_drawn_again(self, tmp_path):
        wave = np.concatenate([np.zeros(22050), 0.1 * np.ones(22050)])
        soundfile.write(tmp_path / "half.wav", wave, 22050)
        clip = [Clip(tmp_path / "half.wav", "", "train", 2.0)]
        quiet = sum(crops(clip, silence_db=-50.0)[i]["padded"].abs().max() == 0 for i in range(100))
        assert sum(crops(clip, silence_db=-math.inf)[i]["padded"].abs().max() == 0 for i in range(100)) > 30
        assert quiet <= 2

    def test_a_clip_shorter_than_a_crop_is_followed_by_silence(self, tmp_path):
        soundfile.write(tmp_path / "three.wav", np.array([0.5, 0.5, 0.5]), 22050)
        crop = crops([Clip(tmp_path / "three.wav", "", "train", 3 / 22050)])[0]["padded"]
        assert len(crop) == 8 * 256 + 768 and crop.abs().sum() > 0

    def test_validation_crops_never_change(self, clips):
        data = crops(clips, FixedCrops)
        starts = [data[i]["start"].item() for i in range(len(data))]
        assert len(data) == 2 * len(clips) and starts == [data[i]["start"].item() for i in range(len(data))]
        assert starts == sorted(set(starts))


class TestFromPosition:
    def test_processes_share_out_consecutive_indices(self):
        ranks = [list(FromPosition(3, 2, lambda: 0, rank, 2)) for rank in range(2)]
        assert sorted(i for rank in ranks for batch in rank for i in batch) == list(range(12))

    def test_resumed_in_mid_epoch_it_goes_on(self):
        whole = [batch for epoch in range(3) for batch in FromPosition(5, 2, lambda epoch=epoch: epoch * 10)]
        for done in range(10):
            assert list(FromPosition(5, 2, lambda done=done: done * 2)) == whole[done : done + 5]


class TestLosses:
    def test_gaussian_log_prob_is_torchs(self):
        z = torch.randn(3, 50, dtype=torch.float64)
        expected = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
        torch.testing.assert_close(gaussian_log_prob(z), expected.double())

    def test_dequantisation_fills_one_step_evenly(self):
        noise = dequantise(torch.zeros(100_000), generator=torch.Generator().manual_seed(0)) / PCM_STEP
        assert -0.5 <= noise.min() < -0.49 and 0.49 < noise.max() < 0.5
        assert noise.var().item() == pytest.approx(1 / 12, rel=0.02)
        assert torch.equal(dequantise(torch.ones(5), step=0), torch.ones(5))

    def test_a_uniform_density_costs_sixteen_bits(self):
        assert bits_per_sample(np.log(0.5)) == pytest.approx(16)       # density 1/2 over [-1, 1] is 2^16 steps


def test_overfitting_one_clip_raises_its_likelihood_steadily(speech):
    torch.manual_seed(0)
    wave = dequantise(speech[:, : 256 * 8])
    mel = MEL(wave)
    model = FloWaveNet(FloWaveNetConfig(blocks=6, flows=2, width=16, conditioning="pooled")).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, (0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 100)
    curve = []
    for _ in range(100):
        loss = -model.log_prob(wave, mel).mean() / wave.shape[1]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        curve.append(-loss.item())
    stages = np.reshape(curve, (4, 25)).mean(axis=1)
    assert (np.diff(stages) > 0).all() and stages[-1] > stages[0] + 1.0


def arguments(corpus, run, *more):
    return [
        *("--model.config", str(TINY).replace("'", '"'), "--data.corpus", str(corpus)),
        *("--trainer.default_root_dir", str(run)),
        *("--data.segment_frames", "4", "--data.batch_size", "2", "--data.workers", "0", "--data.in_memory", "true"),
        *("--trainer.max_epochs", "-1", "--trainer.log_every_n_steps", "1", "--trainer.num_sanity_val_steps", "0"),
        *("--trainer.check_val_every_n_epoch", "null", "--model.init_crops", "4", "--data.valid_fraction", "0.3", *more),
    ]


def losses(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curve = {}
    for file in sorted(run.glob("events*"), key=lambda f: f.stat().st_mtime):
        events = EventAccumulator(str(file))
        events.Reload()
        if "train/nats_per_sample" in events.Tags()["scalars"]:            # the validation at the end has its own file
            curve |= {event.step: event.value for event in events.Scalars("train/nats_per_sample")}
    return curve


def test_killed_and_resumed_it_is_the_uninterrupted_run(corpus, tmp_path):
    """SIGKILL in mid-run; resuming repeats no crop, no noise and no random state: the losses are equal, bit for bit."""
    from flowavenet.training.fit import fit

    steps = 30
    schedule = ["--trainer.val_check_interval", "9", "--checkpoint.every_n_train_steps", "4", "--showcase.clips", "0"]
    fit(arguments(corpus, tmp_path / "whole", *schedule, "--trainer.max_steps", str(steps)))
    run = tmp_path / "killed"
    endless = arguments(corpus, run, *schedule, "--trainer.max_steps", "100000")
    process = subprocess.Popen(
        [sys.executable, "-m", "flowavenet.cli", "fit", *endless], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    checkpoint = run / "checkpoints" / "last.ckpt"
    deadline = time.time() + 300
    try:
        while not checkpoint.exists():
            assert process.poll() is None and time.time() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    stopped = torch.load(checkpoint, weights_only=False)["global_step"]
    assert not list(checkpoint.parent.glob("*.tmp")) and stopped >= 4
    trainer = fit(arguments(corpus, run, *schedule, "--trainer.max_steps", str(stopped + 12), "--ckpt_path", "last"))
    assert trainer.global_step == stopped + 12
    whole, resumed = losses(tmp_path / "whole"), losses(run)
    common = [step for step in whole if step in resumed]
    assert len(common) >= min(steps, stopped + 12) - 1
    assert [resumed[step] for step in common] == [whole[step] for step in common]
    assert len(set(whole.values())) > steps // 2


def test_ended_between_two_checkpoints_it_still_goes_on_exactly(corpus, tmp_path):
    """A run that reaches max_steps or max_time saves where it stands, not only every n steps."""
    from flowavenet.training.fit import fit

    schedule = ["--trainer.val_check_interval", "9", "--checkpoint.every_n_train_steps", "4", "--showcase.clips", "0"]
    fit(arguments(corpus, tmp_path / "whole", *schedule, "--trainer.max_steps", "11"))
    fit(arguments(corpus, tmp_path / "run", *schedule, "--trainer.max_steps", "6"))
    shown = ["--showcase.clips", "1", "--showcase.seconds", "0.1"]     # what is logged to look at changes nothing
    fit(arguments(corpus, tmp_path / "run", *schedule, *shown, "--trainer.max_steps", "11", "--ckpt_path", "last"))
    whole, resumed = losses(tmp_path / "whole"), losses(tmp_path / "run")
    assert resumed == whole and len(whole) == 11
    for run in ("whole", "run"):
        assert torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=False)["global_step"] == 11


def test_fit_leaves_a_vocoder_at_the_averaged_weights(corpus, tmp_path):
    from flowavenet import Vocoder
    from flowavenet.training.fit import fit

    more = ["--trainer.val_check_interval", "5", "--trainer.max_steps", "10", "--ema.decay", "0.5", "--showcase.clips", "1",
            "--checkpoint.every_n_train_steps", "10"]
    trainer = fit(arguments(corpus, tmp_path, *more))
    vocoder = Vocoder.from_pretrained(tmp_path / "vocoder")
    assert vocoder.facts["steps"] == 10 and vocoder.facts["valid_nats_per_sample"] is not None
    # when training ends, Lightning leaves the averaged weights in the module; resuming needs the others
    saved = load_checkpoint(tmp_path / "vocoder")[0].state_dict()
    averaged = trainer.lightning_module.model.state_dict()
    assert all(torch.equal(saved[key], averaged[key]) for key in averaged)
    assert all(value.all() for key, value in saved.items() if key.endswith("initialised"))
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    assert not torch.equal(last["current_model_state"]["model.upsampler.layers.0.bias"], saved["upsampler.layers.0.bias"])
    assert vocoder(torch.zeros(1, 80, 3) - 5).isfinite().all()
    tags = _tags(tmp_path)
    assert {"clip0/vocoded", "clip0/recorded"} <= set(tags["audio"]) and "clip0/mel" in tags["images"]
    assert {f"flow/log_det/block{i}" for i in range(TINY["blocks"])} <= set(tags["scalars"])
    assert "valid/bits_per_sample" in tags["scalars"] and "train/learning_rate" in tags["scalars"]


def test_the_average_forgets_the_start_and_then_has_its_decay():
    from flowavenet.training.callbacks import MovingAverage

    average = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(1, 1), **MovingAverage(0.5)._kwargs)
    model, expected = torch.nn.Linear(1, 1), None
    for n in range(12):
        torch.nn.init.constant_(model.weight, float(n))
        average.update_parameters(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = 0.0 if n == 0 else expected + (1 - decay) * (n - expected)
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_log_dets_of_the_blocks_add_up():
    from flowavenet.training.monitor.statistics import log_dets

    model = shake(FloWaveNet(FloWaveNetConfig(**TINY), 80, 256))
    wave = torch.randn(1, 2560) / 10
    parts = log_dets(model, wave, MEL(wave))
    assert list(parts) == ["block0", "block1", "block2"]
    whole = model.encode(wave, MEL(wave))[1].mean().item()
    assert sum(parts.values()) == pytest.approx(whole, abs=1e-5)


def _tags(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    return events.Tags()


class Poisoned(LikelihoodTraining):
    """A run whose loss is not finite at the steps given."""

    at: range = range(0)

    def nats_per_sample(self, batch):
        nats = super().nats_per_sample(batch)
        return nats * float("nan") if self.training and self.trainer.fit_loop.total_batch_idx in self.at else nats


def train(module, corpus, steps, root):
    import pytorch_lightning as pl

    data = SpeechData(str(corpus), segment_frames=4, batch_size=2, workers=0, in_memory=True, valid_fraction=0.3)
    trainer = pl.Trainer(
        max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False, default_root_dir=root,
        enable_model_summary=False, limit_val_batches=0, accelerator="cpu",
    )
    trainer.fit(module, data)
    return module


def test_a_step_that_is_not_finite_is_skipped_and_counted(corpus, tmp_path):
    module = Poisoned(name="flowavenet", config=TINY, max_bad_steps=4)
    module.at = range(3, 6)
    train(module, corpus, 8, tmp_path)
    assert module.bad_steps == 0 and all(weight.isfinite().all() for weight in module.parameters())


def test_too_many_in_a_row_stop_with_the_cure(corpus, tmp_path):
    module = Poisoned(name="flowavenet", config=TINY, max_bad_steps=4)
    module.at = range(3, 100)
    with pytest.raises(ValueError, match="4 steps in a row .*lower --model.learning_rate"):
        train(module, corpus, 50, tmp_path)
    assert all(weight.isfinite().all() for weight in module.parameters())


def test_schedule_is_the_published_one():
    module = LikelihoodTraining(name="flowavenet", config=TINY, decay_steps=10, warmup_steps=4)
    factor = module.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [factor(step) for step in (0, 1, 3, 9, 10, 25)] == [0.25, 0.5, 1.0, 1.0, 0.5, 0.25]


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_constant_memory_trains_alike(corpus, tmp_path, precision):
    from flowavenet.training.fit import fit

    more = ["--trainer.max_steps", "6", "--trainer.limit_val_batches", "0", "--trainer.precision", precision]
    fit(arguments(corpus, tmp_path / "plain", *more))
    fit(arguments(corpus, tmp_path / "constant", *more, "--model.constant_memory", "true"))
    plain, constant = losses(tmp_path / "plain"), losses(tmp_path / "constant")
    assert list(constant.values()) == pytest.approx(list(plain.values()), rel=1e-4 if precision == "32" else 1e-2)


def test_throughput_is_logged(corpus, tmp_path):
    from flowavenet.training.fit import fit

    more = ["--trainer.max_steps", "6", "--trainer.limit_val_batches", "0", "--throughput.every", "3"]
    trainer = fit(arguments(corpus, tmp_path, *more))
    assert 0 < trainer.callback_metrics["speed/audio_seconds_per_second"] < 1e4
    assert 0 < trainer.callback_metrics["speed/share_of_peak"] < 1


@pytest.mark.parametrize("name", ["lapflow", "flowavenet"])
def test_a_training_step_is_one_graph(name):
    """What ``compile`` hands to the compiler has no break in it, and computes the same."""
    from flowavenet.models import build

    small = {
        "lapflow": {"bands": 16, "levels": 1, "steps": 1, "layers": 1, "width": 8, "cond_width": 4, "filter_spread": 1},
        "flowavenet": {"blocks": 2, "blocks_per_split": 1, "flows": 2, "layers": 1, "width": 8, "conditioning": "pooled"},
    }
    model = shake(build(name, small[name], 80, 256))
    wave, mel = torch.randn(2, 2048) / 10, torch.randn(2, 80, 8)
    model(wave, mel)                                                   # ActNorm is initialised outside, see on_train_start
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(wave, mel), model(wave, mel), rtol=1e-4, atol=1e-2)


def rates(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    return [event.value for event in events.Scalars("train/learning_rate")]


def test_cosine_falls_to_the_end_of_the_run(corpus, tmp_path):
    from flowavenet.training.fit import fit

    more = ["--model.schedule", "cosine", "--model.learning_rate", "1e-3", "--model.warmup_steps", "2"]
    fit(arguments(corpus, tmp_path, *more, "--trainer.max_steps", "9", "--trainer.limit_val_batches", "0"))
    cosine = [0.03 + 0.97 * (1 + math.cos(math.pi * step / 9)) / 2 for step in range(9)]
    assert rates(tmp_path) == pytest.approx([1e-3 * min(1, (step + 1) / 2) * cosine[step] for step in range(9)])


def test_a_resumed_run_takes_the_learning_rate_that_it_is_given(corpus, tmp_path):
    from flowavenet.training.fit import fit

    steps = ["--model.warmup_steps", "0", "--model.decay_steps", "100000"]
    for rate, end, more in [("1e-3", "2", []), ("1e-4", "4", ["--ckpt_path", "last"])]:
        fit(arguments(corpus, tmp_path, *steps, "--model.learning_rate", rate, "--trainer.max_steps", end, *more))
    assert rates(tmp_path) == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])


def test_cosine_falls_by_the_clock_too(corpus, tmp_path):
    from flowavenet.training.fit import fit

    more = ["--model.schedule", "cosine", "--trainer.max_time", "00:00:00:04", "--model.learning_rate", "1e-3"]
    fit(arguments(corpus, tmp_path, *more, "--trainer.limit_val_batches", "0"))
    found = rates(tmp_path)
    assert found[0] == pytest.approx(1e-3, rel=0.1) and found[-1] < 1e-4 and (np.diff(found) <= 0).all()


def test_cosine_without_an_end_is_one_line(corpus, tmp_path):
    module = LikelihoodTraining(name="flowavenet", config=TINY, schedule="cosine")
    with pytest.raises(ValueError, match="--trainer.max_time or --trainer.max_steps"):
        train(module, corpus, -1, tmp_path)


def test_a_run_can_start_from_a_checkpoint(corpus, tiny, tmp_path):

    model, mel, _ = load_checkpoint(tiny)
    model.train()(torch.randn(1, 2560), torch.randn(1, 80, 10))        # ActNorm is now initialised, and stays
    save_checkpoint(tmp_path / "start", model, mel)
    config = {"blocks": 4, "flows": 2, "width": 8, "blocks_per_split": 2, "conditioning": "pooled"}
    module = LikelihoodTraining(name="flowavenet", config=config, start_from=str(tmp_path / "start"), learning_rate=0.0)
    train(module, corpus, 1, tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(module.model.state_dict()[key], value), key
    with pytest.raises(ValueError, match="the recipe says"):
        LikelihoodTraining(name="flowavenet", config=TINY, start_from=str(tmp_path / "start"))


BAD = {
    "nan.wav": lambda p: soundfile.write(p, np.array([0.1, np.nan] * 90000), 22050, subtype="FLOAT"),
    "cut.flac": lambda p: p.write_bytes(CLIPS[0].read_bytes()[:30000]),
    "text.wav": lambda p: p.write_text("this is not audio " * 50),
}


@pytest.mark.parametrize(
    "name, in_memory, workers",
    [("nan.wav", True, 0), ("nan.wav", False, 0), ("nan.wav", False, 2), ("cut.flac", True, 0), ("text.wav", True, 0)],
)
def test_bad_audio_in_the_corpus_is_one_line(tmp_path, capsys, monkeypatch, name, in_memory, workers):
    from flowavenet import cli

    (tmp_path / "corpus").mkdir()
    for clip in CLIPS:
        shutil.copy(clip, tmp_path / "corpus")
    BAD[name](tmp_path / "corpus" / name)
    words = arguments(tmp_path / "corpus", tmp_path / "run", "--trainer.max_steps", "60", "--data.in_memory", str(in_memory),
                      "--data.workers", str(workers))
    monkeypatch.setattr(sys, "argv", ["flowavenet", "fit", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2 and len(errors) == 1 and name in errors[0]


def test_odd_audio_in_the_corpus_is_handled(corpus, tmp_path):
    """Three samples; stereo at 48 kHz."""
    from flowavenet.training.fit import fit

    shutil.copytree(corpus, tmp_path / "corpus")
    soundfile.write(tmp_path / "corpus" / "three.wav", np.array([0.1, 0.2, 0.1]), 22050)
    soundfile.write(tmp_path / "corpus" / "stereo.wav", 0.1 * np.random.default_rng(0).standard_normal((48000, 2)), 48000)
    trainer = fit(arguments(tmp_path / "corpus", tmp_path / "run", "--trainer.max_steps", "3", "--showcase.clips", "0"))
    assert trainer.global_step == 3


@pytest.mark.parametrize("what, message", [("empty", "no audio"), ("missing", "no such"), ("no valid", "mark some")])
def test_no_corpus_is_one_line(tmp_path, capsys, monkeypatch, what, message):
    from flowavenet import cli

    if what != "missing":
        (tmp_path / "corpus").mkdir()
    if what == "no valid":
        (tmp_path / "corpus" / "manifest.csv").write_text(f"path,split\n{CLIPS[0]},train\n")
    monkeypatch.setattr(sys, "argv", ["flowavenet", "fit", *arguments(tmp_path / "corpus", tmp_path / "run")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2 and len(errors) == 1 and message in errors[0]
