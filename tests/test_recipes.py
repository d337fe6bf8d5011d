"""Every shipped recipe is built as it stands and takes one step; only its crops and its folders are made small."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from conftest import CLIPS

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(path for path in FOLDER.rglob("*.yaml") if "trainer" in yaml.safe_load(path.read_text()))
NAMES = [str(path.relative_to(path.parents[2])) for path in RECIPES]


@pytest.fixture(scope="session")
def voices(tmp_path_factory):
    """A corpus of two speakers, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("voices")
    for number, clip in enumerate(CLIPS):
        (home := folder / ("anna", "ben")[number % 2]).mkdir(exist_ok=True)
        shutil.copy(clip, home)
    return folder


def teaching(model, folder):
    """What a recipe of distillation needs besides: a teacher of its kind, on its mels."""
    from flowavenet.audio import mel_settings
    from flowavenet.checkpoint import save_checkpoint
    from flowavenet.models import build

    head = "logistics" if model["name"] == "parallel_wavenet" else "gaussian"
    save_checkpoint(folder, build("wavenet", {"head": head, "layers": 2, "width": 8}, 80, 256), mel_settings(model["mel"]))
    return ["--model.teacher", str(folder), "--model.draws", "2"]


def pairing(voices, folder, mel):
    """What a recipe of fine-tuning needs: a corpus prepared with mels, here those of the recordings themselves."""
    import numpy as np

    from flowavenet.audio import MelSpectrogram, load_audio, mel_settings
    from flowavenet.data.corpus import prepare_corpus
    from flowavenet.data.pairs import Pairs

    settings = mel_settings(mel)
    folder.mkdir()
    for clip in voices.rglob("*.flac"):
        np.save(folder / f"{clip.stem}.npy", MelSpectrogram(settings)(load_audio(clip, settings.sample_rate)))
    prepare_corpus(voices, folder / "corpus", settings.sample_rate, pairs=Pairs(folder, settings))
    return folder / "corpus"


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_recipe_takes_a_step(recipe, voices, tmp_path, monkeypatch):
    from flowavenet.training.fit import distil, fit, pl

    # what resuming needs is the business of the tests of training, and of a published model 3 GB
    monkeypatch.setattr(pl.Trainer, "save_checkpoint", lambda *_, **__: None)
    model, data = (yaml.safe_load(recipe.read_text())[part] for part in ("model", "data"))
    if data.get("predicted_share"):
        voices = pairing(voices, tmp_path / "mels", model["mel"])
    own, train, loss = ["--model.compile", "false", "--model.init_crops", "2"], fit, "nats_per_sample"
    if "teacher" in model:
        own, train, loss = teaching(model, tmp_path / "teacher"), distil, "kl"
    trainer = train([
        *("--config", str(recipe), "--data.corpus", str(voices), "--trainer.default_root_dir", str(tmp_path)),
        *("--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false", "--trainer.max_time", "null"),
        *("--data.segment_frames", "4", "--data.batch_size", "2", "--data.workers", "0", *own),
    ])
    assert trainer.global_step == 1
    assert trainer.callback_metrics[f"train/{loss}"].isfinite()
    assert all(weight.isfinite().all() for weight in trainer.lightning_module.parameters())


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_recipe_explains_itself(recipe):
    """A sentence at the top, a README beside it that names it, and no field that merely repeats a default."""
    assert recipe.read_text().startswith("# ")
    assert recipe.name in (recipe.parent / "README.md").read_text()
    assert yaml.safe_load(recipe.read_text())["data"]["corpus"] == "???"


def test_every_variant_of_the_lab_can_be_built():
    from flowavenet.models import build

    variants = yaml.safe_load((FOLDER / "lab" / "variants.yaml").read_text())
    for name, changes in variants.items():
        assert all(key.split(".")[0] in ("model", "data", "ema") for key in changes), name
        with torch.device("meta"):                                     # without drawing any weights
            build(changes.get("model.name", "lapflow"), changes.get("model.config", {}), 80, 256)


def test_stand_ins_for_predicted_mels_are_whole_groups_of_frames(corpus, tmp_path, monkeypatch, capsys):
    import numpy as np

    standin = script("standin", monkeypatch, "finetune")
    monkeypatch.setattr(sys, "argv", ["standin.py", str(corpus), "-o", str(tmp_path), "--minutes", "0.02"])
    standin.main()
    for clip in CLIPS:
        mel, frames = np.load(tmp_path / f"{clip.stem}.npy"), -(-soundfile.info(clip).frames // 256)
        assert mel.shape == (80, -(-frames // standin.GROUP) * standin.GROUP) and np.isfinite(mel).all()
    assert "1 validation clips: off by" in capsys.readouterr().out


def script(name, monkeypatch, folder=None):
    """A recipe's program, as a module."""
    place = importlib.util.spec_from_file_location(name, FOLDER / (folder or name) / f"{name}.py")
    monkeypatch.setitem(sys.modules, name, module := importlib.util.module_from_spec(place))
    place.loader.exec_module(module)
    return module


def test_the_lab_trains_judges_and_goes_on(corpus, tmp_path, monkeypatch, capsys):
    lab = script("lab", monkeypatch)
    small = {"bands": 64, "steps": 1, "layers": 1, "width": 8}
    quick = {"data.segment_frames": 8, "data.batch_size": 1, "model.init_crops": 2}
    (tmp_path / "variants.yaml").write_text(yaml.safe_dump({
        "narrow": {"model.config": small} | quick, "narrower still": {"model.config": small | {"width": 4}} | quick,
    }))
    words = [str(corpus), "-o", str(tmp_path / "lab"), "--minutes", "0.01", "--clips", "1"]
    words += ["--variants", str(tmp_path / "variants.yaml")]
    monkeypatch.setattr(sys, "argv", ["lab.py", *words, "--only", "narrow"])
    lab.main()
    first = json.loads((tmp_path / "lab" / "results.json").read_text())
    assert list(first) == ["narrow"] and first["narrow"]["steps"] > 0
    monkeypatch.setattr(sys, "argv", ["lab.py", *words])
    lab.main()
    both = json.loads((tmp_path / "lab" / "results.json").read_text())
    assert both["narrow"] == first["narrow"] and both["narrower still"]["weights_m"] < both["narrow"]["weights_m"]
    assert "| narrower still | " in capsys.readouterr().out


def test_the_comparison_trains_judges_measures_and_goes_on(corpus, tmp_path, monkeypatch, capsys):
    compare = script("comparison", monkeypatch)
    for name, seconds in {"LIKELIHOOD_SECONDS": 0.1, "JUDGED_SECONDS": 1.0, "SPEED_SECONDS": 0.05}.items():
        monkeypatch.setattr(compare, name, seconds)
    net = {"layers": 2, "width": 4, "gate_width": 4, "skip_width": 4, "front_size": 2}
    quick = {"data.segment_frames": 4, "data.batch_size": 1}
    small = {
        "lapflow": {"small": {"model.name": "lapflow", "model.config": {"bands": 64, "steps": 1, "layers": 1, "width": 8}}},
        "wavenet gaussian": {"small": {"model.config": net | {"stacks": 1}}},
        "gaussian_iaf": {
            "teacher": "wavenet gaussian", "small": {"model.name": "gaussian_iaf", "model.config": net | {"stacks": [1]}},
        },
    }
    for name, system in small.items():
        system["small"] |= quick
        system["published"] = {"name": name.split()[0], "config": system["small"]["model.config"]}
    (tmp_path / "systems.yaml").write_text(yaml.safe_dump(small))
    words = ["compare.py", str(corpus), "-o", str(tmp_path / "out"), "--minutes", "0.01", "--clips", "1"]
    words += ["--systems", str(tmp_path / "systems.yaml")]
    for more in (["--only", "lapflow"], [], ["--speed"]):
        monkeypatch.setattr(sys, "argv", [*words, *more])
        compare.main()
    results = {name: json.loads((tmp_path / "out" / name.replace(" ", "-") / "result.json").read_text()) for name in small}
    assert all(row["steps"] > 0 and row["sample"]["stoi"] < 1 for row in results.values())
    assert "start" in results["gaussian_iaf"] and "start" not in results["lapflow"]
    printed = capsys.readouterr().out
    assert "| wavenet gaussian, naive | | |" in printed and printed.count("| gaussian_iaf | ") == 3


def test_every_system_of_the_comparison_can_be_built():
    """At both its sizes; and every model there is takes part."""
    from flowavenet.models import MODELS, build

    common = yaml.safe_load((FOLDER / "comparison" / "common.yaml").read_text())["model"]
    systems, taking_part = yaml.safe_load((FOLDER / "comparison" / "models.yaml").read_text()), set()
    for name, system in systems.items():
        small, published = system["small"], system["published"]
        taking_part.add(published.get("name", name))
        with torch.device("meta"):                                     # without drawing any weights
            build(small.get("model.name", common["name"]), small.get("model.config", common["config"]), 80, 256)
            build(published.get("name", name), published.get("config", {}), 80, 256)
        assert system.get("teacher", name) in systems
    assert taking_part == set(MODELS)
