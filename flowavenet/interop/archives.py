"""Checkpoint files of other people: what weights they hold, by name, whatever torch wrote around them.

Read are torch's zip format, the format of torch before 1.6, and safetensors. Nothing in a file is run (see
:mod:`~flowavenet.interop.pickles`), numbers are read only when they are asked for, and no header is believed.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowavenet.interop.pickles import LIMIT, Machine, Record, Refused, Storage, Weight

Names = dict[str, Weight] | dict[str, Tensor]

MAGIC = 0x1950A86A20F9469CFC6C
"""First value in a file of torch before 1.6."""
NAMES = 2**24
"""Characters of all names of weights together, at most."""
STORED = 0


class CheckpointFile:
    """The state dicts in a file, ``states``, as they are found: names with the place of the weights, see :meth:`load`.

    A state dict is a dict with tensors in it, however deep it lies, or a whole module that was pickled, whose weights then
    have the names that its ``state_dict()`` would give them.

    Raises FileNotFoundError or ValueError, in one line, for a file that is none, is damaged, or would run something.
    """

    def __init__(self, path: Path):
        self.path = path
        self._data: dict[str, Tensor] = {}
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise ValueError(f"{path}: is an empty file, 0 bytes; copy or download it again")
        try:
            self.states: list[Names] = self._safetensors() if path.suffix.lower() == ".safetensors" else self._torch()
        except Refused as refused:
            cure = "save it again as a state dict" if str(refused).startswith("torch.") else "it is no checkpoint, delete it"
            raise ValueError(f"{path}: wants to run {refused} when it is loaded; nothing in it was run: {cure}") from None
        except Exception as error:                                     # whatever a reader may stumble over
            raise self._bad(error) from error
        if not self.states:
            raise ValueError(f"{path}: holds no state dict; save it again as torch.save(model.state_dict(), ...)")

    def load(self, state: Names) -> dict[str, Tensor]:
        """The tensors of one of the states."""
        try:
            return {name: weight if isinstance(weight, Tensor) else self._tensor(weight) for name, weight in state.items()}
        except Exception as error:
            raise self._bad(error) from error

    def _bad(self, error: Exception) -> ValueError:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        return ValueError(f"{self.path}: no checkpoint, or a damaged one ({reason}; nothing of it was run): get it again")

    def _safetensors(self) -> list[Names]:
        from safetensors.torch import load_file

        state = load_file(self.path)
        return [state] if state else []

    def _torch(self) -> list[Names]:
        with self.path.open("rb") as file:
            self._file = mmap(file.fileno(), 0, access=ACCESS_READ)
        content = self._zipped() if self._file[:4] == b"PK\3\4" else self._legacy()
        return list(_states(content))

    def _zipped(self) -> Any:
        """data.pkl, and data/KEY for each storage, in a folder."""
        file = self._file
        with zipfile.ZipFile(self.path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
        home = next((name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")), None)
        if home is None:
            raise ValueError("a zip file without data.pkl")

        def place(name: str) -> tuple[int, int]:
            entry = entries[home + name]
            head = entry.header_offset
            _, name_length, extra_length = struct.unpack("<26sHH", file[head : head + 30])
            start = head + 30 + name_length + extra_length
            if entry.compress_type != STORED or not 0 <= entry.file_size == entry.compress_size <= len(file) - start:
                raise ValueError(f"{name} is compressed, or cut short")
            if zlib.crc32(memoryview(file)[start : start + entry.file_size]) != entry.CRC:
                raise ValueError(f"{name} has another checksum than it should")
            return start, entry.file_size

        if home + "byteorder" in entries:
            start, size = place("byteorder")
            if file[start : start + size] != b"little":
                raise ValueError("its numbers are big-endian")
        start, size = place("data.pkl")
        if size > LIMIT:
            raise ValueError(f"data.pkl has {size} bytes, more than {LIMIT}")
        file.seek(start)
        self._place = lambda key: place(f"data/{key}")
        return self._machine().load(file)

    def _legacy(self) -> Any:
        """Pickles of a magic number, a version, the machine, the content and the keys of its storages; then these."""
        file, machine = self._file, self._machine()
        try:
            magic = machine.load(file)
        except Refused:
            raise
        except ValueError:
            magic = None
        if magic != MAGIC:
            raise ValueError("not written by torch")
        _, system = machine.load(file), machine.load(file)
        if not system["little_endian"]:
            raise ValueError("its numbers are big-endian")
        content = machine.load(file)
        places: dict[str, tuple[int, int]] = {}
        keys = machine.load(file)
        position = file.tell()
        for key in map(str, keys):
            (numel,) = struct.unpack("<q", file[position : position + 8])
            size = numel * machine.storages[key].dtype.itemsize
            places[key] = position + 8, size
            position += 8 + size
            if numel < 0 or position > len(file):
                raise ValueError("cut short")
        self._place = places.__getitem__
        return content

    def _machine(self) -> Machine:
        machine = Machine()
        self._storages = machine.storages
        return machine

    def _tensor(self, weight: Weight) -> Tensor:
        part, offset, size, stride = weight
        whole = self._storages[part.key]
        if whole.key not in self._data:
            self._data[whole.key] = self._numbers(whole)
        numbers = self._data[whole.key][part.start : part.start + part.numel]
        fits = offset >= 0 and len(size) == len(stride) and min(size, default=0) >= 0 and min(stride, default=0) >= 0
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=False))
        count = math.prod(size)
        if not fits or part.start < 0 or (count and last >= len(numbers)) or count > len(numbers):
            raise ValueError(f"a weight of shape {tuple(size)} lies outside its {len(numbers)} numbers")
        return numbers.as_strided(size, stride, offset) if count else numbers.new_empty(size)

    def _numbers(self, storage: Storage) -> Tensor:
        start, size = self._place(storage.key)
        if storage.numel * storage.dtype.itemsize != size:
            raise ValueError(f"storage {storage.key} has {size} bytes, wants {storage.numel} of {storage.dtype}")
        if size == 0:
            return torch.empty(0, dtype=storage.dtype)
        return torch.frombuffer(bytearray(memoryview(self._file)[start : start + size]), dtype=storage.dtype)


def _states(content: Any) -> Iterator[dict[str, Weight]]:
    """What is in the content that may be a state dict, from the outside to the inside."""
    seen: set[int] = set()
    level = [content]
    while level:
        inside: list[Any] = []
        for value in level:
            if id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, dict):
                if state := {key: one for key, one in _named(value) if isinstance(one, Weight)}:
                    yield state
                inside += value.values()
            elif isinstance(value, list | tuple) and not isinstance(value, Weight):
                inside += value
            elif isinstance(value, Record):
                if isinstance(value.state.get("_modules"), dict):
                    yield _module_state(value)
                else:
                    inside += [value.state, value.items]
        level = inside


def _module_state(module: Record) -> dict[str, Weight]:
    """The weights of a pickled ``nn.Module``, by their dotted names."""
    found: dict[str, Weight] = {}
    budget, todo = NAMES, [("", module)]
    while todo:
        home, module = todo.pop()
        for kind in ("_parameters", "_buffers", "_modules"):
            for name, value in _named(module.state.get(kind)):
                budget -= len(home) + len(name) + 1
                if budget < 0:                                         # they may be each other's modules, in a circle
                    raise ValueError("its modules are nested without end")
                if kind != "_modules" and isinstance(value, Weight):
                    found[home + name] = value
                elif kind == "_modules" and isinstance(value, Record):
                    todo.append((f"{home}{name}.", value))
    return found


def _named(values: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in values.items() if isinstance(key, str)] if isinstance(values, dict) else []
