"""Containers: what torch pickles, safetensors, tar files and TensorBoard's events."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from ..mutations import EXTREMES
from ..signalfiles import saved
from .signals import arrays, values
from .wording import ANYTHING, FLOATS, NAMES, SIZES, misstate, texts


class Run:
    """What a pickle would have Python run."""

    def __reduce__(self) -> tuple:
        import os

        return os.system, ("touch ran",)


@st.composite
def pickled(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """What torch can save: tensors of all kinds, and what is none; whole archives, and bombs."""
    mel = torch.from_numpy(draw(values((80, 9))))
    tensors = st.sampled_from(
        [
            mel,
            mel.T,
            mel[None],
            mel.half(),
            mel.bfloat16(),
            mel.double(),
            mel.to(torch.complex64),
            mel.int(),
            mel > 0,
            mel[:, :0],
            mel[0],
            mel[0, 0],
            mel.to_sparse(),
            torch.nn.Parameter(mel),
            mel[:1].expand(2**20, 9),
            torch.empty(80, 2**40, device="meta"),
            mel[:, :1].expand(80, 2**30),
            torch.quantize_per_tensor(mel, 0.1, 0, torch.qint8),
            torch.zeros(1, 1, 1, 1, 80, 3),
            torch.empty(0),
            mel.to(torch.float8_e4m3fn),
        ]
    )
    content = draw(
        st.one_of(
            tensors, st.dictionaries(NAMES, tensors, max_size=3), ANYTHING, st.just(Run()), st.just({"a": Run(), "b": mel})
        )
    )
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=draw(st.booleans()))
    how = draw(st.sampled_from(["as it is", "as it is", "squeezed", "bomb", "pickle"]))
    if how == "pickle":
        return pickle.dumps(Run() if draw(st.booleans()) else [1, "a"], draw(st.integers(0, 5)))
    if how == "as it is" or out.getvalue()[:2] != b"PK":
        return out.getvalue()
    packed = io.BytesIO()
    with zipfile.ZipFile(out) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, bytes(2**24) if how == "bomb" and "data/" in entry else source.read(entry))
    return packed.getvalue()


@st.composite
def contents(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """What torch saved, with a value or two that say anything, or that are gone."""
    content = torch.load(io.BytesIO(draw(st.sampled_from(seeds))), weights_only=True)
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.integers(0, 3)):
            misstate(draw, content)
        elif content:
            del content[draw(st.sampled_from(list(content)))]
    return saved(content)


@st.composite
def weights(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """Safetensors with the right names and anything else of them changed."""
    data = draw(st.sampled_from(seeds))
    length = int.from_bytes(data[:8], "little")
    head, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    for key in draw(st.lists(st.sampled_from(list(head)), max_size=3)):
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "name", "gone", "value"]))
        entry = head.get(key)
        if field == "gone":
            head.pop(key, None)
        elif field == "name":
            head[draw(NAMES)] = head.pop(key, None)
        elif field == "value" and body:
            start = draw(st.integers(0, len(body) // 4 - 1)) * 4
            body[start : start + 4] = struct.pack("<f", draw(FLOATS))
        elif isinstance(entry, dict):
            some = {
                "dtype": st.sampled_from(["F16", "F64", "BF16", "I64", "BOOL", "F8_E4M3", "X"]),
                "shape": st.lists(SIZES, max_size=4),
            }
            entry[field] = draw(st.one_of(some.get(field, st.lists(SIZES, min_size=2, max_size=2)), ANYTHING))
    text = draw(st.sampled_from([json.dumps(head)] * 6 + ["[" * 9000, "{}", "[]", '{"a":' * 500])).encode()
    said = draw(st.sampled_from([len(text)] * 6 + EXTREMES)) % 2**64
    return said.to_bytes(8, "little") + text + bytes(body)


@st.composite
def archives(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """Tar files with members of any name, kind and content."""
    with tarfile.open(fileobj=io.BytesIO(draw(st.sampled_from(seeds)))) as tar:
        members = [(one.name, tar.extractfile(one).read()) for one in tar]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))) as tar:
        for name, data in members if draw(st.booleans()) else draw(st.permutations(members)):
            what = draw(st.sampled_from(["same"] * 9 + ["name", "link", "json", "npy", "gone"]))
            info = tarfile.TarInfo(draw(NAMES) if what == "name" else name)
            if what == "link":
                info.type, info.linkname = (
                    draw(st.sampled_from([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])),
                    "/etc/passwd",
                )
            if what == "json" and name.endswith("json"):
                data = draw(texts([data]))
            if what == "npy" and name.endswith("npy"):
                data = draw(arrays([data]))
            info.size = len(data) if info.isreg() else 0
            if what != "gone":
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@st.composite
def records(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """TensorBoard's events with steps, times and values that no run has."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    out = io.BytesIO()
    writer = RecordWriter(out)
    steps = st.sampled_from([0, 1, 2, 100, 100, 200, 300, -1, 2**62, -(2**63)])
    tags = st.sampled_from(
        ["train/nats_per_sample", "valid/nats_per_sample", "lr-Adam", "valid/x/block0", "", "\x1b[2J", "a" * 3000]
    )
    for _ in range(draw(st.integers(0, 12))):
        value = Summary.Value(tag=draw(tags), simple_value=draw(st.one_of(FLOATS, st.floats(4, 8))))
        event = Event(wall_time=draw(st.one_of(FLOATS, st.floats(0, 1e9))), step=draw(steps), summary=Summary(value=[value]))
        writer.write(event.SerializeToString())
    return out.getvalue()
