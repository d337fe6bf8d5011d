"""Kills

A verb may be killed at any moment, and goes on when it is run again. Each was (SIGKILL), at moments drawn evenly from the
time that it takes undisturbed: the process alone, or all of its group; then it was run again as documented (with
`--ckpt_path last`, `--skip-existing`, `--force`, or the same words), killed again, and so on until it came to its end; and
again from the start. Of `--engine ray`, actors were killed as well, one after the other, and it goes on without them.
*files* is how many were looked at after kills: each must be, byte for byte, what an undisturbed run writes (those of
training: load). *ended* are the runs that came to exactly the result of an undisturbed one, training to the same losses and
weights, to the last bit, and did nothing twice that was done; but the log may lack the step whose checkpoint was just
written, as Lightning logs it after that. *steps lost* is the most that a kill cost, with a checkpoint every 3. *left* is
what there was of hidden and temporary files in the end. Inputs must not change, and no process may outlive a killed one by
more than three minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .killing import OUT, Course, State, Trial, Verb, contents, files

DATA = Path(__file__).parents[1] / "data"
KILLS = 50
"""Of each trial, at share 1."""
EVERY, STEPS = 3, 40
"""Training steps between two checkpoints, and in all."""
MODELS = {
    "flowavenet": {"blocks": 3, "flows": 2, "width": 8, "conditioning": "pooled"},
    "lapflow": {"bands": 64, "levels": 1, "steps": 1, "layers": 1, "width": 8, "cond_width": 4, "filter_spread": 1},
}


def campaign(share: float, folder: Path) -> Iterator[dict[str, Any]]:
    inputs = make_inputs(folder / "inputs")
    kills = max(1, round(KILLS * share))
    courses = [(trial, Course, kills) for trial in trials(inputs)]
    ray = vocoding(inputs / "longer", "ray")                           # takes its time to start
    courses += [(ray, kind, -(-kills // part)) for kind, part in ((Course, 10), (Actors, 2))]
    disk = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None      # another than that of the results
    for number, (trial, kind, count) in enumerate(courses):
        with TemporaryDirectory(dir=disk) as tmp:
            course = kind(trial, folder / str(number), Path(tmp), inputs)
            course.run(count)
            yield course.row()


def trials(inputs: Path) -> list[Trial]:
    """All but those of Ray."""
    prepare = ["prepare", inputs / "corpus", OUT]
    evaluate = ["evaluate", inputs / "few", inputs / "copies", "-o", OUT, "--workers", 2]
    return [
        training("flowavenet", inputs, "--data.workers", 0, "--data.in_memory", "true"),
        training("lapflow", inputs, "--data.workers", 1),
        Trial("prepare", prepare, done=with_suffix(".flac")),
        Trial("prepare --mels", [*prepare, "--mels", inputs / "mels"]),
        Trial("prepare --shards", [*prepare, "--shards", "--shard-mb", 0.3], done=whole_shards),
        vocoding(inputs / "mels", "plain"),
        Trial("vocode, one long file", ["vocode", inputs / "long", "-o", OUT, "--checkpoint", inputs / "tiny"]),
        Trial("mel", ["mel", inputs / "few", "-o", OUT, "--to", "vocos"]),
        Trial("score", ["score", inputs / "few", "-o", OUT, "--checkpoint", inputs / "tiny"]),
        Trial("evaluate", evaluate),
        Trial("convert", ["convert", inputs / "theirs.pt", "-o", OUT, "--mel", inputs / "mel.yaml"], ("--force",)),
    ]


def vocoding(mels: Path, engine: str) -> Trial:
    words = ["vocode", mels, "-o", OUT, "--checkpoint", mels.parent / "tiny", "--mel-convention", "hifigan"]
    name = f"vocode --engine {engine}"
    return Trial(name, [*words, "--engine", engine, "--skip-existing"], done=with_suffix(".wav"))


# Training


def training(name: str, inputs: Path, *more: Any) -> Trial:
    words = [
        *("fit", "--model.name", name, "--model.config", json.dumps(MODELS[name]), "--model.init_crops", 4),
        *("--data.corpus", inputs / "corpus", "--data.valid_fraction", 0.1, "--data.segment_frames", 4),
        *("--data.batch_size", 2, "--trainer.default_root_dir", OUT, "--trainer.max_epochs", -1),
        *("--trainer.max_steps", STEPS, "--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", 10),
        *("--showcase.clips", 0, "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
        *("--trainer.log_every_n_steps", 1, "--trainer.num_sanity_val_steps", 0, "--trainer.accelerator", "cpu"),
        *("--checkpoint.every_n_train_steps", EVERY, *more),
    ]
    return Trial(f"fit, {name}", words, ("--ckpt_path", "last"), trained, unreadable, steps=steps, every=EVERY)


def trained(run: Path) -> State:
    """The vocoder, the losses, and all that a checkpoint says of weights and optimiser."""
    from flowavenet.training.monitor.runs import read_run

    checkpoint = load_checkpoint(run)
    for key in ("callbacks", "hyper_parameters", "loops"):             # paths and times; where the run stands is global_step
        checkpoint.pop(key)
    curve = read_run(run).curve("train/nats_per_sample")
    logged = zip(curve.steps.tolist(), curve.values.tolist(), strict=True)
    losses = [point for point in logged if (point[0] + 1) % EVERY]     # the others are logged after the checkpoint
    return contents(run / "vocoder") | {"losses": str(losses)} | {key: digest(value) for key, value in checkpoint.items()}


def load_checkpoint(run: Path) -> dict[str, Any]:
    import torch

    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)


def digest(value: Any) -> str:
    """Of nested tensors and numbers."""
    import torch

    if isinstance(value, dict):
        value = [(key, digest(item)) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        value = [digest(item) for item in value]
    elif isinstance(value, torch.Tensor):
        value = value.shape, value.cpu().numpy().tobytes()
    return hashlib.sha256(repr(value).encode()).hexdigest()


def steps(run: Path) -> tuple[int, int]:
    """How many are in the log, and how many in the checkpoint."""
    from flowavenet.training.monitor.runs import read_run

    try:
        logged = int(read_run(run).curve("train/nats_per_sample").steps.max()) + 1
    except (ValueError, FileNotFoundError):                            # none yet
        logged = 0
    saved = load_checkpoint(run)["global_step"] if (run / "checkpoints" / "last.ckpt").exists() else 0
    return logged, saved


def unreadable(run: Path, _: State) -> list[str]:
    """What cannot be loaded of a run, a line each."""
    import yaml
    from safetensors.torch import load_file

    from flowavenet.checkpoint import load_checkpoint as load_vocoder

    loaders: dict[str, Callable[[Path], Any]] = {
        ".ckpt": lambda path: load_checkpoint(run), ".yaml": lambda path: yaml.unsafe_load(path.read_text()),
        ".safetensors": load_file, ".md": Path.read_text,
    }
    there, wrong = files(run), []
    for name, path in there.items():
        try:
            if path.suffix in loaders and not loaders[path.suffix](path):
                wrong.append(f"{name} is empty")
        except Exception as error:
            wrong.append(f"{name} does not load: {error!r}")
    if {f"vocoder/{name}" for name in ("config.yaml", "model.safetensors")} <= there.keys():
        load_vocoder(run / "vocoder")
    return wrong


# What must not be done again


def with_suffix(suffix: str) -> Callable[[set[str]], set[str]]:
    return lambda names: {name for name in names if name.endswith(suffix)}


def whole_shards(names: set[str]) -> set[str]:
    """Those that have their sidecar, and that."""
    return {name for name in names if all(Path(name).with_suffix(suffix).name in names for suffix in (".tar", ".json"))}


# Ray


class Actors(Course):
    """Kills one actor after the other; others take their place, and the verb comes to its end."""

    who = ("actor",)
    PER_RUN = 6

    def disturb(self, verb: Verb, kills: int) -> int | None:
        """Some tasks may lose three actors, and are given up, as documented: None, for the next run to do."""
        here = 0
        while here < self.PER_RUN and self.killed["actor"] < kills and not verb.ended(self.random.uniform(2, 10)):
            actors = [pid for pid, words in verb.others().items() if words.startswith("ray::MapWorker")]
            if actors:
                with suppress(ProcessLookupError):
                    os.kill(self.random.choice(actors), signal.SIGKILL)
                self.killed["actor"] += 1
                here += 1
        code = verb.finish()
        return None if code == 2 and "processes died over it" in self.said else code


# Inputs


def make_inputs(folder: Path, clips: int = 40) -> Path:
    """A corpus of so many clips of a second; their mels, short and long; a few clips, and copies; a long one; models."""
    import numpy as np
    import torch
    import yaml

    from flowavenet.audio import MelSettings, MelSpectrogram, load_audio, save_audio
    from flowavenet.checkpoint import save_checkpoint
    from flowavenet.models import build

    torch.manual_seed(0)
    speech = torch.cat([load_audio(path, 22050) for path in sorted(DATA.glob("*.flac"))], dim=1)
    spectrogram = MelSpectrogram(MelSettings())
    for home in ("corpus/anna", "corpus/bert", "mels", "longer", "few", "copies", "long"):
        (folder / home).mkdir(parents=True)
    for number in range(clips):
        start = number * 7919 % (speech.shape[1] - 24000)
        wave = speech[:, start : start + 22050 + number % 5 * 256]
        save_audio(folder / "corpus" / ("anna", "bert")[number % 2] / f"{number:03}.wav", wave, 22050)
        mel = spectrogram(wave)[0].numpy()
        np.save(folder / "mels" / f"{number:03}.npy", mel)
        np.save(folder / "longer" / f"{number:03}.npy", np.tile(mel, 12))
        if number % 8 == 0:
            save_audio(folder / "few" / f"{number:03}.wav", wave, 22050)
            save_audio(folder / "copies" / f"{number:03}.wav", wave + 0.01 * torch.randn_like(wave), 22050)
    save_audio(folder / "long" / "long.wav", speech.repeat(1, 3), 22050)
    model = build("flowavenet", MODELS["flowavenet"], 80, 256)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    save_checkpoint(folder / "tiny", model, MelSettings(), {"steps": 0})
    sys.path.append(str(DATA.parent))
    from test_interop import CONFIG, published

    torch.save({"state_dict": published(CONFIG)}, folder / "theirs.pt")
    small = {"sample_rate": 8000, "n_fft": 32, "win_length": 32, "hop_length": 8, "n_mels": 4, "f_max": 4000}
    (folder / "mel.yaml").write_text(yaml.safe_dump(small))
    return folder
