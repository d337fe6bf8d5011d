"""Valid files, made invalid at random: bits flipped, parts cut, repeated and joined, lengths and numbers replaced."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

MAGIC = [
    b"RIFF",
    b"RF64",
    b"fLaC",
    b"OggS",
    b"ID3\4",
    b"\x93NUMPY\1\0",
    b"PK\3\4",
    b"PK\5\6",
    b"\x89HDF\r\n\x1a\n",
    b"\x80\2",
    b"ustar",
]
WORDS = [
    b"null",
    b"nan",
    b"-inf",
    b"[]",
    b"{}",
    b"&a [*a, *a]",
    b"!!python/object/apply:os.system [touch ran]",
    b"\0",
    b"\xff\xfe",
]
NUMBERS = [b"0", b"-1", b"1e308", b"-1e-308", b"99999999999999999999", b"2147483648", b"65537", b"0.5", b"1_0", b"true"]
EXTREMES = [0, 1, 2**7 - 1, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1]

Mutation = Callable[[bytearray, Random, Sequence[bytes]], None]


def mutated(seeds: Sequence[bytes], number: int) -> bytes:
    """The mutated file of this number; the same ones always."""
    random = Random(number)
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        random.choice(MUTATIONS)(data, random, seeds)
    return bytes(data)


def flip(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[place(data, random)] ^= 1 << random.randrange(8)


def replace(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[place(data, random)] = random.randrange(256)


def end(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    del data[random.randrange(len(data) + 1) :]


def cut(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    start = place(data, random)
    del data[start : start + random.choice((1, 2, 4, 30, len(data)))]


def repeat(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    start = place(data, random)
    part = data[start : start + random.choice((1, 4, 30, 300))]
    data[start:start] = part * random.choice((1, 2, 50))


def join(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    other = random.choice(seeds)
    data[place(data, random) :] = other[random.randrange(len(other)) :]


def extreme(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    """Where a length, a count or a size may be."""
    size, start = random.choice((1, 2, 4, 8)), place(data, random)
    value = random.choice(EXTREMES) % 2 ** (8 * size)
    data[start : start + size] = value.to_bytes(size, random.choice(("little", "big")))


def number(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    """Of a text."""
    if found := list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", data)):
        start, stop = random.choice(found).span()
        data[start:stop] = random.choice(NUMBERS)


def word(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    if found := list(re.finditer(rb"[A-Za-z_]{2,}", data)):
        start, stop = random.choice(found).span()
        data[start:stop] = random.choice([*WORDS, data[slice(*random.choice(found).span())]])


def magic(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    start = random.choice((0, place(data, random)))
    data[start : start + 4] = random.choice(MAGIC)


def place(data: bytearray, random: Random) -> int:
    """Headers are where the harm is, so half of the time among the first bytes."""
    return random.randrange(min(len(data), random.choice((64, 2**30))) or 1)


MUTATIONS: list[Mutation] = [flip, replace, end, cut, repeat, join, extreme, extreme, number, word, magic]
