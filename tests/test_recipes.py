"""Every shipped recipe is built as it stands and takes one step; only its crops and its folders are made small."""

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(path for path in FOLDER.rglob("*.yaml") if "trainer" in yaml.safe_load(path.read_text()))
NAMES = [str(path.relative_to(path.parents[2])) for path in RECIPES]


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_recipe_takes_a_step(recipe, corpus, tmp_path):
    from flowavenet.training.fit import fit

    trainer = fit([
        *("--config", str(recipe), "--data.corpus", str(corpus), "--trainer.default_root_dir", str(tmp_path)),
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
