"""Laws of `flowavenet fit`: runs are not overwritten or turned into others, leave a vocoder, and say how they go."""

import re
import signal
from types import SimpleNamespace

import pytest
import torch
import yaml
from test_training import arguments

from flowavenet.hub import find_checkpoint
from flowavenet.training import trainer as trainers
from flowavenet.training.callbacks import ProcessorTimer
from flowavenet.training.likelihood import LikelihoodTraining
from flowavenet.training.resuming import check_folder
from flowavenet.training.trainer import ProgressLines, best_precision, processor_flags

QUIET = ["--showcase.clips", "0", "--trainer.limit_val_batches", "0"]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def begun(corpus, tmp_path_factory):
    """A run of two steps."""
    from flowavenet.training.fit import fit

    run = tmp_path_factory.mktemp("run")
    fit(arguments(corpus, run, *QUIET, "--trainer.max_steps", "2"))
    return run


def refused(flowavenet, words):
    code, _, said = flowavenet("fit", *words)
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert code == 2 and len(errors) == 1 and "Traceback" not in said, said
    return errors[0]


def test_a_folder_that_has_a_run_is_refused_and_left_as_it_is(begun, corpus, flowavenet):
    before = contents(begun)
    said = refused(flowavenet, arguments(corpus, begun, *QUIET, "--trainer.max_steps", "1"))
    assert str(begun) in said and "--ckpt_path last" in said and "--trainer.default_root_dir" in said
    assert contents(begun) == before


@pytest.mark.parametrize(
    "more, difference",
    [
        (["--model.mel", "vocos"], "model.mel hifigan, now it is vocos"),
        (["--model.config", '{"blocks": 3, "flows": 2, "width": 4, "conditioning": "pooled"}'],
         "model.config.width 8, now it is 4"),
        (["--data.segment_frames", "8"], "data.segment_frames 4, now it is 8"),
    ],
)
def test_other_settings_than_a_run_began_with_are_refused_by_name(begun, corpus, flowavenet, more, difference):
    before = contents(begun)
    said = refused(flowavenet, [*arguments(corpus, begun, *QUIET, "--trainer.max_steps", "4", "--ckpt_path", "last"), *more])
    assert difference in said and "config.yaml" in said
    assert contents(begun) == before


def test_the_same_settings_in_other_words_are_the_same(tmp_path, corpus):
    from dataclasses import asdict

    from flowavenet.audio import mel_settings

    model = {"name": "lapflow", "config": {}, "mel": "hifigan", "dequantisation": 1.0}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": model, "data": {"corpus": "gone/corpus", "seed": 1}}))
    words = model | {"config": {"bands": 256}, "mel": asdict(mel_settings("hifigan")), "learning_rate": 2.0}
    now = {"model": words, "data": {"corpus": str(corpus), "seed": 1, "batch_size": 3}}
    check_folder(tmp_path, "last", now)                                # the corpus has been moved
    narrow, other = {"config": {"bands": 64}}, {"name": "wavenet"}
    for change, said in ((narrow, "config.bands 256, now it is 64"), (other, "name lapflow, now it is wavenet")):
        with pytest.raises(ValueError, match=said):
            check_folder(tmp_path, "last", now | {"model": words | change})


def test_a_run_whose_steps_are_spent_says_so(begun, corpus, flowavenet):
    words = arguments(corpus, begun, *QUIET, "--trainer.max_steps", "2", "--ckpt_path", "last")
    code, _, said = flowavenet("fit", *words)
    assert code == 0 and f"note: {begun}: it is at step 2 of 2" in said and "--trainer.max_steps" in said


def test_told_to_stop_before_the_first_validation_it_leaves_a_vocoder(corpus, monkeypatch, tmp_path, capsys):
    from flowavenet import Vocoder
    from flowavenet.training.fit import fit

    def told(module):
        if module.trainer.global_step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(LikelihoodTraining, "on_train_batch_start", lambda self, *_: told(self), raising=False)
        fit(arguments(corpus, tmp_path, "--showcase.clips", "0", "--ema.decay", "0.5", "--trainer.max_steps", "1000"))
    assert ended.value.code == 130 and f"the vocoder is {tmp_path / 'vocoder'}" in capsys.readouterr().err
    vocoder = Vocoder.from_pretrained(tmp_path / "vocoder")
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    key = "upsampler.layers.0.bias"
    assert vocoder.facts["steps"] == last["global_step"] == 3
    assert torch.equal(vocoder.model.state_dict()[key], last["state_dict"][f"model.{key}"])       # the averages
    assert not torch.equal(vocoder.model.state_dict()[key], last["current_model_state"][f"model.{key}"])
    assert vocoder(torch.zeros(1, 80, 3) - 5).isfinite().all()


def test_a_run_without_a_vocoder_is_named_as_such(tmp_path):
    (tmp_path / "events.out.tfevents.1").touch()
    with pytest.raises(FileNotFoundError, match="vocoder: this run has saved no vocoder yet"):
        find_checkpoint(tmp_path / "vocoder")


FLAGS = {"avx512f avx512_bf16": "bf16-mixed", "amx_bf16": "bf16-mixed", "avx2 fma avx512f": "32-true", "": "32-true"}


@pytest.mark.parametrize("flags", FLAGS)
def test_precision_is_what_the_processor_does_well(tmp_path, monkeypatch, flags):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n\n")
    monkeypatch.setattr(trainers, "processor_flags", lambda: processor_flags(tmp_path / "cpuinfo"))
    assert best_precision("cpu")[0] == FLAGS[flags] and processor_flags(tmp_path / "none") == set()


def test_a_run_says_in_lines_how_it_goes(corpus, tmp_path, flowavenet):
    more = ["--trainer.max_steps", "6", "--progress.every", "0", "--trainer.accelerator", "cpu"]
    code, _, said = flowavenet("fit", *arguments(corpus, tmp_path, *QUIET, *more))
    wanted = {
        r"precision (32-true|bf16-mixed): this processor .*": 1,
        r"flowavenet, 0\.\d M weights; 0\.\d\d h to train on, \d clips to validate on; from step 0": 1,
        r"step \d+, -?\d+\.\d{3} nats, \d+\.\d{3} s per step, 0 min \d+ s left": 6,
        r"trained to step 6": 1,
    }
    found = {pattern: sum(bool(re.fullmatch(pattern, line)) for line in said.splitlines()) for pattern in wanted}
    assert code == 0 and found == wanted, said
    assert "FLOPs" not in said and "Epoch" not in said


def test_the_time_left_is_that_of_the_first_limit():
    timer = ProcessorTimer(100.0)
    trainer = SimpleNamespace(callbacks=[timer, ProgressLines()], max_steps=1000, global_step=990)
    assert trainers._seconds_left(trainer, 2.0) == 20 and trainers._seconds_left(trainer, 60.0) == 100
    trainer.callbacks, trainer.max_steps = [], -1
    assert trainers._seconds_left(trainer, 2.0) is None


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_batch_end"])
def test_told_to_stop_around_a_validation_the_vocoder_has_the_averages(corpus, monkeypatch, tmp_path, hook):
    """Before its first step they are apart from the module, in its midst they have changed places."""
    from flowavenet.checkpoint import load_checkpoint
    from flowavenet.training.fit import fit

    averages = {}

    def told(module, *_):
        if module.trainer.validating:
            averages.update({name: weight.clone() for name, weight in module.model.state_dict().items()})
        if module.trainer.validating or module.trainer.global_step == 2:
            signal.raise_signal(signal.SIGINT)

    words = ["--showcase.clips", "0", "--ema.decay", "0.5", "--trainer.val_check_interval", "3", "--trainer.max_steps", "9"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(LikelihoodTraining, hook, told, raising=False)
        fit(arguments(corpus, tmp_path, *words))
    saved = load_checkpoint(tmp_path / "vocoder")[0].state_dict()
    if not averages:
        last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        averages = {name: last[f"model.{name}"] for name in saved}
    assert all(torch.equal(saved[name], weight) for name, weight in averages.items())
