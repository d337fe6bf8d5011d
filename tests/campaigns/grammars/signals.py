"""Sounds, arrays of numbers and HDF5 with headers that lie, and values that no mel has."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..mutations import EXTREMES
from .wording import ANYTHING, FLOATS, SIZES


def headers(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Files of any format with extreme numbers in their first 100 bytes, where sizes are."""

    def put(data: bytes, fields: list[tuple[int, int, int, str]]) -> bytes:
        made = bytearray(data)
        for start, size, value, order in fields:
            made[start : start + size] = (value % 2 ** (8 * size)).to_bytes(size, order)
        return bytes(made)

    field = st.tuples(
        st.integers(0, 100), st.sampled_from([1, 2, 3, 4, 8]), st.sampled_from(EXTREMES), st.sampled_from(["little", "big"])
    )
    return st.builds(put, st.sampled_from(seeds), st.lists(field, min_size=1, max_size=4))


@st.composite
def waves(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """WAVs whose every field is extreme at times."""
    extreme = st.sampled_from(EXTREMES)

    def pick(usual: int, size: int) -> int:
        return usual if draw(st.integers(0, 9)) else draw(extreme) % 2 ** (8 * size)

    form = draw(st.sampled_from([1] * 9 + [3, 6, 7, 2, 17, 49, 80, 85, 0xFFFE]))
    bits = draw(st.sampled_from([16] * 6 + [8, 24, 32, 64, 0, 1, 255]))
    head = struct.pack("<HHIIHH", form, pick(1, 2), pick(22050, 4), pick(44100, 4), pick(2, 2), bits)
    chunks = [
        (b"fmt ", head + draw(st.sampled_from([b"", b"\0\0", bytes(24)]))),
        (b"data", draw(st.binary(min_size=2, max_size=64)) * draw(st.integers(0, 9))),
    ]
    chunks += draw(
        st.lists(
            st.tuples(st.sampled_from([b"LIST", b"fact", b"cue ", b"ds64", b"PEAK", b"bext"]), st.binary(max_size=40)),
            max_size=2,
        )
    )
    if draw(st.integers(0, 4)) == 0:
        chunks = draw(st.permutations(chunks))
    body = b"".join(
        name + struct.pack("<I", pick(len(inside), 4)) + inside + bytes(len(inside) % 2) for name, inside in chunks
    )
    return (
        draw(st.sampled_from([b"RIFF"] * 6 + [b"RF64", b"RIFX"]))
        + struct.pack("<I", pick(4 + len(body), 4))
        + b"WAVE"
        + body
    )


@st.composite
def arrays(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """NumPy's files: a header that says anything, and the numbers of a valid file or others."""
    valid = np.load(io.BytesIO(draw(st.sampled_from(seeds)))).astype(np.float32)
    numbers = marred(draw, valid) if draw(st.integers(0, 3)) else draw(values((80, 48)))
    types = [
        "<f4",
        "<f4",
        "<f8",
        "<f2",
        ">f4",
        "|O",
        "<c8",
        "<i4",
        "|b1",
        "<U9",
        "|V8",
        "<M8[s]",
        "f" * 9,
        [("a", "<f4")],
        [("a", "|O")],
    ]
    usual = st.sampled_from([(80, 24), (24, 80), (1, 80, 24), (2, 80)])
    shape = draw(st.one_of(*[st.just(valid.shape)] * 3, usual, st.lists(SIZES, max_size=4).map(tuple)))
    kind = draw(st.one_of(*[st.sampled_from(types[:4])] * 3, st.sampled_from(types)))
    if kind in types[:5]:
        numbers = numbers.astype(kind)
    fields = {"descr": kind, "fortran_order": draw(st.integers(0, 3)) == 0, "shape": shape}
    if draw(st.integers(0, 9)) == 0:
        fields[draw(st.sampled_from([*fields, "more"]))] = draw(ANYTHING)
    text = (
        draw(
            st.sampled_from([repr(fields)] * 40 + ["{" * 2000, "[" * 90 + "]" * 90, "-" * 9000 + "1", "f()", "1" * 5000])
        ).encode()
        + b"\n"
    )
    version = draw(st.sampled_from([b"\1\0"] * 9 + [b"\2\0", b"\3\0", b"\xff\xff"]))
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(text) % 2**16)
    return (
        b"\x93NUMPY"
        + version
        + length
        + text
        + numbers.tobytes()[: draw(st.sampled_from([10**6, 10**6, 10**6, 640, 0]))]
    )


@st.composite
def values(draw: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Mostly like a mel."""
    made = (
        np.random.default_rng(draw(st.integers(0, 9)))
        .normal(-5, draw(st.sampled_from([2.0, 0.0, 1e-30])), shape)
        .astype(np.float32)
    )
    return marred(draw, made)


def marred(draw: Any, numbers: np.ndarray) -> np.ndarray:
    """At times, one of them is another."""
    if numbers.size and draw(st.booleans()):
        numbers.flat[draw(st.integers(0, numbers.size - 1))] = draw(FLOATS)
    return numbers


@st.composite
def groups(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """HDF5 with data sets of any shape and type, some of them far larger than the file."""
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name in ("mean", "scale"):
            kind = draw(
                st.sampled_from(["numbers"] * 3 + ["large", "words", "scalar", "group", "link", "outside", "none", "opaque"])
            )
            if kind == "numbers":
                file[name] = (
                    draw(values((draw(st.sampled_from([80, 80, 79, 1, 0])),))) ** 2 if name == "scale" else np.zeros(80)
                )
            elif kind == "large":
                file.create_dataset(
                    name, shape=draw(st.sampled_from([(2**40,), (80, 2**30), (2**33,)])), chunks=True, dtype="f8"
                )
            elif kind == "words":
                file[name] = ["a"] * 80
            elif kind == "scalar":
                file[name] = 1.0
            elif kind == "group":
                file.create_group(name)
            elif kind == "link":
                file[name] = h5py.SoftLink(draw(st.sampled_from([f"/{name}", "/mean", "/nowhere"])))
            elif kind == "outside":
                file[name] = h5py.ExternalLink("/etc/passwd", "/mean")
            elif kind == "opaque":
                file.create_dataset(name, shape=(80,), dtype=h5py.vlen_dtype(np.float32))
    return out.getvalue()
