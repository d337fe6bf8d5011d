"""The Hugging Face Hub as a small server on this machine: as much of its endpoints as models come and go by."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_mine"
"""Without which nothing can be written."""


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
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            return self.validate(json.loads(data))
        if path.startswith("/lfs/"):                                   # an address that was given by "batch"
            self.server.large[path.removeprefix("/lfs/")] = data
            return self.answer()
        if self.command == "POST" and self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            return self.create(json.loads(data))
        if path.endswith("/objects/batch"):
            return self.batch(json.loads(data))
        name, verb, rest = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+)(?:/(\w+)/(.*))?", path).groups()
        if name not in self.server.repositories:
            return self.answer(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        if self.command == "POST":
            return self.preupload(json.loads(data)) if verb == "preupload" else self.commit(name, data)
        revision, _, file = (rest or "main").partition("/")
        if (found := self.server.find(name, revision)) is None:
            return self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        if verb == "tree":
            return self.answer(200, [
                {"type": "file", "path": one, "size": len(content), "oid": digest(content)}
                for one, content in found[1].items()])
        if verb == "resolve":
            return self.send_file(file, *found)
        return self.answer(200, {"id": name, "sha": found[0], "siblings": [{"rfilename": one} for one in found[1]]})

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def send_file(self, file, commit, files):
        content, length = files[file], len(files[file])
        if file == self.server.cut and self.command == "GET":
            content = content[: length // 2]
            self.server.repositories.clear()                           # nor will it do to ask again
            self.close_connection = True
        self.answer(200, content, length, ETag=f'"{digest(files[file])}"', X_Repo_Commit=commit)

    def create(self, wish):
        name = f"{wish['organization']}/{wish['name']}"
        status = 409 if name in self.server.repositories else 200
        self.server.repositories.setdefault(name, [])
        self.server.private.setdefault(name, wish.get("private") is True or wish.get("visibility") == "private")
        self.answer(status, {"url": f"{self.server.url}/{name}"})

    def validate(self, card):
        head = yaml.safe_load(card["content"].split("---")[1])
        known = head.get("license", "mit") in ("mit", "cc0-1.0")
        self.answer(200 if known else 400, {"errors": [] if known else [{"message": "license?"}], "warnings": []})

    def preupload(self, wish):
        files = [one["path"] for one in wish["files"]]
        mode = {True: "lfs", False: "regular"}
        self.answer(200, {"files": [
            {"path": file, "uploadMode": mode[file.endswith(".safetensors")], "shouldIgnore": False} for file in files]})

    def batch(self, wish):
        self.answer(200, {"transfer": "basic", "objects": [
            one | {"actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}}
            for one in wish["objects"]]})

    def commit(self, name, data):
        lines = [(line["key"], line["value"]) for line in map(json.loads, data.splitlines())]
        small = {value["path"]: base64.b64decode(value["content"]) for key, value in lines if key == "file"}
        large = {value["path"]: self.server.large[value["oid"]] for key, value in lines if key == "lfsFile"}
        self.server.repositories[name].append(small | large)
        self.answer(200, {"commitUrl": f"{self.server.url}/{name}", "commitOid": self.server.find(name, "main")[0]})
