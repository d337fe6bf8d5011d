"""A server stands what hostile clients send; and the campaign that shows it would notice if it did not."""

import json
import random
import socket
from contextlib import suppress
from http.client import HTTPConnection

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")
pytest.importorskip("websockets")
from campaigns import attacks, hostile, load, servers  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with servers.serving(tmp_path_factory.mktemp("hostile") / "server", "--checkpoint", "lapflow-stream-22k") as server:
        yield server


def test_server_stays_as_it_is(server, tmp_path):
    rows = list(hostile.tried(server, 0.004, tmp_path))
    assert [row["kind"] for row in rows] == ["described", "HTTP", "WebSocket", "uploads"]
    assert all(row["requests"] > 1 for row in rows)
    assert not any(row["broken"] for row in rows), (tmp_path / "broken.txt").read_text()


def test_what_it_says_of_itself(server):
    """Its key, and of what form its errors are; nothing that an address cannot say."""
    document = json.loads(server.ask("/openapi.json")[1])
    assert "null" not in json.dumps(document["paths"])
    for path, methods in document["paths"].items():
        for about in methods.values():
            assert about["security"] == ([] if path in ("/healthz", "/readyz") else [{"key": []}])
            for status, answer in about["responses"].items():
                if status.startswith("4"):
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/Wrong")


def test_other_methods_are_told_which_there_is(server):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("TRACE", "/v1/vocode", headers=servers.HEADERS)
    answer = connection.getresponse()
    assert answer.status == 405 and answer.getheader("Allow") == "POST"
    connection.close()


HEAD = f"POST /v1/vocode HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {servers.KEY}\r\n".encode()
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\nno length\r\n"
NO_TEXT = b"\x81\x82\0\0\0\0\xff\xff"


@pytest.mark.parametrize("one, other", [
    (b"{", b"\0"), (b"}", b"]"), (b"(", b"9e9("), (b"'desc", b"'''desc"), (b"<f4", b"O"),
])
def test_head_of_npy_that_is_none_is_told(server, one, other):
    """A piece whose head cannot be read, which numpy does as it would read Python."""
    with attacks.session_of(server) as session:
        session.send("{}")
        session.send(attacks.npy(attacks.MEL[:, :9]).replace(one, other, 1))
        assert "is no whole .npy file" in json.loads(session.recv(60))["error"]


@pytest.mark.parametrize("head", [CHUNKED, CHUNKED.replace(b"vocode", b"sing"), CHUNKED.replace(b"key", b"other")])
def test_a_body_that_is_none_leaves_no_traceback(server, head):
    before = server.log.read_text()
    assert attacks.spoken(server, [head])[0] == 400
    assert server.log.read_text().removeprefix(before) == "WARNING:  Invalid HTTP request received.\n"


def test_the_rest_of_a_body_that_is_none_leaves_no_traceback(server):
    """When it comes after the answer, a refusal."""
    before = server.log.read_text()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(CHUNKED.replace(b"Bearer", b"Bear").removesuffix(b"no length\r\n"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        connection.sendall(b"no length\r\n")
        with suppress(ConnectionResetError):
            while connection.recv(65536):                              # it hangs up, after the rest of its answer
                pass
    assert "Traceback" not in server.log.read_text().removeprefix(before)


@pytest.mark.parametrize("frames", [NO_TEXT, NO_TEXT + b"\x88\x80\0\0\0\0"], ids=["alone", "and a farewell"])
def test_text_that_is_none_leaves_no_traceback(server, frames):
    before = server.log.read_text()
    with attacks.session_of(server) as session:
        session.socket.sendall(frames)
        with pytest.raises(ConnectionClosed):
            session.recv(60)
    said = server.log.read_text().removeprefix(before)
    assert "Invalid UTF-8 sequence" in said and "Traceback" not in said


@pytest.mark.parametrize("answer, broken", [
    ((200, b"Traceback in the noise", 1, 1), 0), ((None, b"", 1, 1), 0), ((503, b"{}", 1, 1), 0), ((422, b"{}", 20, 1), 0),
    ((500, b"{}", 1, 1), 1), ((0, b"", 60, 1), 1), ((400, b"no /tmp/x", 1, 1), 1), ((400, b"{}", 20, 20), 1),
    ((200, b"", 61, 0), 1), ((501, servers.KEY.encode(), 61, 0), 3),
])
def test_what_is_not_as_promised_is_noticed(answer, broken):
    tally = hostile.Tally()
    tally.add(*answer, "one")
    assert len(tally.broken) == broken


def test_faults_of_a_server_are_noticed(server):
    assert server.faults() == []
    (server.home / "left").write_text("x")
    log = server.log.read_text()
    server.log.write_text(log + "Traceback (most recent call last):\n")
    try:
        assert [line.split(":")[0].split(" in ")[0] for line in server.faults()] == ["files are left", "1 tracebacks"]
    finally:
        (server.home / "left").unlink()
        server.log.write_text(log)


def test_load_in_small(server, monkeypatch):
    """Each chunk and request is counted, and how it went."""
    monkeypatch.setenv("FLOWAVENET_API_KEY", servers.KEY)
    monkeypatch.setattr(load, "REST", 0.0)
    asked = load.served(server, 0.001, longest=1.1, checkpoint="lapflow-stream-22k", match="0")
    rows = [load.streamed("lapflow-stream-22k", 0.1), *asked]
    assert [row["trial"] for row in rows] == ["stream", "serve", "overload"]
    assert len({tuple(row) for row in rows}) == 1                      # one table
    assert all(row["requests"] > row["refused"] and row["p50 late"] > 0 for row in rows)


@pytest.mark.parametrize("late, broken", [
    (load.Part([9.0], [], 1.0, 400), 0), (load.Part([0.1], ["429", "503"], 1.0, 400), 0),
    (load.Part([0.1], ["500", "TimeoutError"], 1.0, 400), 2), (load.Part([0.1], [], 2.1, 400), 1),
    (load.Part([0.1], [], 1.0, 600), 1),
], ids=["slow", "refused", "failed", "dear", "large"])
def test_what_does_not_go_on_as_it_began_is_noticed(late, broken):
    assert load.row("serve", "small", 0.0, [load.Part([0.1], [], 1.0, 400), late], (1.0, 1.0))["broken"] == broken


@pytest.mark.parametrize("kind", sorted(attacks.uploads()))
def test_mistakes_follow_from_the_seed(kind):
    content = attacks.uploads()[kind]
    one, again, other = (attacks.changed(content, random.Random(seed)) for seed in (1, 1, 2))
    assert one == again != other and content not in (one, other)
