"""A checkpoint folder comes back as it was saved, or says in one line what is wrong with it."""

import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from flowavenet.checkpoint import CARD, CONFIG, SMALL, WEIGHTS, load_checkpoint, save_checkpoint


@pytest.fixture
def folder(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "model")
    return tmp_path / "model"


def edit(folder, **changes):
    content = yaml.safe_load((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(yaml.safe_dump(content))


def edit_weights(folder, change):
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)


def test_everything_comes_back(folder, tmp_path):
    model, mel, facts = load_checkpoint(folder)
    save_checkpoint(tmp_path / "again", model, mel, facts)
    again, mel_again, facts_again = load_checkpoint(tmp_path / "again")
    assert (mel_again, facts_again, again.config) == (mel, facts, model.config)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_half_precision_is_for_the_large_weights(folder, tmp_path):
    model, mel, _ = load_checkpoint(folder)
    model = type(model)(type(model.config)(blocks=2, flows=2, width=64, conditioning="pooled"), 80, 256)
    save_checkpoint(tmp_path / "half", model, mel, dtype=torch.bfloat16)
    for key, value in load_file(tmp_path / "half" / WEIGHTS).items():
        wanted = torch.bfloat16 if value.numel() > SMALL else model.state_dict()[key].dtype
        assert value.dtype == wanted, key
    load_checkpoint(tmp_path / "half")[0].double()


def test_card_names_what_it_is(folder):
    card = (folder / CARD).read_text()
    assert "22050 Hz" in card and "flowavenet" in card and "80 bands" in card


def test_nothing_is_left_beside_the_three_files(folder):
    model, mel, _ = load_checkpoint(folder)
    save_checkpoint(folder, model, mel)
    assert sorted(file.name for file in folder.iterdir()) == sorted([CARD, CONFIG, WEIGHTS])


BROKEN = {
    "no such folder": (lambda f: shutil.rmtree(f), "no such file"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "no such file"),
    "config is no YAML": (lambda f: (f / CONFIG).write_text("{[" * 9), "not YAML"),
    "config is binary": (lambda f: (f / CONFIG).write_bytes(b"\xff\xfe\x00"), "not YAML"),
    "config is a list": (lambda f: (f / CONFIG).write_text("- 1"), "format is None"),
    "future format": (lambda f: edit(f, format=99), "format is 99"),
    "unknown model": (lambda f: edit(f, model="os.system"), "'os.system' is not known"),
    "unknown setting": (lambda f: edit(f, config={"wings": 2}), "no setting 'wings'"),
    "other sizes": (lambda f: edit(f, config={"blocks": 4, "flows": 2, "width": 16, "blocks_per_split": 2,
                                              "conditioning": "pooled"}), "has shape"),
    "more layers": (lambda f: edit(f, config={"blocks": 5, "flows": 2, "width": 8}), "weights are missing"),
    "mel of no sense": (lambda f: edit(f, mel={"f_max": 99999.0}), "f_max"),
    "mel of no such field": (lambda f: edit(f, mel={"loudness": 1}), "loudness"),
    "facts are a list": (lambda f: edit(f, training=[1]), "training is list"),
    "cut weights": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:5000]), "not a whole safetensors"),
    "a pickle for weights": (lambda f: torch.save({"a": torch.ones(2)}, f / WEIGHTS), "not a whole safetensors"),
    "weights of another model": (lambda f: edit_weights(f, lambda s: s.update(extra=torch.ones(1))), "another model"),
    "NaN in weights": (lambda f: edit_weights(f, lambda s: next(v for v in s.values() if v.is_floating_point())
                                              .fill_(float("nan"))), "not finite"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_folder_is_one_line(folder, what):
    spoil, message = BROKEN[what]
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_checkpoint(folder)
    text = str(caught.value)
    assert message in text and str(folder) in text and "\n" not in text
