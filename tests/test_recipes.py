"""Every shipped recipe is built as it stands and takes one step; only its crops and its folders are made small."""

import shutil
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_recipe_takes_a_step(recipe, voices, tmp_path):
    from flowavenet.training.fit import fit

    trainer = fit([
        *("--config", str(recipe), "--data.corpus", str(voices), "--trainer.default_root_dir", str(tmp_path)),
        *("--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false", "--trainer.max_time", "null"),
        *("--model.compile", "false"),
        *("--data.segment_frames", "4", "--data.batch_size", "1", "--data.workers", "0", "--model.init_crops", "2"),
    ])
    assert trainer.global_step == 1
    assert trainer.callback_metrics["train/nats_per_sample"].isfinite()
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
        build(changes.get("model.name", "lapflow"), changes.get("model.config", {}), 80, 256)


def test_the_lab_trains_judges_and_goes_on(corpus, tmp_path, monkeypatch, capsys):
    import importlib.util
    import json
    import sys

    place = importlib.util.spec_from_file_location("lab", FOLDER / "lab" / "lab.py")
    monkeypatch.setitem(sys.modules, "lab", lab := importlib.util.module_from_spec(place))
    place.loader.exec_module(lab)
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
