"""Everything in flowavenet that reads files: valid files to begin with, made by the library, and how its verbs read them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .modelfiles import addresses, checkpoint, published, read_address, read_checkpoint, read_published, read_sizes, recipes
from .signalfiles import (
    FLACS,
    OGGS,
    OTHERS,
    WAVS,
    Seeds,
    conventions,
    npy_mels,
    paired,
    read_convention,
    read_mel,
    read_pair,
    read_sound,
    read_statistics,
    safetensors_mels,
    sounds,
    statistics,
    torch_mels,
)
from .trainingfiles import (
    corpus,
    events,
    read_clips,
    read_log,
    read_recipe,
    read_run,
    read_shard,
    read_shards,
    read_sidecar,
    runs,
    shards,
)


class Reader(NamedTuple):
    """One way into the library."""

    file: str
    """What is fuzzed, by its name in a folder."""
    seeds: Callable[[Path], Seeds]
    """Valid contents of it; leaves in the folder what has to lie beside it."""
    read: Callable[[Path], Any]
    """Reads the file as the verbs do, and asserts what must hold of what was read."""
    cost: int = 1
    """Gets so many times fewer inputs than others."""


READERS = {
    "wav": Reader("a.wav", partial(sounds, WAVS), read_sound),
    "flac": Reader("a.flac", partial(sounds, FLACS), read_sound),
    "ogg": Reader("a.ogg", partial(sounds, OGGS), read_sound),
    "mp3": Reader("a.mp3", partial(sounds, [("MP3", "MPEG_LAYER_III")]), read_sound),
    "other sounds": Reader("a.wav", partial(sounds, OTHERS), read_sound),
    "mel npy": Reader("a.npy", npy_mels, read_mel),
    "mel pt": Reader("a.pt", torch_mels, read_mel),
    "mel safetensors": Reader("a.safetensors", safetensors_mels, read_mel),
    "paired mel": Reader("a.npy", paired, read_pair),
    "convention": Reader("mine.yaml", conventions, read_convention),
    "statistics npy": Reader("stats.npy", partial(statistics, ".npy"), read_statistics),
    "statistics h5": Reader("stats.h5", partial(statistics, ".h5"), read_statistics),
    "checkpoint config": Reader("config.yaml", partial(checkpoint, "config.yaml"), read_checkpoint),
    "checkpoint weights": Reader("model.safetensors", partial(checkpoint, "model.safetensors"), read_checkpoint),
    "published pt": Reader("a.pt", partial(published, "pt"), read_published),
    "published safetensors": Reader("a.safetensors", partial(published, "safetensors"), read_published),
    "manifest": Reader("manifest.csv", partial(corpus, "manifest.csv"), read_clips),
    "ljspeech": Reader("metadata.csv", partial(corpus, "metadata.csv"), read_clips),
    "shard index": Reader("shards.json", partial(shards, "shards.json"), read_shards),
    "shard": Reader("train-000000.tar", partial(shards, "train-000000.tar"), read_shard),
    "shard sidecar": Reader("train-000000.json", partial(shards, "train-000000.json"), read_sidecar),
    "event file": Reader("events.out.tfevents.1", events, read_log),
    "run": Reader("last.ckpt", runs, read_run, cost=4),
    "recipe": Reader("a.yaml", recipes, read_recipe),
    "recipe for its sizes": Reader("a.yaml", recipes, read_sizes, cost=4),
    "address": Reader("address", addresses, read_address),
}
