"""Checkpoints go to the Hugging Face Hub and come back; it is played by a small server on this machine."""

import base64
import hashlib
import json
import re
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
import torch
import yaml
from conftest import CLIPS

from flowavenet import Vocoder
from flowavenet.checkpoint import CARD, CONFIG, WEIGHTS, load_checkpoint, model_card
from flowavenet.hub import find_checkpoint, shipped_checkpoints

constants = pytest.importorskip("huggingface_hub.constants", reason="the extra [hub] is not installed")
TOKEN, ID = "hf_mine", "me/tiny"
FILES = sorted([CARD, CONFIG, WEIGHTS])


def digest(content):
    return hashlib.sha1(content).hexdigest()


class Hub(ThreadingHTTPServer):
    """Repositories in memory: their commits, oldest first, each a dict of files; and what was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.private: dict[str, bool] = {}
        self.cut = ""                                                  # a file whose downloads break off, if any

    def add(self, repository, folder, *more):
        files = {file.name: file.read_bytes() for file in folder.iterdir()} | dict.fromkeys(more, b"import os")
        self.repositories.setdefault(repository, []).append(files)

    def find(self, repository, revision):
        """The commit's name and files; None if there is no such thing."""
        names = [f"{number:040x}" for number in range(len(self.repositories[repository]))]
        name = names[-1] if revision == "main" and names else revision
        return (name, self.repositories[repository][names.index(name)]) if name in names else None


class Answers(BaseHTTPRequestHandler):
    """The endpoints that are used for models: repository, commit, tree, files, and large files on their own way."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status=200, body=b"", length=None, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content_Length": length or len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self):
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.asked.append(path)
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        writes = path.startswith(("/api/repos", "/lfs")) or "/preupload/" in path or "/commit/" in path
        if writes and not path.startswith("/lfs") and self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            wish = json.loads(data)
            name = f"{wish['organization']}/{wish['name']}"
            status = 409 if name in hub.repositories else 200
            hub.repositories.setdefault(name, [])
            hub.private.setdefault(name, wish.get("visibility") == "private")
            return self.answer(status, {"url": f"{hub.url}/{name}"})
        if path == "/api/validate-yaml":
            head = yaml.safe_load(json.loads(data)["content"].split("---")[1])
            errors = [] if head.get("license", "mit") in ("mit", "cc0-1.0") else [{"message": '"license" is not known'}]
            return self.answer(400 if errors else 200, {"errors": errors, "warnings": []})
        if path.startswith("/lfs/"):
            hub.large[path.split("/")[-1]] = data
            return self.answer()
        if path.endswith("/objects/batch"):
            objects = [one | {"actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}}
                       for one in json.loads(data)["objects"]]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        name, verb, rest = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+)(?:/(\w+)/(.*))?", path).groups()
        if name not in hub.repositories:
            return self.answer(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        if verb == "preupload":
            files = [one["path"] for one in json.loads(data)["files"]]
            mode = {True: "lfs", False: "regular"}
            return self.answer(200, {"files": [
                {"path": file, "uploadMode": mode[file == WEIGHTS], "shouldIgnore": False} for file in files]})
        if verb == "commit":
            files = {}
            for line in map(json.loads, data.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    files[line["value"]["path"]] = hub.large[line["value"]["oid"]]
            hub.repositories[name].append(files)
            return self.answer(200, {"commitUrl": f"{hub.url}/{name}", "commitOid": hub.find(name, "main")[0]})
        revision, _, file = (rest or "main").partition("/")
        if (found := hub.find(name, revision)) is None:
            return self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        commit, files = found
        if verb == "tree":
            return self.answer(200, [
                {"type": "file", "path": one, "size": len(content), "oid": digest(content)}
                for one, content in files.items()])
        if verb == "resolve":
            content, length = files[file], len(files[file])
            if file == hub.cut and self.command == "GET":
                content = content[: length // 2]
                hub.repositories.clear()                               # nor will it do to ask again
                self.close_connection = True
            return self.answer(200, content, length, ETag=f'"{digest(files[file])}"', X_Repo_Commit=commit)
        return self.answer(200, {"id": name, "sha": commit, "siblings": [{"rfilename": one} for one in files]})

    do_GET = do_HEAD = do_POST = do_PUT = handle_request


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
    import numpy as np

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


def test_a_revision_is_what_it_was(hub, tiny, tmp_path):
    changed = Vocoder.from_pretrained(tiny)
    changed.facts = {"steps": 1}
    changed.save(tmp_path / "changed")
    hub.add(ID, tiny)
    hub.add(ID, tmp_path / "changed")
    assert Vocoder.from_pretrained(f"{ID}@{0:040x}").facts == {"steps": 0}
    assert Vocoder.from_pretrained(ID).facts == Vocoder.from_pretrained(f"{ID}@main").facts == {"steps": 1}


def test_only_a_checkpoints_files_are_downloaded(hub, tiny, tmp_path):
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


@pytest.mark.parametrize("prepare, words, message", [
    (nothing, [ID], "log in"),
    (not_installed, [ID], "pip install 'flowavenet[hub]'"),
    (nothing, ["tiny"], "give user/name"),
    (nothing, [f"{ID}@v1"], "give user/name"),
])
def test_what_cannot_be_pushed_is_one_line(hub, tiny, monkeypatch, flowavenet, prepare, words, message):
    prepare(hub, tiny, monkeypatch)
    code, said, complaint = flowavenet("push", tiny, *words)
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


@pytest.mark.parametrize("name, folder", shipped_checkpoints().items())
def test_shipped_card_is_up_to_date(name, folder):
    assert (folder / CARD).read_text() == model_card(name, *load_checkpoint(folder))
