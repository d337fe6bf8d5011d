"""Checkpoints go to the Hugging Face Hub and come back; it is played by a small server on this machine."""

import shutil
import sys
import threading

import numpy as np
import pytest
import torch
import yaml
from conftest import CLIPS
from hub_server import TOKEN, Hub

from flowavenet import Vocoder
from flowavenet.audio import MelSettings
from flowavenet.checkpoint import CARD, CONFIG, WEIGHTS, load_checkpoint, model_card
from flowavenet.hub import find_checkpoint, shipped_checkpoints
from flowavenet.models import build

constants = pytest.importorskip("huggingface_hub.constants", reason="the extra [hub] is not installed")
from huggingface_hub import snapshot_download  # noqa: E402

ID = "me/tiny"
FILES = sorted([CARD, CONFIG, WEIGHTS])


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of one's own, an empty cache, and a place to work in; the library reads its settings when it is imported."""
    server = Hub()
    for name, value in {
        "ENDPOINT": server.url, "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN_PATH": str(tmp_path / "no token"), "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,                                    # another way for large files, not of HTTP
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def heard(vocoder):
    return vocoder(torch.zeros(1, 80, 8), seed=0, match=0)


def test_pushed_and_loaded_it_has_the_same_samples(hub, tiny):
    vocoder = Vocoder.from_pretrained(tiny)
    assert vocoder.push_to_hub(ID, private=True, token=TOKEN) == f"{hub.url}/{ID}" and hub.private == {ID: True}
    again = Vocoder.from_pretrained(ID)
    assert torch.equal(heard(again), heard(vocoder))
    assert (again.settings, again.facts) == (vocoder.settings, vocoder.facts)
    files = find_checkpoint(ID)
    assert sorted(file.name for file in files.iterdir()) == FILES
    assert (files / CARD).read_text() == model_card(ID, *load_checkpoint(tiny))
    assert f'from_pretrained("{ID}")' in (files / CARD).read_text()


def test_verbs_take_an_id_and_push_a_folder(hub, tiny, flowavenet, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, said, complaint = flowavenet("push", tiny, ID)
    assert code == 0 and f"{hub.url}/{ID}" in said, complaint
    assert hub.repositories[ID][0][WEIGHTS] == (tiny / WEIGHTS).read_bytes() and hub.private == {ID: False}
    np.save("mel.npy", np.zeros((80, 8), np.float32))
    code, _, complaint = flowavenet("vocode", "mel.npy", "-o", "out", "--checkpoint", ID, "--match", 0)
    assert code == 0, complaint


def test_loaded_once_it_needs_no_network(hub, tiny, monkeypatch):
    hub.add(ID, tiny)
    first = heard(Vocoder.from_pretrained(ID))
    hub.asked.clear()
    assert torch.equal(heard(Vocoder.from_pretrained(ID)), first) and not hub.asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(heard(Vocoder.from_pretrained(ID)), first) and not hub.asked


def test_a_revision_is_what_it_was_until_it_is_renewed(hub, tiny):
    def loaded(source):
        return yaml.safe_load((find_checkpoint(source) / CONFIG).read_text())["training"]["steps"]

    hub.add(ID, tiny)
    assert loaded(ID) == 0
    hub.add(ID, tiny)
    old = hub.repositories[ID][1]
    hub.repositories[ID][1] = old | {CONFIG: old[CONFIG].replace(b"steps: 0", b"steps: 1")}
    assert loaded(ID) == 0 and loaded(f"{ID}@{1:040x}") == 1
    snapshot_download(ID)                                              # what `hf download` does
    assert loaded(ID) == loaded(f"{ID}@main") == 1 and loaded(f"{ID}@{0:040x}") == 0


def test_only_a_checkpoints_files_are_downloaded(hub, tiny):
    hub.add(ID, tiny, "modeling.py", "model.bin")
    assert sorted(file.name for file in find_checkpoint(ID).iterdir()) == FILES
    assert not [path for path in hub.asked if path.endswith((".py", ".bin"))]


def test_what_is_here_wins(hub, tiny, tmp_path):
    hub.add(ID, tiny)
    shutil.copytree(tiny, tmp_path / ID)
    assert str(find_checkpoint(ID)) == ID
    assert [str(find_checkpoint(name)) for name in shipped_checkpoints()] == list(map(str, shipped_checkpoints().values()))
    with pytest.raises(FileNotFoundError, match="no such checkpoint folder"):
        find_checkpoint(tmp_path / "other/name")                       # a Path is no id
    assert not hub.asked


def test_a_download_that_breaks_off_leaves_nothing_half(hub, tiny, monkeypatch):
    hub.add(ID, tiny)
    hub.cut, kept = WEIGHTS, dict(hub.repositories)
    for _ in range(2):                                                 # the second time without a network
        with pytest.raises(OSError, match=f"^{ID}: .*Hub") as caught:
            find_checkpoint(ID)
        assert "\n" not in str(caught.value)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.cut, hub.repositories = "", kept
    assert torch.equal(heard(Vocoder.from_pretrained(ID)), heard(Vocoder.from_pretrained(tiny)))


def no_weights(hub, tiny, monkeypatch):
    hub.add(ID, tiny)
    del hub.repositories[ID][0][WEIGHTS]


def nothing_listens(hub, tiny, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def offline(hub, tiny, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def not_installed(hub, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)


def there(hub, tiny, monkeypatch):
    hub.add(ID, tiny)


def nothing(hub, tiny, monkeypatch):
    pass


@pytest.mark.parametrize("prepare, source, message", [
    (nothing, ID, "no such repository, or a private one"),
    (there, f"{ID}@v9", "no such revision"),
    (no_weights, ID, f"not a flowavenet checkpoint: the repository has no {WEIGHTS}"),
    (nothing_listens, ID, "is there a network?"),
    (offline, ID, "HF_HUB_OFFLINE is set"),
    (not_installed, ID, "pip install 'flowavenet[hub]'"),
    (nothing, "me/two--dashes", "give user/name"),
    (nothing, "me/tiny/more", "no such checkpoint folder"),
    (nothing, "../tiny", "no such checkpoint folder"),
])
def test_what_cannot_be_loaded_is_one_line(hub, tiny, monkeypatch, flowavenet, prepare, source, message):
    prepare(hub, tiny, monkeypatch)
    code, said, complaint = flowavenet("score", CLIPS[0], "--checkpoint", source)
    assert code == 2 and not said and complaint.startswith(f"error: {source}: ") and message in complaint
    assert len(complaint.strip().splitlines()) == 1


@pytest.mark.parametrize("prepare, repository, message", [
    (nothing, ID, "log in"),
    (not_installed, ID, "pip install 'flowavenet[hub]'"),
    (nothing, "tiny", "give user/name"),
    (nothing, f"{ID}@v1", "give user/name"),
])
def test_what_cannot_be_pushed_is_one_line(hub, tiny, monkeypatch, flowavenet, prepare, repository, message):
    prepare(hub, tiny, monkeypatch)
    code, said, complaint = flowavenet("push", tiny, repository)
    assert code == 2 and not said and message in complaint and len(complaint.strip().splitlines()) == 1
    assert not hub.repositories


def test_a_broken_folder_is_not_pushed(hub, tiny, tmp_path, flowavenet):
    shutil.copytree(tiny, tmp_path / "broken")
    (tmp_path / "broken" / WEIGHTS).write_bytes(b"half")
    code, _, complaint = flowavenet("push", tmp_path / "broken", ID)
    assert code == 2 and "not a whole safetensors file" in complaint and not hub.asked


def test_a_choice_is_not_kept_in_the_cache(hub, tiny, flowavenet):
    hub.add(ID, tiny)
    code, _, complaint = flowavenet("tune", CLIPS[0], "--checkpoint", ID, "--write")
    assert code == 2 and "--local-dir FOLDER" in complaint and not hub.asked


FACTS = {
    "nothing is known": ({}, {}),
    "a licence that hubs know": ({"licence": "CC0 1.0"}, {"license": "cc0-1.0"}),
    "one that they do not": ({"licence": "ask my lawyer"}, {}),
    "languages and data": ({"language": ["en", "no"], "datasets": ["me/voices"]},
                           {"language": ["en", "no"], "datasets": ["me/voices"]}),
}


@pytest.mark.parametrize("what", FACTS)
def test_card_says_what_the_facts_say(what, tiny):
    facts, said = FACTS[what]
    model, mel, _ = load_checkpoint(tiny)
    _, head, page = model_card(ID, model, mel, facts).split("---\n", 2)
    own = {"library_name", "pipeline_tag", "tags"}
    assert {key: value for key, value in yaml.safe_load(head).items() if key not in own} == said
    assert all(f"| {key} | " in page for key in facts)


def test_card_of_several_voices_asks_for_one():
    model = build("lapflow", {"width": 8, "cond_width": 8, "speakers": 2, "speaker_width": 4}, 80, 256)
    page = model_card(ID, model, MelSettings(), {})
    assert "--speaker NAME" in page and 'vocoder(mel, speaker="NAME")' in page


@pytest.mark.parametrize("name, folder", shipped_checkpoints().items())
def test_shipped_card_is_up_to_date(name, folder):
    assert (folder / CARD).read_text() == model_card(name, *load_checkpoint(folder))
