"""Verbs that train: prepare a corpus, fit a model to it, distil a student from that, report how it goes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flowavenet.cli.console import end, progress_bar


def prepare(
    corpus: Annotated[Path, typer.Argument(help="A folder of audio in any layout, LJSpeech, VCTK, or a manifest CSV.")],
    out: Annotated[Path, typer.Argument(help="Folder for the checked FLAC files and manifest.csv, or the shards.")],
    sample_rate: Annotated[int, typer.Option(help="Of the result, Hz.")] = 22050,
    min_seconds: Annotated[float, typer.Option(help="Shorter clips are left out.")] = 0.1,
    valid_fraction: Annotated[float, typer.Option(help="Part for validation, where the corpus does not say.")] = 0.02,
    mels: Annotated[
        Path | None, typer.Option(help="Folder of mels that a front-end predicted for these recordings, named as they are.")
    ] = None,
    mel: Annotated[str, typer.Option(help="With --mels: the vocoder's convention, by name or YAML.")] = "hifigan",
    mels_in: Annotated[
        str | None, typer.Option(help="With --mels: the convention that they are in. [default: the vocoder's]")
    ] = None,
    shards: Annotated[bool, typer.Option("--shards", help="Write tar files to stream from: for a very large one.")] = False,
    shard_mb: Annotated[float, typer.Option(min=0.1, help="With --shards: about how large each is, MB.")] = 200.0,
) -> None:
    """Check a corpus, file by file, and bring it to one format; run again, it goes on where it stopped."""
    from flowavenet.audio import mel_settings
    from flowavenet.data.corpus import MANIFEST, prepare_corpus
    from flowavenet.data.pairs import Pairs
    from flowavenet.data.shards import INDEX, prepare_shards
    from flowavenet.files import once

    pairs = Pairs(mels, mel_settings(mel), mel_settings(mels_in or mel)) if mels else None
    if pairs and pairs.settings.sample_rate != sample_rate:
        raise ValueError(f"--sample-rate is {sample_rate}, that of {mel} {pairs.settings.sample_rate}; make them agree")
    with progress_bar() as bar:
        task = bar.add_task("preparing", total=None)
        report = (partial(prepare_shards, shard_mb=shard_mb) if shards else prepare_corpus)(
            corpus, out, sample_rate, pairs=pairs, min_seconds=min_seconds, valid_fraction=valid_fraction,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for path, reason in report.doubtful:
        print(f"kept, but look at it: {once(path, reason)}")
    if pairs and pairs.given != pairs.settings:
        print(f"mels converted from {mels_in} to {mel}: {pairs.cost()}")
    table = out / (INDEX if shards else MANIFEST)
    print(f"{report.kept} clips, {report.seconds / 3600:.2f} h at {sample_rate} Hz -> {table}")
    end([once(path, reason) for path, reason in report.skipped], report.kept + len(report.skipped))


def fit(context: typer.Context) -> None:
    """Train on a corpus: fit --config recipes/speech_folder/small.yaml --data.corpus FOLDER; --help lists all settings."""
    _train("fit", context.args)


def distil(context: typer.Context) -> None:
    """Train a parallel student from a WaveNet: distil --config RECIPE --model.teacher FOLDER; --help lists all settings."""
    _train("distil", context.args)


def report(
    run: Annotated[Path, typer.Argument(help="A run: the folder --trainer.default_root_dir of fit or distil.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for index.html and report.json. [default: RUN/report]")
    ] = None,
    worth: Annotated[float, typer.Option(help="Nats per sample that the last quarter of a run must have brought.")] = 0.005,
) -> None:
    """Say whether a run should go on or stop, and why; write a page with its curves and its samples over time."""
    from flowavenet.files import ready_folder
    from flowavenet.training.monitor.report import Report
    from flowavenet.training.monitor.runs import read_run

    if not worth > 0:
        raise ValueError(f"--worth is {worth:g}, must be more than 0 nats")
    found, out = Report(read_run(run), worth), out or run / "report"
    text = found.text()                                                # which is where a run of something else is refused
    ready_folder(out)
    print(f"{text}\n-> {found.write(out)}")


def _train(verb: str, arguments: list[str]) -> None:
    try:
        from flowavenet.training import fit
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"training needs {error.name}: pip install 'flowavenet[train]'") from None
    getattr(fit, verb)(arguments)
