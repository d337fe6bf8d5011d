"""A server stands what hostile clients send; and the campaign that shows it would notice if it did not."""

import json
import random
from http.client import HTTPConnection

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")
pytest.importorskip("websockets")
from campaigns import attacks, hostile, servers  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    with servers.serving(folder / "small", "--checkpoint", str(hostile.small(folder))) as server:
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
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\nno length\r\n"


@pytest.mark.parametrize("parts", [
    [attacks.UPGRADE, b"\x81\x82\0\0\0\0\xff\xff"], [HEAD + CHUNKED], [HEAD.replace(b"vocode", b"sing") + CHUNKED],
    [HEAD.replace(b"key", b"other") + CHUNKED],
], ids=["text that is none", "no chunk", "no chunk, elsewhere", "no chunk, no key"])
def test_a_mistake_is_one_line_in_the_log(server, parts):
    before = server.log.read_text()
    attacks.spoken(server, parts)
    assert server.log.read_text().removeprefix(before).count("\n") == 1


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


@pytest.mark.parametrize("kind", sorted(attacks.uploads()))
def test_mistakes_follow_from_the_seed(kind):
    content = attacks.uploads()[kind]
    one, again, other = (attacks.changed(content, random.Random(seed)) for seed in (1, 1, 2))
    assert one == again != other and content not in (one, other)
