"""YAML, JSON, CSV and plain words that parse, and say what they should not."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import yaml
from hypothesis import strategies as st

SIZES = st.sampled_from([0, 1, 2, 3, 8, 16, 24, 80, 100, 2**16, 2**31 - 1, 2**32, 2**40, 2**62, -1])
FLOATS = st.sampled_from([0.0, 1.0, -11.5, 5.0, 1e-45, 88.8, 1e5, 3e38, float("inf"), float("nan")])
NAMES = st.sampled_from(["", "a", "mel", "..", "/etc/passwd", "a\nb", "\x1b[2J", "ü" * 300, "__proto__", "module." * 50])
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    SIZES,
    FLOATS,
    NAMES,
    st.sampled_from(["1e-5", "hop", "ln", "2026-99-99", "~"]),
)
ANYTHING = st.recursive(
    PLAIN, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(NAMES, inside, max_size=3), max_leaves=6
)
BOMBS = [
    "a: &a [x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
    "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 8)}]}}\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
    "&a [*a]",
    "[" * 3000,
    "{a: " * 3000,
    "- " * 3000,
    "!!python/object/apply:os.system [touch ran]",
    "? [a]\n: b",
    "2001-13-99",
    "1" * 5000,
    "!!float x",
    "!!int x",
    "!!binary x",
    "!!timestamp x",
    "\ufeff---\n---\n",
    "a: 1\na: 2",
]


@st.composite
def texts(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """YAML or JSON like the seeds, with a few values of wrong types; and what makes their parsers suffer."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(BOMBS)).encode()
    source = draw(st.sampled_from(seeds))
    content = yaml.safe_load(source)
    for _ in range(draw(st.integers(1, 3))):
        misstate(draw, content)
    if draw(st.integers(0, 9)) == 0 and isinstance(content, dict):
        content[draw(NAMES)] = draw(ANYTHING)
    return json.dumps(content).encode() if source[:1] == b"{" else yaml.safe_dump(content, sort_keys=False).encode()


def misstate(draw: Any, content: Any) -> None:
    """Have one value say anything, however deep it lies in dicts and lists."""
    while keys := list(content) if isinstance(content, dict) else list(range(len(content))):
        key = draw(st.sampled_from(keys))
        if not isinstance(content[key], dict | list) or draw(st.integers(0, 5)) == 0:
            content[key] = draw(ANYTHING)
            return
        content = content[key]


@st.composite
def tables(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """CSV with cells of wrong kinds, rows of wrong lengths, quotes and lines without end."""
    text = draw(st.sampled_from(seeds)).decode("utf-8-sig")
    between = "|" if "|" in text else ","
    rows = list(csv.reader(io.StringIO(text), delimiter=between))
    for _ in range(draw(st.integers(0, 2))):
        row = draw(st.sampled_from(rows))
        cell = str(
            draw(
                st.one_of(
                    PLAIN, st.sampled_from(["wavs/a.wav", "../wavs/b.wav", "train", '"', "x" * 200_000, "1e999", "\0"])
                )
            )
        )
        if row:
            row[draw(st.integers(0, len(row) - 1))] = cell
        if draw(st.integers(0, 5)) == 0:
            row.append(cell)
    out = io.StringIO()
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL] * 3 + [csv.QUOTE_ALL]))
    csv.writer(out, delimiter=between, quoting=quoting).writerows(rows)
    return out.getvalue().encode(draw(st.sampled_from(["utf-8"] * 5 + ["utf-8-sig", "utf-16", "latin-1"])), "replace")


def words(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    name = st.text("ab./-_@~\\ü%:", max_size=20)
    return st.one_of(
        name, st.builds("{}/{}@{}".format, name, name, name), st.sampled_from(["a" * 5000, "a/" * 3000, "", ".", "/", "~"])
    ).map(str.encode)
