"""Which grammar is for which reader; and the files that are drawn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

from hypothesis import HealthCheck, Phase, given, seed, settings

from .packed import archives, contents, pickled, records, weights
from .signals import arrays, groups, headers, waves
from .wording import tables, texts, words


def structured(name: str, seeds: Sequence[bytes], first: int, count: int) -> Iterator[bytes]:
    """So many files for a reader, from this number on; the same ones always."""
    drawn: list[bytes] = []

    @seed(first)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(GRAMMARS[name](seeds))
    def draw(data: bytes) -> None:
        drawn.append(data)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draw()
    while len(drawn) < count:  # of a small grammar, all that there are
        drawn += drawn[: count - len(drawn)]
    return iter(drawn[:count])


GRAMMARS = {
    "wav": waves,
    "flac": headers,
    "ogg": headers,
    "mp3": headers,
    "other sounds": headers,
    "mel npy": arrays,
    "mel pt": pickled,
    "mel safetensors": weights,
    "paired mel": arrays,
    "convention": texts,
    "statistics npy": arrays,
    "statistics h5": groups,
    "checkpoint config": texts,
    "checkpoint weights": weights,
    "published pt": lambda seeds: contents(seeds) | contents(seeds) | pickled(seeds),
    "published safetensors": weights,
    "manifest": tables,
    "ljspeech": tables,
    "shard index": texts,
    "shard": archives,
    "shard sidecar": texts,
    "event file": records,
    "run": contents,
    "recipe": texts,
    "recipe for its sizes": texts,
    "address": words,
}
