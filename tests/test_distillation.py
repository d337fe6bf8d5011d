"""Distillation: a student knows what it draws from, its teacher stays as it is, and the two come closer."""

import pytest
import torch
from conftest import shake

from flowavenet import Vocoder
from flowavenet.audio import MelSettings
from flowavenet.checkpoint import load_checkpoint, save_checkpoint
from flowavenet.losses import gaussian_kl
from flowavenet.models import build
from flowavenet.training.distillation import DistillationTraining
from flowavenet.training.fit import distil

NET = {"layers": 3, "width": 8, "gate_width": 8, "skip_width": 8, "front_size": 4, "mel_shift": 5.8, "mel_scale": 0.5}
TEACHER = NET | {"stacks": 1, "gain": 10.0}
STUDENT = NET | {"stacks": [1, 1], "gain": 10.0}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    for head in ("gaussian", "logistics", "mulaw"):
        gain = {"gain": 1.0} if head == "mulaw" else {}
        model = shake(build("wavenet", TEACHER | gain | {"head": head, "mixtures": 3}, 80, 256), 0.05)
        save_checkpoint(folder / head, model, MelSettings())
    save_checkpoint(folder / "flow", build("lapflow", {"bands": 64, "width": 8}, 80, 256), MelSettings())
    return folder


def batch(count=2, frames=6):
    """The same one every time."""
    samples, generator = frames * 256 + sum(MelSettings().context), torch.Generator().manual_seed(0)
    padded, index = torch.randn(count, samples, generator=generator) / 20, torch.arange(count)
    return {"padded": padded, "index": index, "speaker": torch.zeros_like(index)}


@pytest.mark.parametrize("name", ["gaussian_iaf", "parallel_wavenet"])
def test_a_sample_is_drawn_from_what_the_student_says(name):
    """wave = z exp(log_scale) + mean; the log-scales are the log-det, and neither depends on the noise of its own sample."""
    model = shake(build(name, NET | {"stacks": [1, 2], "gain": 3.0}, 4, 8).double(), 0.1)
    noise, mel = torch.randn(1, 24, dtype=torch.float64), torch.randn(1, 4, 3, dtype=torch.float64)
    drawn = model.draw(noise, mel)
    torch.testing.assert_close(drawn.wave, model.decode(noise, mel))
    z = noise if name == "gaussian_iaf" else model.flow.inner.transforms[-1].inverse(noise[None])[0][0]
    torch.testing.assert_close(drawn.wave, z * drawn.log_scale.exp() + drawn.mean)
    if name == "gaussian_iaf":
        _, log_det = model.encode(drawn.wave, mel)
        torch.testing.assert_close(log_det, -drawn.log_scale)
    for part in ("mean", "log_scale"):
        jacobian = torch.autograd.functional.jacobian(lambda v, part=part: getattr(model.draw(v, mel), part), noise)[0, :, 0]
        assert not jacobian.triu().any() and jacobian.tril(-1).any()


@pytest.mark.parametrize("name, head", [
    ("gaussian_iaf", "gaussian"), ("parallel_wavenet", "logistics"), ("parallel_wavenet", "gaussian"),
])
def test_run(name, head, teachers, corpus, tmp_path):
    """From the command line's words to a vocoder: the divergence falls, the teacher and its upsampler stay."""
    before = (teachers / head / "model.safetensors").read_bytes()
    trainer = distil([
        *("--model.name", name, "--model.config", str(STUDENT), "--model.teacher", str(teachers / head)),
        *("--model.stft", "0", "--model.draws", "10", "--model.learning_rate", "0.003", "--data.corpus", str(corpus)),
        *("--data.segment_frames", "4", "--data.batch_size", "2", "--trainer.max_steps", "40", "--data.in_memory", "true"),
        *("--trainer.default_root_dir", str(tmp_path), "--trainer.enable_progress_bar", "false", "--showcase.clips", "0"),
        *("--trainer.limit_val_batches", "2", "--trainer.log_every_n_steps", "1", "--ema.decay", "0.9"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false", "--data.workers", "0"),
    ])
    module = trainer.lightning_module
    start = DistillationTraining(str(teachers / head), name=name, config=STUDENT, stft=0.0, draws=10)
    first, last = (one.losses(batch(8), torch.Generator().manual_seed(0))["kl"] for one in (start, module))
    assert last < 0.85 * first
    teacher, saved = module.teacher, load_checkpoint(teachers / head)[0]
    for (key, got), wanted in zip(teacher.state_dict().items(), saved.state_dict().values(), strict=True):
        assert torch.equal(got, wanted), key
    assert (teachers / head / "model.safetensors").read_bytes() == before
    assert all(weight.grad is None for weight in teacher.parameters())
    student = Vocoder.from_pretrained(tmp_path / "vocoder")
    assert student.facts["valid_kl"] is not None and not any("teacher" in key for key in module.state_dict())
    taught = Vocoder.from_pretrained(teachers / head).model.upsampler.state_dict()
    for key, value in student.model.upsampler.state_dict().items():
        assert torch.equal(value, taught[key])
    assert torch.isfinite(student(torch.randn(1, 80, 4), seed=0)).all()


def test_the_loss_is_the_weighted_sum(teachers):
    weights = {"kl": 0.5, "stft": 2.0, "log_stft": 3.0, "power": 0.1, "style": 0.7, "contrast": 0.3}
    module = DistillationTraining(str(teachers / "gaussian"), name="gaussian_iaf", config=STUDENT, **weights)
    module.log = lambda *_, **__: None
    shake(module.model, 0.05)
    losses = module.losses(batch(), module._generator(0))
    assert losses.keys() == weights.keys() and losses["contrast"] < 0 < losses["style"]
    expected = sum(weights[name] * value for name, value in losses.items())
    torch.testing.assert_close(module.training_step(batch(), 0), expected)


def test_the_divergence_is_that_of_what_both_say(teachers):
    """By hand: the teacher's mean and log-scale at the student's own waveform, brought to its loudness."""
    module = DistillationTraining(str(teachers / "gaussian"), name="gaussian_iaf", config=STUDENT)
    shake(module.model, 0.05)
    wave, mel, _ = module.crops(batch())
    noise = torch.randn(wave.shape, generator=torch.Generator().manual_seed(5))
    drawn = module.model.draw(noise, mel)
    mean, log_scale = module.teacher.predict(drawn.wave, mel).unbind(dim=2)
    wanted = gaussian_kl(10 * drawn.mean, drawn.log_scale + torch.tensor(10.0).log(), mean, log_scale)
    torch.testing.assert_close(module.losses(batch(), torch.Generator().manual_seed(5))["kl"], wanted.mean())


class TestErrors:
    @pytest.mark.parametrize("name, teacher, message", [
        ("gaussian_iaf", "logistics", "whose head is Gaussian"),
        ("parallel_wavenet", "mulaw", "Gaussian or LogisticMixture"),
        ("gaussian_iaf", "flow", "holds a Lapflow"), ("lapflow", "gaussian", "students are gaussian_iaf"),
    ])
    def test_who_cannot_teach_whom(self, name, teacher, message, teachers):
        with pytest.raises(ValueError, match=message):
            DistillationTraining(str(teachers / teacher), name=name, config=STUDENT if name != "lapflow" else {})

    def test_another_mel(self, teachers):
        with pytest.raises(ValueError, match="was trained on"):
            DistillationTraining(str(teachers / "gaussian"), name="gaussian_iaf", config=STUDENT, mel="flowavenet")

    def test_no_other_clip_to_contrast_with(self, teachers):
        module = DistillationTraining(str(teachers / "gaussian"), name="gaussian_iaf", config=STUDENT, contrast=0.3)
        with pytest.raises(ValueError, match="batch of 1"):
            module.losses(batch(1), torch.Generator())
