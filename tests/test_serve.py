"""The HTTP service: its audio is that of the library, whoever else asks, and nothing that clients do changes that."""

import gc
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import soundfile
from conftest import CLIPS

from flowavenet import Vocoder
from flowavenet.audio import load_mel

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
from starlette.testclient import TestClient  # noqa: E402
from starlette.websockets import WebSocketDisconnect  # noqa: E402

from flowavenet.serve.app import application  # noqa: E402
from flowavenet.serve.limits import Admission, Limits, Refused  # noqa: E402
from flowavenet.serve.turns import Turns  # noqa: E402
from flowavenet.serve.worker import Batch, Order, give_back  # noqa: E402

DATA = Path(__file__).parent / "data"
MEL = load_mel(DATA / "tacotron2.npy", 80)[0].numpy()
STEP = 1 / 32768
OWN = "mel_convention=hifigan"


def npy(mel):
    file = BytesIO()
    np.save(file, mel)
    return file.getvalue()


SHORT = npy(MEL[:, :90])


def samples(wav):
    return soundfile.read(BytesIO(wav), dtype="int16")[0].astype(int)


def assert_same(one, other):
    """Equal up to a step of 16 bits: what is rendered in other pieces is rounded otherwise."""
    assert one.shape == other.shape and np.abs(one - other).max() <= 1


@pytest.fixture(scope="module")
def vocoders():
    return {name: Vocoder.from_pretrained(f"lapflow-{name}-22k") for name in ("speech", "stream")}


@pytest.fixture(scope="module")
def client(vocoders):
    with TestClient(application(vocoders, Limits(rate=10_000))) as client:
        yield client


@contextmanager
def busy(client):
    """The thread of work has something else to do meanwhile."""
    done = Event()
    client.app.app.state.service.worker.do(done.wait, 30)
    try:
        yield
    finally:
        done.set()


def wait_until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "still not"
        time.sleep(0.01)


def metric(client, name):
    text = client.get("/metrics").text
    return sum(float(value) for value in re.findall(rf"^flowavenet_{name}(?:{{.*}})? (\S+)$", text, re.M))


@pytest.mark.parametrize("file", [DATA / "tacotron2.npy", CLIPS[0]], ids=lambda file: file.name)
def test_audio_is_that_of_the_command_line(client, flowavenet, tmp_path, file):
    words = ["--checkpoint", "lapflow-stream-22k", "--seed", 3, "--temperature", 0.6, "--denoise", 0.1, "--match", 2]
    assert flowavenet("vocode", file, "-o", tmp_path, *words)[0] == 0
    url = "/v1/vocode?checkpoint=stream&seed=3&temperature=0.6&denoise=0.1&match=2"
    answer = client.post(url, content=file.read_bytes())
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/wav"
    assert_same(samples(answer.content), samples((tmp_path / f"{file.stem}.wav").read_bytes()))


@pytest.mark.parametrize("kind", ["wav", "pcm"])
@pytest.mark.parametrize("checkpoint, chunk_frames", [("speech", 128), ("stream", 16), ("stream", 50)])
def test_stream_is_the_whole(client, kind, checkpoint, chunk_frames):
    mel = npy(MEL[:, :200])
    whole = samples(client.post(f"/v1/vocode?checkpoint={checkpoint}", content=mel).content)
    url = f"/v1/vocode?checkpoint={checkpoint}&stream={kind}&chunk_frames={chunk_frames}"
    streamed = client.post(url, content=mel).content
    assert_same(whole, samples(streamed) if kind == "wav" else np.frombuffer(streamed, "<i2").astype(int))
    assert whole.size == 200 * 256


def speak(session, messages, **settings):
    """An utterance: its samples, and what is said at its end."""
    session.send_text(json.dumps(settings))
    for message in messages:
        session.send_bytes(message)
    session.send_text("end")
    audio = b""
    while "bytes" in (message := session.receive()):
        audio += message["bytes"]
    return np.frombuffer(audio, "<i2").astype(int), message.get("text") and json.loads(message["text"])


@pytest.mark.parametrize("cut", [1, 80, 33, 90])
@pytest.mark.parametrize("form", ["raw", "npy", "npy frames first"])
def test_pieces_are_the_whole(client, cut, form):
    """However they are cut and written; on a connection that goes on with another utterance."""
    mel = MEL[:, :90]
    pieces = [mel[:, start : start + cut] for start in range(0, 90, cut)]
    write = {"raw": lambda p: p.T.astype("<f4").tobytes(), "npy": npy, "npy frames first": lambda p: npy(p.T)}[form]
    whole = samples(client.post(f"/v1/vocode?checkpoint=stream&{OWN}&seed=5", content=npy(mel)).content)
    with client.websocket_connect("/v1/stream") as session:
        for _ in range(2):
            settings = {"checkpoint": "stream", "seed": 5, "mel_convention": "hifigan", "chunk_frames": 16}
            audio, end = speak(session, map(write, pieces), **settings)
            assert_same(audio, whole)
            assert end == {"end": True, "frames": 90, "sample_rate": 22050, "note": end["note"]}


def test_audio_begins_before_the_pieces_end(client):
    with client.websocket_connect("/v1/stream") as session:
        session.send_json({"checkpoint": "stream", "mel_convention": "hifigan", "match": 0, "chunk_frames": 8})
        session.send_bytes(MEL[:, :60].T.astype("<f4").tobytes())
        assert len(session.receive_bytes()) == 8 * 256 * 2
    wait_until(lambda: client.get("/readyz").json() == {"under_way": 0})


def test_mels_of_other_conventions_are_taken_in_and_told(client, vocoders):
    db = npy(20 * MEL[:, :200] / np.log(10))
    answer = client.post("/v1/vocode?mel_convention=coqui_db", content=db)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-note"].startswith("taken as coqui_db, as was said; converted to")
    assert client.post("/v1/vocode?mel_convention=coqui_db&level=6", content=db).content != answer.content


def test_requests_that_wait_are_rendered_together_and_get_what_they_get_alone(client):
    """Equal lengths share a batch, of 4 at most; others, and other settings, do not."""
    mels = [npy(np.roll(MEL, i, axis=1)[:, : 60 + i // 6 * 10]) for i in range(7)]
    urls = [f"/v1/vocode?seed={i}&match={2 + i // 5}&{OWN}" for i in range(7)]
    ask = lambda i: client.post(urls[i], content=mels[i]).content  # noqa: E731
    alone = [samples(ask(i)) for i in range(7)]
    before = metric(client, "batch_count"), metric(client, "batch_sum")
    with ThreadPoolExecutor(7) as threads:
        with busy(client):
            asked = [threads.submit(ask, i) for i in range(7)]
            wait_until(lambda: client.get("/readyz").json() == {"under_way": 7})
            time.sleep(0.3)                                            # until the last has been read, too
        together = [samples(one.result()) for one in asked]
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)
    after = metric(client, "batch_count"), metric(client, "batch_sum")
    assert (after[0] - before[0], after[1] - before[1]) == (4, 7)      # 4 + 1, 1, 1


def test_a_short_request_does_not_wait_for_a_long_one(client):
    long, ended = npy(np.tile(MEL, 4)), []

    def ask(url, content):
        answer = client.post(url, content=content)
        ended.append((url, answer.status_code))

    with ThreadPoolExecutor(2) as threads:
        with busy(client):
            slow = threads.submit(ask, f"/v1/vocode?stream=pcm&chunk_frames=128&{OWN}&match=1", long)
            wait_until(lambda: client.get("/readyz").json() == {"under_way": 1})
            time.sleep(0.3)
            quick = threads.submit(ask, f"/v1/vocode?{OWN}", SHORT)
            time.sleep(0.3)
        slow.result(), quick.result()
    assert [status for _, status in ended] == [200, 200] and "stream" in ended[1][0]


def test_audio_does_not_wait_for_a_second_turn(client):
    """What is made whole in one step is sent, whatever comes next."""
    next_one = Event()
    with ThreadPoolExecutor(1) as threads:
        with busy(client):
            asked = threads.submit(client.post, f"/v1/vocode?{OWN}", content=SHORT)
            wait_until(lambda: metric(client, "queue") == 1)
            client.app.app.state.service.worker.do(next_one.wait, 30, due=time.monotonic())
        try:
            assert asked.result(10).status_code == 200
        finally:
            next_one.set()


def test_work_is_done_in_the_order_in_which_it_is_due():
    turns, done, begin = Turns("test"), [], Event()
    turns.do(begin.wait, 0.0)
    for due in (3.0, 1.0, 2.0, 1.0, float("inf")):
        asked = turns.do(lambda due=due: done.append((due, len(done))), due)
    wait_until(lambda: turns.late() == 4)
    begin.set()
    asked.result(10)
    assert done == [(1.0, 0), (1.0, 1), (2.0, 2), (3.0, 3), (float("inf"), 4)]
    failed = turns.do(lambda: 1 / 0, 0.0)
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    turns.close()
    assert turns.do(begin.wait, 0.0).cancelled()


def test_the_thread_of_work_rests_once_between_steps(monkeypatch):
    monkeypatch.setattr("flowavenet.serve.turns.REST", 0.02)
    rests = []
    turns = Turns("test", lambda: rests.append(len(rests)))
    for number in range(1, 4):
        wait_until(lambda number=number: len(rests) == number)
        time.sleep(0.1)
        assert len(rests) == number and turns.do(lambda: "done", 0.0).result(10) == "done"
    turns.close()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept by glibc")
def test_free_memory_is_given_back():
    blocks = [b"x" * size for size in [50_000] * 4000]
    blocks = blocks[::100]                                             # those keep the heap from ending before them
    kept = memory()
    give_back()
    assert memory() < kept - 100


@pytest.mark.parametrize("how", ["", "&stream=pcm&chunk_frames=64"])
def test_nothing_is_kept_of_what_was_made(client, how):
    """Not even until Python looks for what holds itself, which may take a hundred requests."""
    gc.collect()
    gc.disable()
    try:
        assert client.post(f"/v1/vocode?{OWN}{how}", content=SHORT).status_code == 200
        wait_until(lambda: not [one for one in gc.get_objects() if type(one) in (Batch, Order)])
    finally:
        gc.enable()


def test_a_chunk_is_due_when_those_before_have_been_heard(client, monkeypatch):
    worker, due, do = client.app.app.state.service.worker, [], client.app.app.state.service.worker.do

    def noted(step, *given, **when):
        due.append((time.monotonic(), when["due"]))
        return do(step, *given, **when)

    monkeypatch.setattr(worker, "do", noted)
    seconds = 64 * 256 / 22050
    url = f"/v1/vocode?stream=pcm&chunk_frames=64&checkpoint=stream&{OWN}"
    for ask in (
        lambda: client.post(url, content=npy(MEL[:, :200])),
        lambda: speak(session, [npy(MEL[:, :200])], checkpoint="stream", mel_convention="hifigan", chunk_frames=64),
    ):
        due.clear()
        with client.websocket_connect("/v1/stream") as session:
            ask()
        assert len(due) == 4 and due[0][1] == pytest.approx(due[0][0], abs=0.1)
        for (_, before), (now, then) in zip(due, due[1:], strict=False):
            assert then >= before + seconds and now < then <= max(now, before) + seconds


SECRET = re.compile(rf"Traceback|site-packages|/tmp|{Path.cwd()}")
"""What is none of a client's."""
WRONG = {
    "no number": ("?temperature=warm", SHORT, 422, "temperature: "),
    "infinite": ("?temperature=inf", SHORT, 422, "temperature: "),
    "nan": ("?denoise=nan", SHORT, 422, "denoise: "), "negative": ("?seed=-1", SHORT, 422, "seed: "),
    "rounds": ("?match=100000", SHORT, 422, "match: "), "unknown": ("?tempo=1", SHORT, 422, "tempo: "),
    "chunks": ("?stream=wav&chunk_frames=1", SHORT, 422, "chunk_frames: "), "form": ("?stream=mp3", SHORT, 422, "stream: "),
    "checkpoint": ("?checkpoint=../../etc", SHORT, 400, "is not served; choose one of: speech, stream"),
    "path": ("?mel_convention=/etc/passwd", SHORT, 400, "is not known; choose one of: "),
    "speaker": ("?speaker=me", SHORT, 400, "tells no voices apart"),
    "nothing": ("", b"", 415, "is empty, 0 bytes"), "text": ("", b"hello, world", 415, "begins with 68 65 6c"),
    "large": ("", b"RIFF" + bytes(20 * 2**20), 413, "more than 20971520 bytes"),
    "long": ("", npy(np.tile(MEL, 20)), 400, "at most 60 s are taken here"),
    "not finite": ("", npy(np.full((80, 50), np.nan, np.float32)), 400, "not finite"),
    "bands": ("", npy(np.zeros((33, 500), np.float32)), 400, "upload.npy: "),
    "pickle": ("", npy(np.array([{"a": 1}], dtype=object)), 400, "upload.npy: not a whole .npy file"),
    "cut": ("", CLIPS[0].read_bytes()[:20000], 400, "upload.flac: cut short"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_one_line(client, name):
    query, content, status, said = WRONG[name]
    answer = client.post(f"/v1/vocode{query}", content=content)
    assert answer.status_code == status and list(answer.json()) == ["error"]
    line = answer.json()["error"]
    assert said in line and "\n" not in line and len(line) < 500 and not SECRET.search(line)


def raw(frames):
    return bytes(4 * 80 * frames)


WRONG_MESSAGES = {
    "no settings": ([raw(1)], "before any settings"), "no JSON": (["hello"], "settings: Invalid JSON"),
    "unknown": (['{"tempo": 1}'], "tempo: "), "path": (['{"mel_convention": "/etc/passwd"}'], "is not known"),
    "bytes": (["{}", b"abc"], "3 bytes are no frames of 80 bands"), "text": (["{}", "stop"], "the text 'stop' within"),
    "pickle": (["{}", npy(np.array([{"a": 1}], dtype=object))], "holds pickled objects"),
    "cut": (["{}", SHORT[:-100]], "is no whole .npy file"),
    "huge": (["{}", SHORT.replace(b"(80, 90), }" + b" " * 9, b"(80, 90000000000), }")], "is no whole .npy file"),
    "nothing": (["{}", "end"], "the front-end gave no mel"),
    "bands": (['{"bands": 33}', bytes(33 * 4)], "no dimension of"),
    "nan": (["{}", np.full(80, np.nan, "<f4").tobytes()], "not finite"),
}


@pytest.mark.parametrize("name", WRONG_MESSAGES)
def test_what_is_wrong_in_a_socket_is_told_and_closes_it(client, name):
    messages, said = WRONG_MESSAGES[name]
    with client.websocket_connect("/v1/stream") as session:
        for message in messages:
            (session.send_text if isinstance(message, str) else session.send_bytes)(message)
        line = session.receive_json()["error"]
        assert said in line and "\n" not in line
        with pytest.raises(WebSocketDisconnect):
            session.receive_bytes()


def test_endless_utterance_is_cut(vocoders):
    with TestClient(application(vocoders, Limits(seconds=0.5))) as client:
        with client.websocket_connect("/v1/stream") as session:
            audio, end = speak(session, [raw(40)] * 2, checkpoint="stream", mel_convention="hifigan")
            assert audio.size == 43 * 256 and "more than 43 frames, 0.5 s, and was stopped" in end["error"]


def test_socket_that_sends_far_ahead_is_closed(vocoders):
    service = TestClient(application(vocoders, Limits(bytes=20_000)))
    with service as client, client.websocket_connect("/v1/stream") as session:
        with busy(client):
            session.send_json({"checkpoint": "stream", "mel_convention": "hifigan", "chunk_frames": 16})
            for _ in range(3):
                session.send_bytes(raw(60))                            # the first is being spoken, the others wait
        while "text" not in (message := session.receive()):
            pass
        assert "more than 20000 bytes wait to be spoken" in message["text"]


def test_silent_socket_is_closed(vocoders):
    with TestClient(application(vocoders, Limits(idle=0.1))) as client:
        with client.websocket_connect("/v1/stream") as session:
            assert "for 0.1 s" in session.receive_json()["error"]


def test_overload_is_refused_and_told_when_to_come_again(vocoders):
    limits = Limits(requests=3, share=2, rate=1000)
    with TestClient(application(vocoders, limits)) as client, ThreadPoolExecutor(2) as threads:
        post = lambda: client.post(f"/v1/vocode?{OWN}", content=SHORT)  # noqa: E731
        with busy(client):
            waiting = [threads.submit(post) for _ in range(2)]
            wait_until(lambda: client.get("/readyz").json() == {"under_way": 2})
            mine = post()
            with client.app.admission.place("somebody else"):
                ready, healthy = client.get("/readyz"), client.get("/healthz")
                with pytest.raises(Refused) as full, client.app.admission.place("another"):
                    pass
        assert mine.status_code == 429 and mine.headers["retry-after"] == "1"
        assert mine.json()["error"].startswith("2 of your requests are under way")
        assert full.value.status == 503 and full.value.headers["Retry-After"] == "1"
        assert (ready.status_code, healthy.status_code) == (503, 200)
        assert [one.result().status_code for one in waiting] == [200, 200]


def test_nobody_is_let_in_to_wait_for_long(vocoders):
    """Behind more work that is due than a request may wait for, as work has gone so far, the next one is refused."""
    with TestClient(application(vocoders, Limits(wait=0.5))) as client, ThreadPoolExecutor(1) as threads:
        worker = client.app.app.state.service.worker
        while worker.wait(1) <= 0.5 / 2:                               # steps that take their time
            worker.do(time.sleep, 1.0).result()
        with busy(client):
            waiting = threads.submit(client.post, f"/v1/vocode?{OWN}", content=SHORT)
            wait_until(lambda: metric(client, "queue") == 1)
            assert client.get("/readyz").status_code == 200
            worker.do(time.sleep, 0)
            worker.do(time.sleep, 0)
            refused, ready = client.post(f"/v1/vocode?{OWN}", content=SHORT), client.get("/readyz")
        assert (refused.status_code, ready.status_code) == (503, 503) and int(refused.headers["retry-after"]) >= 1
        assert "the server is busy with 1 requests" in refused.json()["error"]
        assert waiting.result().status_code == 200 and client.get("/readyz").status_code == 200


def test_a_client_keeps_to_its_rate():
    admission = Admission(Limits(rate=4))
    for at in (0, 0, 0, 0, 0.25, 0.5):
        admission.pace("a", 100 + at)
    with pytest.raises(Refused) as caught:
        admission.pace("a", 100.6)
    assert caught.value.status == 429 and caught.value.headers == {"Retry-After": "1"}
    admission.pace("b", 100.6)
    admission.pace("a", 100.75)
    for client in range(5000):
        admission.pace(str(client), 101)
    assert len(admission._due) <= 4096


def test_a_request_that_takes_too_long_ends(vocoders):
    with TestClient(application(vocoders, Limits(patience=0.2))) as client:
        with busy(client):
            answer = client.post(f"/v1/vocode?{OWN}", content=SHORT)
        assert answer.status_code == 408 and "not done after 0.2 s" in answer.json()["error"]
        assert client.get("/readyz").json() == {"under_way": 0}


@pytest.mark.parametrize("given, status", [(None, 401), ("Bearer wrong", 401), ("secret", 401), ("Bearer secret", 200)])
def test_key_is_asked_for(vocoders, given, status):
    headers = {} if given is None else {"Authorization": given}
    with TestClient(application(vocoders, key="secret"), headers=headers) as client:
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        for answer in (client.post("/v1/vocode", content=SHORT), client.get("/v1/checkpoints"), client.get("/metrics")):
            assert answer.status_code == status and ("www-authenticate" in answer.headers) == (status == 401)
        if status == 401:
            with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/stream"):
                pass
        else:
            with client.websocket_connect("/v1/stream"):
                pass


def test_pages_need_nothing_from_elsewhere(client):
    assert "/v1/vocode" in client.get("/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    assert [one["name"] for one in client.get("/v1/checkpoints").json()] == ["speech", "stream"]


@pytest.mark.parametrize("words, said", [
    (["--host", "0.0.0.0"], "everyone who can reach 0.0.0.0 could use this server; give a key: --api-key"),
    (["--checkpoint", "nowhere"], "nowhere: no such checkpoint folder"),
    (["--port", "TAKEN"], "cannot be had (Address already in use)"),
])
def test_server_does_not_start_with_what_is_wrong(flowavenet, monkeypatch, words, said):
    monkeypatch.delenv("FLOWAVENET_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = flowavenet("serve", *(str(taken.getsockname()[1]) if word == "TAKEN" else word for word in words))
    assert code == 2 and said in err and err.count("\n") == 1


@pytest.fixture(scope="module")
def server():
    """A server as users start it, with a key: its process and its port. Told to end, it ends what is under way first."""
    command = [sys.executable, "-m", "flowavenet.cli", "serve", "--port", "0", "--rate", "10000"]
    environment = os.environ | {"FLOWAVENET_API_KEY": "secret"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            port = int(re.match(r"http://127.0.0.1:(\d+) serves ", server.stdout.readline())[1])
            yield server, port
            with long_stream(port) as (beginning, answer):
                server.send_signal(signal.SIGTERM)
                assert len(beginning + answer.read()) == LONG * 256 * 2
            assert server.wait(20) == 0 and "Traceback" not in server.stderr.read()
        finally:
            server.kill()


LONG = 2850
"""Frames."""


@contextmanager
def long_stream(port):
    """Half a minute of audio that has begun to come."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    content = npy(np.tile(MEL, 10))
    connection.request("POST", f"/v1/vocode?{OWN}&stream=pcm", content, {"Authorization": "Bearer secret"})
    with connection.getresponse() as answer:
        yield answer.read(1000), answer
    connection.close()


def asked(port, path, body=b"", method="POST", key="secret"):
    """Status and body of an answer; None if there is none."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:                                                    # the server hung up while all of it was being sent
        return None, b""
    finally:
        connection.close()


def spoken(port, *parts):
    """What comes back to raw bytes, of which the server is told that nothing follows."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        heard = BytesIO()
        try:
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                heard.write(part)
        except TimeoutError:
            raise
        except OSError:                                                # the server hung up before it was told everything
            pass
        return None, heard.getvalue()


HEAD = b"POST /v1/vocode HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n"
UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
NOISE = np.random.default_rng(0).bytes(5000)
HOSTILE = {
    "no HTTP": lambda port: spoken(port, NOISE),
    "half a head": lambda port: spoken(port, HEAD),
    "half a body": lambda port: spoken(port, HEAD + b"Content-Length: 99999\r\n\r\n", SHORT[:999]),
    "a false length": lambda port: spoken(port, HEAD + b"Content-Length: -5\r\n\r\n", SHORT),
    "bad chunks": lambda port: spoken(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", NOISE),
    "a long head": lambda port: spoken(port, HEAD + b"X: " + b"y" * 200_000 + b"\r\n\r\n"),
    "no WebSocket": lambda port: spoken(port, UPGRADE, NOISE),
    "a closed WebSocket": lambda port: spoken(port, UPGRADE),
    "no key": lambda port: asked(port, "/v1/vocode", SHORT, key="guess"),
    "elsewhere": lambda port: asked(port, "/../../etc/passwd", method="GET"),
    "another method": lambda port: asked(port, "/v1/vocode", method="DELETE"),
    "promised": lambda port: asked(port, "/v1/vocode", SHORT[:200]),
    **{name: lambda port, of=name: asked(port, f"/v1/vocode{WRONG[of][0]}", WRONG[of][1]) for name in WRONG},
}


def memory(pid="self"):
    """Resident, in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def test_hostile_requests_change_nothing(server):
    """A hundred of them, at once with good ones: memory, health and every good answer stay as they were."""
    (process, port), good = server, f"/v1/vocode?{OWN}&seed=7"
    before = asked(port, good, SHORT)
    assert before[0] == 200
    with ThreadPoolExecutor(4) as threads:
        for round_number in range(4):
            if round_number == 1:                                      # after one of each, all that is needed is there
                at_first = memory(process.pid)
            answers = [threads.submit(one, port) for one in HOSTILE.values()]
            answers.append(threads.submit(asked, port, good, SHORT))
            for status, said in (answer.result() for answer in answers[:-1]):
                assert status is None or 400 <= status < 500
                assert not SECRET.search(said.decode(errors="replace"))
            assert answers[-1].result() == before
    assert round_number * len(HOSTILE) >= 90 and memory(process.pid) < at_first + 64
    assert asked(port, "/healthz", method="GET")[0] == 200
    assert asked(port, good, SHORT) == before
    wait_until(lambda: under_way(port) == 0)


def under_way(port):
    return json.loads(asked(port, "/readyz", method="GET")[1])["under_way"]


def seconds_made(port):
    text = asked(port, "/metrics", method="GET")[1].decode()
    return float(re.search(r"^flowavenet_audio_seconds_total (\S+)", text, re.M)[1])


@contextmanager
def long_utterance(port):
    """The same by a WebSocket."""
    client = pytest.importorskip("websockets.sync.client")
    url, key = f"ws://127.0.0.1:{port}/v1/stream", {"Authorization": "Bearer secret"}
    with client.connect(url, additional_headers=key) as session:
        session.send('{"mel_convention": "tacotron2", "chunk_frames": 64}')
        session.send(np.tile(MEL, 10).T.astype("<f4").tobytes())
        session.send("end")
        yield session.recv()


@pytest.mark.parametrize("begun", [long_stream, long_utterance])
def test_clients_that_leave_are_heard_no_further(server, begun):
    _, port = server
    before = seconds_made(port)
    with begun(port):
        pass
    wait_until(lambda: under_way(port) == 0)
    time.sleep(2)                                                      # in which the rest could be made
    assert 0 < seconds_made(port) - before < 0.7 * LONG * 256 / 22050


def test_image_is_built_of_what_is_there():
    """Each file that the Dockerfile copies is in the repository, and is given to Docker."""
    root = Path(__file__).parents[1]
    given = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (.*) \S+$", (root / "Dockerfile").read_text(), re.M)
    assert {name for line in copied for name in line.split()} == given
    assert all((root / name).exists() for name in given)
