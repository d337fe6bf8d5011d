"""Verbs that judge: how audio compares with recordings, and what making it costs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from flowavenet.cli.console import end, progress_bar


def evaluate(
    reference: Annotated[Path, typer.Argument(help="Folder of recordings.")],
    folders: Annotated[list[Path], typer.Argument(help="Folders of copies with the same file names, one for each system.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for index.html, a page to listen by, and the scores.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that share the work. [default: one per core, for 100 files or more]")
    ] = None,
) -> None:
    """Compare folders of audio with recordings: how near they are, how they differ from each other; a page to listen by."""
    import os

    from flowavenet.evaluation.folders import score_all, utterances
    from flowavenet.evaluation.metrics import hints
    from flowavenet.evaluation.page import Gallery, write_page
    from flowavenet.evaluation.report import Report

    if out and (out.is_file() or out.suffix == ".json"):
        raise ValueError(f"{out}: -o is a folder, for a page and its figures (scores.json); name one")
    pairs = utterances(reference, folders)
    gallery = Gallery(out, pairs) if out else None
    files = sum(pair.files for pair in pairs)
    workers = workers or (min(os.cpu_count() or 1, len(pairs)) if files >= 100 else 1)
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=None)
        rows, failed = score_all(pairs, workers, gallery, lambda done, total: bar.update(task, completed=done, total=total))
    if rows:
        report = Report(rows, failed, hints() + (gallery.hints() if gallery else []))
        print(report.text())
        if gallery:
            report.write(gallery.out)
            print(f"-> {write_page(report, gallery)}")
    end(failed, files)


def benchmark(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Checkpoints; models by name and recipes (YAML), with random weights. [default: shipped]"),
    ] = None,
    device: Annotated[list[str], typer.Option(help="cpu, cuda, cuda:1, mps ... May be several.")] = ("cpu",),
    precision: Annotated[list[str], typer.Option(help="float32 or bfloat16. May be several.")] = ("float32",),
    seconds: Annotated[list[float], typer.Option(help="Of audio to make; more than one with the first batch.")] = (5.0,),
    batch: Annotated[list[int], typer.Option(help="Items at once; more than one with the first length.")] = (1,),
    stream: Annotated[list[int], typer.Option(help="Frames per chunk of a stream. May be several.")] = (32,),
    train: Annotated[list[int] | None, typer.Option(help="Batch size of a training step. May be several. [none]")] = None,
    match: Annotated[int | None, typer.Option(min=0, help="Rounds of mel matching. [default: the checkpoint's]")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs, fewer if they are long; the median counts.")] = 5,
    limit: Annotated[float, typer.Option(help="Seconds of work for one figure; what would take longer is left out.")] = 60.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
    page: Annotated[Path | None, typer.Option("--report", help="Also write a page (.md); .json and .png beside it.")] = None,
) -> None:
    """Measure speed, latency, memory and share of what the machine can do; each case in a process of its own."""
    from flowavenet.benchmark import Report, machine, survey
    from flowavenet.vocoder import DEFAULT

    report = Report(machine(), "flowavenet " + shlex.join(sys.argv[1:]), page, json_file)
    print(report.head())
    for record in survey(names or [DEFAULT], device, precision, seconds, batch, stream, train or [], match, repeats, limit):
        print("\n".join(report.add(record)), flush=True)
    report.write()
