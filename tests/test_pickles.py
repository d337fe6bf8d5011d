"""Other people's files, read without being run: whole modules as their state dicts, and nothing else."""

import functools
import io
import os
import pickle
import random
import sys
import types
import zipfile

import pytest
import torch
from torch import nn

from flowavenet.interop.archives import CheckpointFile

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm", "ignore:Couldn't retrieve source code")

FORMATS = {"zip": True, "legacy": False}


@pytest.fixture
def glow(monkeypatch):
    """A module of Python that the writer of a file had, and its reader has not: gone when the fixture is called."""
    module = types.ModuleType("glow")

    class Invertible(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(4, 4, 1, bias=False)
            self.conv.weight.data = torch.linalg.qr(torch.randn(4, 4))[0].T.unsqueeze(2)   # not contiguous

    class Glow(nn.Module):
        def __init__(self):
            super().__init__()
            self.upsample = nn.ConvTranspose1d(4, 4, 8, 2)
            self.convinv = nn.ModuleList([Invertible(), Invertible()])
            self.WN = nn.ModuleList([nn.utils.weight_norm(nn.Conv1d(2, 8, 3)), nn.Sequential(nn.BatchNorm1d(8), nn.ReLU())])
            self.tied = self.upsample
            self.notes = {"sizes": torch.Size([2, 3]), "of": (torch.float16, torch.device("cpu"), {1, 2})}
            self.register_buffer("counts", torch.arange(5))
            self.register_parameter("nothing", None)
            self.half()
            self.counts[2] = 7

    for cls in (Invertible, Glow):
        cls.__module__, cls.__qualname__ = "glow", cls.__name__
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "glow", module)
    return module


def forget():
    del sys.modules["glow"]


def saved(content, path, form):
    torch.save(content, path, _use_new_zipfile_serialization=FORMATS[form])
    return path


def only_state(path):
    file = CheckpointFile(path)
    assert len(file.states) == 1
    return file.load(file.states[0])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("held", ["alone", "in a dict", "in DataParallel"])
def test_a_whole_module_is_its_state_dict(held, form, glow, tmp_path):
    model = glow.Glow()
    content = nn.DataParallel(model) if held == "in DataParallel" else model
    expected = content.state_dict()
    content = content if held == "alone" else {"model": content, "iteration": 7, "learning_rate": 1e-4}
    path = saved(content, tmp_path / "file", form)
    forget()
    state = only_state(path)
    assert set(state) == set(expected) and "glow" not in sys.modules
    for key, value in expected.items():
        assert state[key].dtype == value.dtype and torch.equal(state[key], value), key


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("wrap", [
    lambda state: state, lambda state: {"state_dict": state}, lambda state: {"g": state, "d": None},
    lambda state: {"epoch": 3, "model": {"net": [state]}},
], ids=["plain", "state_dict", "g", "deep"])
def test_a_state_dict_is_found_wherever_it_is(wrap, form, tmp_path):
    state = {"a": torch.randn(3, 4), "b": torch.randn(5).bfloat16(), "c": torch.tensor(True), "d": torch.empty(0, 2)}
    state |= {"e": state["a"].T, "f": state["a"][1:, 2], "g": torch.arange(6).reshape(2, 3)}
    found = only_state(saved(wrap(state), tmp_path / "file", form))
    assert list(found) == list(state)
    assert all(found[key].dtype == value.dtype and torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize("form", FORMATS)
def test_an_optimizer_is_in_nobodys_way(form, tmp_path):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    content = {"optimizer": optimizer.state_dict(), "whole": optimizer, "model": model.state_dict()}
    file = CheckpointFile(saved(content, tmp_path / "file", form))
    state = next(state for state in file.states if "weight" in state)
    assert torch.equal(file.load(state)["weight"], model.weight)


MARKER = "the-file-was-run"
TOUCH = f"touch {MARKER}"


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


SYSTEM = Calls(os.system, TOUCH)
HOSTILE = {
    **{f"protocol {p}": (pickle.dumps(SYSTEM, p), "posix.system") for p in range(6)},
    "eval": (pickle.dumps(Calls(eval, f"open({MARKER!r}, 'w')")), "builtins.eval"),
    "eval of Python 2": (f"c__builtin__\neval\n(S\"open('{MARKER}', 'w')\"\ntR.".encode(), "builtins.eval"),
    "partial": (pickle.dumps(functools.partial(os.system, TOUCH)), "functools.partial"),
    "instance": (f"(S'{TOUCH}'\nios\nsystem\n.".encode(), "os.system"),
    "object": (f"(cos\nsystem\nS'{TOUCH}'\no.".encode(), "os.system"),
    "new object": (b"\x80\x02csubprocess\nPopen\n)\x81.", "subprocess.Popen"),
    "by another's name": (f"cnumpy\nos.system\n(S'{TOUCH}'\ntR.".encode(), "numpy.os.system"),
    "attribute": (pickle.dumps(Calls(getattr, "x", "upper")), "builtins.getattr"),
    "import": (pickle.dumps(Calls(__import__, "antigravity")), "builtins.__import__"),
    "deep": (pickle.dumps({"state_dict": {"a": [({"b": SYSTEM},)]}}), "posix.system"),
}


def zipped(path, pickled, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", bytes(64))
    return path


def legacy(path, pickled):
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, system))
    path.write_bytes(head + pickled + pickle.dumps(["0"], 2) + (16).to_bytes(8, "little") + bytes(64))
    return path


def plain(path, pickled):
    path.write_bytes(pickled)
    return path


def refusal(path):
    with pytest.raises((ValueError, OSError)) as caught:
        file = CheckpointFile(path)
        for state in file.states:
            file.load(state)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    return text


@pytest.mark.parametrize("wrap", [zipped, legacy, plain])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_wants_to_run_is_refused_by_name(name, wrap, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled, wanted = HOSTILE[name]
    text = refusal(wrap(tmp_path / "file", pickled))
    assert f"wants to run {wanted} when it is loaded" in text and "delete it" in text
    assert not os.path.exists(MARKER)


@pytest.mark.parametrize("form", FORMATS)
def test_no_method_of_a_class_is_called(form, glow, tmp_path):
    called = []

    class Trap:
        def __setstate__(self, state):
            called.append(state)

        def __new__(cls, *arguments):
            called.append(arguments)
            return super().__new__(cls)

        append = extend = __setitem__ = __setstate__

    Trap.__module__, Trap.__qualname__ = "glow", "Trap"
    glow.Trap, trap = Trap, Trap()
    trap.weights = {"a": torch.ones(2)}
    path = saved(trap, tmp_path / "file", form)
    called.clear()
    assert torch.equal(only_state(path)["a"], torch.ones(2)) and not called       # although the class is there


def weight(storage="0", numel=16, size=(4, 4), stride=(4, 1), offset=0):
    """The pickle of a state dict with one weight, which may lie."""
    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, storage, "cpu", numel) if isinstance(value, torch.nn.Identity) else None

    out = io.BytesIO()
    rebuilt = Calls(torch._utils._rebuild_tensor_v2, torch.nn.Identity(), offset, size, stride, False, {})
    Pickler(out, 2).dump({"a": rebuilt})
    return out.getvalue()


def circle():
    """A module that is twice its own module."""
    text = "\x80\x02cglow\nGlow\n)\x81q\0}(X\x08\0\0\0_modulesq\1}(X\1\0\0\0ah\0X\1\0\0\0bh\0uub."
    return text.encode("latin1")


LIES = {
    "more numbers than there are": weight(numel=2**60, size=(2**60,), stride=(1,)),
    "a small storage, expanded": weight(size=(10**6, 10**6), stride=(0, 0)),
    "beyond the end": weight(offset=1),
    "before the beginning": weight(offset=-1),
    "backwards": weight(stride=(-4, 1)),
    "no such storage": weight(storage="../../file"),
    "sizes that are none": weight(size=("a", 4)),
    "a text of 2^62 characters": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"abc.",
    "bytes without end": b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b"abc.",
    "a large memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "lists in lists": b"\x80\x02" + b"]" * 50000 + b"a" * 49999 + b".",
    "keys that take for ever": b"\x80\x02}N" + b"2\x86" * 60 + b"Ns.",
    "deep keys": b"\x80\x02}N" + b"\x85" * 50000 + b"Ns.",
    "a module in itself": circle(),
    "marks": b"\x80\x02" + b"(" * 50000 + b".",
    "an extension": b"\x80\x02\x82\x01.",
    "nothing": b"",
}


@pytest.mark.parametrize("wrap", [zipped, legacy])
@pytest.mark.parametrize("name", LIES)
def test_lies_are_one_line(name, wrap, tmp_path):
    refusal(wrap(tmp_path / "file", LIES[name]))


def test_what_weight_makes_is_read_if_it_does_not_lie(tmp_path):
    for wrap in (zipped, legacy):
        assert torch.equal(only_state(wrap(tmp_path / "file", weight()))["a"], torch.zeros(4, 4))


def test_what_is_no_checkpoint_is_one_line(tmp_path):
    path = tmp_path / "file"
    assert "no such file" in refusal(path)
    assert "0 bytes" in refusal(plain(path, b""))
    assert "not written by torch" in refusal(plain(path, b"# a text\n" * 100))
    assert "not written by torch" in refusal(plain(path, bytes(random.Random(0).randbytes(5000))))
    assert "compressed" in refusal(zipped(path, bytes(2**26), zipfile.ZIP_DEFLATED))
    assert "more than" in refusal(zipped(path, bytes(2**24 + 1)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    assert "without data.pkl" in refusal(path)
    assert "holds no state dict" in refusal(saved([1, "two", {3: 4.0}], path, "zip"))
    assert "save it again as a state dict" in refusal(saved({"a": torch.eye(3).to_sparse()}, path, "zip"))
    assert "damaged" in refusal(plain(tmp_path / "file.safetensors", b"text"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_file_is_read_or_refused(form, tmp_path, monkeypatch):
    """Bytes changed and ends cut off, at random: never another error, never anything run."""
    monkeypatch.chdir(tmp_path)
    content = {"model": nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2)), "a": torch.randn(8)}
    whole = saved(content, tmp_path / "whole", form).read_bytes()
    chance, path, refused = random.Random(0), tmp_path / "file", 0
    for attempt in range(400):
        data = bytearray(whole[: chance.randrange(len(whole))] if attempt % 8 == 0 else whole)
        for _ in range(chance.choice((1, 1, 3, 20))):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            file = CheckpointFile(path)
            for state in file.states:
                file.load(state)
        except (ValueError, OSError) as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert 50 < refused <= 400 and sorted(os.listdir()) == ["file", "whole"]
