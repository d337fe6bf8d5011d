"""The verb `tune`: find out at which temperature a checkpoint sounds best."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from flowavenet.cli.console import progress_bar
from flowavenet.cli.options import Checkpoint, Device, Speaker

TEMPERATURES = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def tune(
    inputs: Annotated[list[Path], typer.Argument(help="Recordings, folders, prepared corpora (their valid part).")],
    checkpoint: Checkpoint = "",
    temperature: Annotated[list[float], typer.Option(help="A candidate; give it several times.")] = TEMPERATURES,
    match: Annotated[int | None, typer.Option(min=0, help="Rounds of mel matching. [default: the checkpoint's]")] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many recordings at most, spread evenly.")] = 12,
    write: Annotated[bool, typer.Option(help="Keep the choice in the checkpoint folder.")] = False,
    speaker: Speaker = None,
    device: Device = "cpu",
) -> None:
    """Choose a checkpoint's temperature by how recordings that it was not trained on come out."""
    from flowavenet.audio import load_audio
    from flowavenet.checkpoint import update_facts
    from flowavenet.evaluation.tuning import table, temperatures
    from flowavenet.hub import find_checkpoint, is_remote
    from flowavenet.vocoder import DEFAULT, Vocoder

    if write and is_remote(checkpoint):
        raise ValueError(f"{checkpoint}: a choice is kept in a folder; make one: hf download user/name --local-dir FOLDER")
    files = _valid_files(inputs)
    files = files[:: -(-len(files) // limit)]
    vocoder = Vocoder.from_pretrained(checkpoint or None, device)
    voice = vocoder.voice(speaker)
    waves = [vocoder.spectrogram.normalise(load_audio(file, vocoder.sample_rate)) for file in files]
    match = vocoder.synthesis["match"] if match is None else match
    with progress_bar() as bar:
        task = bar.add_task("tuning", total=None)
        rows = temperatures(
            vocoder, waves, temperature, match, lambda done, total: bar.update(task, completed=done, total=total), voice
        )
    print(f"# means over {len(files)} recordings, {match} rounds of matching")
    print(table(rows))
    best = min(rows, key=lambda row: row["rank"])["temperature"]
    print(f"best: temperature {best:g}")
    if write:
        folder = find_checkpoint(checkpoint or DEFAULT)
        update_facts(folder, {"synthesis": {"temperature": best, "match": match}})
        print(f"-> {folder}")


def _valid_files(inputs: Iterable[Path]) -> list[Path]:
    """Find the recordings that are named or lie in folders; of a manifest, or a folder with one, those of its valid part."""
    from flowavenet.audio.files import AUDIO_SUFFIXES
    from flowavenet.batch import find_files
    from flowavenet.data.corpus import read_corpus

    files: list[Path] = []
    for path in inputs:
        if path.suffix == ".csv" or (path / "manifest.csv").is_file():
            files += [clip.path for clip in read_corpus(path) if clip.split == "valid"]
        else:
            files += [Path(file.place) for file in find_files([path], AUDIO_SUFFIXES)]
    return files
