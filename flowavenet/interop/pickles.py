"""Pickles read without being run: what a file would have Python import and call becomes an inert record of its name.

A pickle is a program for a small stack machine. Python's own machine imports whatever the program names and calls it, which
is how a "checkpoint" takes over a computer. The machine here knows the same instructions, but it imports nothing and calls
nothing: objects of classes become a :class:`Record` of their state, tensors a :class:`Weight` that says where its numbers
lie, and a program that must call anything else is :class:`Refused`. Work and memory are linear in the length of the pickle.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import torch

LIMIT = 2**24
"""Bytes of a pickle, at most: a checkpoint of 100,000 weights has as many; their numbers lie elsewhere."""


class Refused(ValueError):
    """The pickle wants to call what no checkpoint needs; the message is its name."""


class Global(NamedTuple):
    """What a pickle refers to by name: a class, or a function."""

    name: str


class Record:
    """An object of some class, of which only the state is kept."""

    def __init__(self, name: str):
        self.name = name
        self.state: dict[Any, Any] = {}
        self.items: dict[Any, Any] = {}
        """Of a dict's subclass."""


class Storage(NamedTuple):
    """So many numbers, somewhere else in the file."""

    key: str
    dtype: torch.dtype
    numel: int
    start: int = 0
    """The first of them, of a part of what the key stands for."""


class Weight(NamedTuple):
    """A tensor: which numbers of a storage it holds. Nothing of this is checked here."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _first(first: Any, *rest: Any) -> Any:
    return first


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor": Weight,
    "torch._utils._rebuild_tensor_v2": lambda storage, offset, size, stride, *rest: Weight(storage, offset, size, stride),
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch.Size": _first,
    "builtins.set": _first,                                            # a list will do
    "builtins.frozenset": _first,
    "_codecs.encode": _first,
    "copyreg._reconstructor": lambda of, *rest: Record(of.name),
}
"""What a pickle may call, and what stands for it here."""
INERT = {
    "argparse.Namespace", "builtins.bool", "builtins.bytearray", "builtins.complex", "builtins.dict", "builtins.float",
    "builtins.int", "builtins.list", "builtins.object", "builtins.range", "builtins.slice", "builtins.str", "builtins.tuple",
    "collections.Counter", "collections.defaultdict", "collections.deque", "datetime.datetime", "datetime.timedelta",
    "numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar", "numpy.dtype", "pathlib.PosixPath", "pathlib.WindowsPath", "torch.device",
    "torch.nn.backends.thnn._get_thnn_function_backend",               # in every module that torch before 1.5 pickled
}
"""What else checkpoints are known to hold, calls included: nothing of it is needed, so a record stands for it."""
RENAMED = {"copy_reg": "copyreg", "__builtin__": "builtins"}
"""Modules that Python 2 called otherwise."""
STORAGES = {
    "BFloat16": torch.bfloat16, "Bool": torch.bool, "Byte": torch.uint8, "Char": torch.int8, "Double": torch.float64,
    "Float": torch.float32, "Half": torch.float16, "Int": torch.int32, "Long": torch.int64, "Short": torch.int16,
}
LITERALS = {
    "BINBYTES", "BINBYTES8", "BINFLOAT", "BININT", "BININT1", "BININT2", "BINSTRING", "BINUNICODE", "BINUNICODE8",
    "BYTEARRAY8", "FLOAT", "INT", "LONG", "LONG1", "LONG4", "SHORT_BINBYTES", "SHORT_BINSTRING", "SHORT_BINUNICODE",
    "STRING", "UNICODE",
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
CONTAINERS: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_DICT": dict}
PLAIN = (str, bytes, int, float, type(None))
"""Keys that are kept; to hash others could take for ever."""


class Machine:
    """Runs one pickle after the other; what they say of storages is kept in ``storages``, by key."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}

    def load(self, file: BinaryIO) -> Any:
        """The value of the pickle that begins here, made of plain values, records and weights; leaves the file behind it.

        Raises :class:`Refused`, or ValueError if the pickle is damaged.
        """
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        start = file.tell()
        try:
            for instruction, argument, position in pickletools.genops(file):
                if position - start > LIMIT:
                    raise ValueError(f"its table of contents is longer than {LIMIT} bytes")
                self._step(instruction.name, argument)
            return self.stack.pop()
        except (IndexError, KeyError, TypeError, AttributeError) as error:
            raise ValueError("its table of contents makes no sense") from error

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in CONTAINERS:
            stack.append(CONTAINERS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME", "STOP"):
            handler = getattr(self, f"_{name.lower()}", None)
            if handler is None:
                raise ValueError(f"has the instruction {name}, which checkpoints do not have")
            handler() if argument is None else handler(argument)

    def _marked(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _mark(self) -> None:
        self.marks.append(len(self.stack))

    def _pop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _pop_mark(self) -> None:
        self._marked()

    def _dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _list(self) -> None:
        self.stack.append(self._marked())

    _frozenset = _list

    def _tuple(self) -> None:
        self.stack.append(tuple(self._marked()))

    def _tuple1(self, count: int = 1) -> None:
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(items)

    def _tuple2(self) -> None:
        self._tuple1(2)

    def _tuple3(self) -> None:
        self._tuple1(3)

    def _dict(self) -> None:
        items = self._marked()
        self.stack.append({})
        self._fill(items)

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _appends(self) -> None:
        self._extend(self._marked())

    _additems = _appends

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):                           # else a record of some list: not needed
            self.stack[-1].extend(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def _setitems(self) -> None:
        self._fill(self._marked())

    def _fill(self, items: list[Any]) -> None:
        target = self.stack[-1]
        target = target.items if isinstance(target, Record) else target
        target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if isinstance(key, PLAIN))

    def _global(self, both: str) -> None:
        module, _, name = both.partition(" ")
        module = RENAMED.get(module, module)
        found = Global(f"{module}.{name}")
        # modules of nets and their training refer to none of Python's own library but these
        if module.partition(".")[0] in sys.stdlib_module_names and found.name not in CALLS and found.name not in INERT:
            raise Refused(found.name)
        self.stack.append(found)

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._global(f"{module} {name}")

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global):
            raise ValueError("calls what is no function")
        if function.name in INERT:
            self.stack.append(Record(function.name))
        elif function.name in CALLS:
            self.stack.append(CALLS[function.name](*arguments))
        else:
            raise Refused(function.name)

    def _inst(self, both: str) -> None:
        arguments = tuple(self._marked())
        self._global(both)
        self.stack.append(arguments)
        self._reduce()

    def _obj(self) -> None:
        function, *arguments = self._marked()
        self.stack += [function, tuple(arguments)]
        self._reduce()

    def _newobj(self) -> None:
        _, of = self.stack.pop(), self.stack.pop()
        self.stack.append(Record(of.name))

    def _newobj_ex(self) -> None:
        self.stack.pop()
        self._newobj()

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(state, tuple) and state:                         # the usual state, and that of slots
            state = state[0]
        if isinstance(target, Record) and isinstance(state, dict):
            target.state = state                                       # no copy: many of one would add up

    def _binpersid(self) -> None:
        kind, value, *rest = self.stack.pop()
        if kind == "module":                                           # a class, and its source
            self.stack.append(value)
            return
        key, _, numel, *part = rest
        name = value.name.rpartition(".")[2]
        if kind != "storage" or not name.endswith("Storage") or name.removesuffix("Storage") not in STORAGES:
            raise ValueError(f"holds numbers of a kind that is not known here ({value.name})")
        storage = Storage(str(key), STORAGES[name.removesuffix("Storage")], numel)
        self.storages[storage.key] = storage
        if part and part[0]:
            _, start, numel = part[0]
            storage = storage._replace(start=start, numel=numel)
        self.stack.append(storage)
