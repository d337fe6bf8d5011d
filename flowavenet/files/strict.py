"""Files of plain values, YAML, NumPy's arrays and text, read strictly: right, or refused in one line that says why.

Whatever is in a file, reading it takes little more time and memory than the file is long, and runs nothing.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from reprlib import Repr
from threading import Lock
from typing import Any

import numpy as np

VALUES = 1_000_000
"""In a YAML file, when its aliases are written out: a few lines of them can stand for more than a computer holds."""
NPY = Lock()
"""Held while a .npy file is opened: two heads parsed at once may make Python 3.11 say "AST constructor recursion depth
mismatch" (python/cpython#106905)."""
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 40


def read_text(path: Path) -> str:
    """The text in a file, in UTF-8, maybe with a byte order mark, as spreadsheets put it first.

    Raises ValueError, in one line that names the file.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a CSV file, and its rows by the number of the line where they end.

    Raises ValueError, in one line that names the file.
    """
    table = csv.DictReader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    try:
        return list(table.fieldnames or ()), [(table.line_num, row) for row in table]
    except csv.Error as error:
        raise ValueError(f"{path}: not a table, at line {table.line_num} ({error}); save it as CSV") from None


def read_yaml(path: Path) -> Any:
    """The value in a YAML file; only what JSON also has, and dates.

    Raises ValueError, in one line that names the file.
    """
    import yaml

    text = path.read_bytes()
    try:
        if _values(yaml.compose(text, yaml.SafeLoader), {}) > VALUES:
            raise ValueError(f"stands for more than {VALUES} values")
        return yaml.safe_load(text)
    except Exception as error:                                         # PyYAML stumbles over dates, depths, keys, ...
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())[:120]}); correct it") from error


def _values(node: Any, known: dict[int, float]) -> float:
    """How many values a node of YAML stands for; infinite if it is in itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        inside = node.value if node and isinstance(node.value, list) else ()
        parts = (part for item in inside for part in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def parse_npy(data: bytes) -> np.ndarray:
    """The array that the bytes of a .npy file hold. Raises ValueError, in one line, for anything else."""
    try:
        with NPY:
            return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:                                         # of a header that is one of Python's dicts
        objects = "Object arrays" in str(error)
        raise ValueError("holds pickled objects, which may run code" if objects else "is no whole .npy file") from error


def short(value: Any) -> str:
    """A value for an error, in a few words, however large it is.

    >>> short("a" * 1000)
    "'aaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaa'"
    >>> len(short([["a" * 1000] * 1000] * 1000))
    100
    """
    said = _SHORT.repr(value)
    return said if len(said) <= 100 else f"{said[:97]}..."
