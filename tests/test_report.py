"""Reports of training runs: the rule is right where the truth is known, logs put together, what is logged to watch by."""

import json
import math
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import shake

from flowavenet.audio import MelSettings, MelSpectrogram
from flowavenet.models import build
from flowavenet.training.monitor.report import Report
from flowavenet.training.monitor.rule import advise, noise_of
from flowavenet.training.monitor.runs import NOTHING, Curve, Run, read_run
from flowavenet.training.monitor.statistics import coupling_log_scales, flow_statistics, noise_by_scale
from flowavenet.transforms import ActNorm

STEPS = np.arange(1, 41) * 1000.0
SMALL = {
    "flowavenet": {"blocks": 4, "flows": 2, "width": 8, "blocks_per_split": 2, "conditioning": "pooled"},
    "lapflow": {"bands": 16, "levels": 2, "steps": 1, "detail_steps": 1, "layers": 1, "width": 8, "cond_width": 4},
    "waveglow": {"flows": 4, "width": 8, "layers": 2, "early_every": 2},
    "gaussian_iaf": {},
}


def approach(steps):
    return 5.5 - 2 * np.exp(-steps / 3000)


def power(steps):
    return 6 - 10 * steps**-0.3


def turns(steps, at=20_000.0, by=2e-6):
    return approach(steps) - by * np.maximum(steps - at, 0)


def flat(steps):
    return 5.5 + 0 * steps


def run(law, noise=0.001, seed=0, train=None, steps=STEPS):
    """Curves of validation and of training crops, which are noisier and have outliers."""
    lot = np.random.default_rng(seed)
    often = np.arange(10, steps[-1] + 1, 10)
    crops = (train or law)(often) + 0.2 * lot.standard_normal(len(often))
    crops[::501] = -1e6                                                # as real runs have
    return Curve(steps, law(steps) + noise * lot.standard_normal(len(steps))), Curve(often, crops)


def rates(last):
    return Curve(STEPS, np.linspace(1.0, last, len(STEPS)))


CASES = {
    "power law": (dict(law=power), None, "go on", "gain"),
    "plateau": (dict(law=approach), None, "stop", "plateau"),
    "plateau while the rate falls": (dict(law=approach), rates(0.4), "go on", "gain"),
    "schedule at its end": (dict(law=power), rates(0.03), "stop", "schedule over"),
    "schedule at its end, few validations": (dict(law=power, steps=STEPS[:3]), rates(0.03), "stop", "schedule over"),
    "overfitting": (dict(law=turns, train=lambda steps: approach(steps) + 4e-6 * steps), None, "stop", "overfitting"),
    "divergence": (dict(law=lambda steps: turns(steps, 36_000, 1e-4)), None, "stop", "divergence"),
    "few validations": (dict(law=power, steps=STEPS[:7]), None, "go on", "early"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_the_rule_is_right_where_the_truth_is_known(case, seed):
    how, rate, verdict, reason = CASES[case]
    advice = advise(*run(**how, seed=seed), rate or NOTHING)
    assert (advice.verdict, advice.reason) == (verdict, reason), advice
    if reason == "overfitting":
        assert advice.evidence["best_step"] == pytest.approx(20_000, abs=3000) and "while training gained" in advice.text
        assert advice.evidence["lost"] == pytest.approx(0.04, abs=0.02)
    if case == "power law":
        truth = power(35_500.0) - power(25_500.0)
        assert advice.evidence["gain"] == pytest.approx(truth, abs=2 * advice.evidence["gain_error"] + 1e-3)


@pytest.mark.parametrize("where", ["valid", "train"])
def test_what_is_not_finite_comes_first(where):
    curves = dict(zip(("valid", "train"), run(power), strict=True))
    curves[where].values[-3:] = math.nan
    advice = advise(**curves, rate=NOTHING)
    assert (advice.verdict, advice.reason) == ("stop", "not finite")
    assert advice.evidence["since"] == curves[where].steps[-3] and "--model.learning_rate" in advice.text


def test_noise_alone_is_never_taken_for_overfitting_and_its_error_holds_the_truth():
    advices = [advise(*run(flat, noise=0.02, seed=seed), NOTHING) for seed in range(60)]
    assert {advice.reason for advice in advices} <= {"plateau", "gain"}
    assert np.mean([abs(advice.evidence["gain"]) <= 2 * advice.evidence["gain_error"] for advice in advices]) >= 0.9
    white = np.random.default_rng(0).standard_normal(2000)
    white[::100] = 1e3                                                 # outliers do not move it
    assert noise_of(white) == pytest.approx(1, rel=0.1)


def log(folder, name, steps, start, value, sound=None, tag="valid/nats_per_sample"):
    """An event file that a process might have left: a value and a sound at each step, a minute apart."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with open(folder / f"events.out.tfevents.{name}", "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=start, file_version="brain.Event:2").SerializeToString())
        for minute, step in enumerate(steps):
            values = [Summary.Value(tag=tag, simple_value=value)]
            if sound:
                values.append(Summary.Value(tag="clip0/vocoded", audio=Summary.Audio(encoded_audio_string=sound)))
            event = Event(wall_time=start + 60 * minute, step=step, summary=Summary(value=values))
            writer.write(event.SerializeToString())


def test_resumed_runs_are_one_history(tmp_path):
    """Steps that were taken again count once, as the later process took them."""
    log(tmp_path, "b", range(0, 31), 1e9, 1.0, b"old")                 # killed at step 30
    log(tmp_path, "a", range(20, 41), 1e9 + 86_400, 2.0, b"new")       # resumed at step 20, a day later
    log(tmp_path, "c", [], 2e9, 0.0)                                   # died at once
    with open(tmp_path / "events.out.tfevents.a", "r+b") as file:      # its last entry is half written
        file.truncate(file.seek(0, 2) - 5)
    run = read_run(tmp_path)
    curve = run.curve("valid/nats_per_sample")
    assert curve.steps.tolist() == list(range(40)) and curve.values.tolist() == [1.0] * 20 + [2.0] * 20
    sounds = run.sounds["clip0/vocoded"]
    assert sounds[19] == b"old" and sounds[20] == b"new"


def test_begun_anew_the_old_run_does_not_count(tmp_path):
    log(tmp_path, "a", range(0, 30), 1e9, 1.0)
    log(tmp_path, "b", range(0, 10), 1e9 + 1e5, 2.0)
    assert set(read_run(tmp_path).curve("valid/nats_per_sample").values) == {2.0}


@pytest.mark.parametrize(
    "what, message", [("missing", "no such folder"), ("empty", "no events"), ("several", "holds 2 runs"),
                      ("void", "nothing in them yet"), ("foreign", "is it a run of flowavenet")],
)
def test_no_run_is_one_line(tmp_path, flowavenet, what, message):
    folder = tmp_path / "run"
    for part in {"missing": [], "several": ["a", "b"]}.get(what, [""]):
        (folder / part).mkdir(parents=True)
        if what != "empty":
            log(folder / part, "x", [] if what == "void" else [0], 1e9, 1.0, tag="loss")
    code, _, err = flowavenet("report", folder)
    assert code == 2 and err.count("\n") == 1 and message in err and str(folder) in err and not (folder / "report").exists()


def test_a_real_run_is_reported_on_one_page(corpus, tmp_path, flowavenet):
    from test_training import arguments

    from flowavenet.training.fit import fit

    more = ["--trainer.val_check_interval", "2", "--trainer.max_steps", "4"]
    fit(arguments(corpus, tmp_path, *more, "--showcase.clips", "1", "--showcase.seconds", "0.3", "--showcase.crops", "2"))
    code, out, err = flowavenet("report", tmp_path, "-o", tmp_path / "out")
    assert code == 0, err
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["verdict"] == "go on" and "**go on**: 2 validations so far" in out
    assert found["facts"]["steps"] == "4" and "scale0" in found["statistics"]["noise (of a Gaussian 0, 1, 3)"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<!--" not in page and page.count("<svg") == 6 and page.count("data:audio/wav") == 3
    assert page.count("data:image/png") == 1 and "block0" in page and "coupling0" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)             # nothing is loaded from anywhere


def test_distillation_is_judged_by_a_divergence_that_falls(tmp_path):
    valid, train = run(power)
    fallen = {"valid/kl": valid._replace(values=-valid.values), "train/kl": train._replace(values=-train.values)}
    risen = Report(Run(tmp_path, {"valid/kl": valid, "train/kl": train}))
    assert Report(Run(tmp_path, fallen)).advice.reason == "gain" and risen.advice.verdict == "stop"


class Board:
    """What TensorBoard's writer is asked to keep."""

    def __init__(self):
        self.sounds, self.scalars, self.pictures = [], [], []
        self.add_audio = lambda tag, wave, step, rate: self.sounds.append((tag, wave))
        self.add_scalar = lambda tag, value, step: self.scalars.append(tag)
        self.add_figure = lambda tag, figure, step: self.pictures.append(tag)
        self.add_custom_scalars = lambda layout: None


def test_the_showcase_repeats_itself_and_touches_no_random_state(corpus):
    from flowavenet.training.data import SpeechData
    from flowavenet.training.likelihood import LikelihoodTraining
    from flowavenet.training.monitor.showcase import Showcase

    data = SpeechData(str(corpus), segment_frames=4, in_memory=True, valid_fraction=0.3)
    data.setup()
    module = LikelihoodTraining(name="flowavenet", config=SMALL["flowavenet"]).eval()
    board, showcase = Board(), Showcase(clips=1, seconds=0.2)
    trainer = SimpleNamespace(
        logger=SimpleNamespace(experiment=board), sanity_checking=False, is_global_zero=True, datamodule=data, global_step=1
    )

    def states():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = states()
    for _ in range(2):
        with torch.no_grad():
            showcase.on_validation_epoch_end(trainer, module)
    assert states() == before and not any(hook for part in module.modules() for hook in part._forward_hooks)
    (vocoded, first), (recorded, wave), (again, second) = board.sounds
    assert (vocoded, recorded, again) == ("clip0/vocoded", "clip0/recorded", "clip0/vocoded") and torch.equal(first, second)
    assert len(first) == len(wave) == round(0.2 * 22050 / 256) * 256   # longer than a crop
    assert wave.abs().max() > 0 and "flow/noise_kurtosis/scale0" in board.scalars and board.pictures


@pytest.mark.parametrize("name", SMALL)
def test_statistics_see_all_of_the_noise_and_every_coupling(name):
    model = shake(build(name, SMALL[name], 80, 256)).eval()
    wave = torch.randn(1, 2048) / 10
    mel = MelSpectrogram(MelSettings())(wave)
    found = flow_statistics(model, wave, mel)
    if model.sequential == "encode":
        assert found == {}
        return
    assert all(map(math.isfinite, found.values()))
    noise, _ = model.encode(wave, mel)
    parts = noise_by_scale(model, wave, mel)
    together = torch.cat(list(parts.values()))
    assert len(parts) > 1 and together.numel() == noise.numel()
    torch.testing.assert_close(together.square().sum(), noise.square().sum(), rtol=1e-4, atol=0)  # all views are orthonormal


def test_where_nothing_else_scales_couplings_are_the_log_det():
    model = shake(build("flowavenet", SMALL["flowavenet"], 80, 256)).eval()
    for part in model.modules():
        if isinstance(part, ActNorm):
            torch.nn.init.ones_(part.scale)
    wave = torch.randn(1, 2048) / 10
    mel = MelSpectrogram(MelSettings())(wave)
    scaled = sum(float(nats.sum()) for nats in coupling_log_scales(model, wave, mel).values())
    assert scaled == pytest.approx(model.encode(wave, mel)[1].sum().item(), rel=1e-4)
