"""The verb `vocode`: make audio of mels and recordings."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flowavenet.cli.console import end, progress_bar
from flowavenet.cli.options import Checkpoint, Device, MelConfig, MelConvention, MelHop, MelLog, MelRate, Precision, Speaker

if TYPE_CHECKING:
    from flowavenet.batch import File, Report

ENGINES = ["plain", "ray"]


def vocode(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Mel files (.npy .pt .safetensors), audio files, or folders; by path or address (s3://...)."),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder for <stem>.wav, sub-folders kept; made if missing; or its address.")
    ],
    checkpoint: Checkpoint = "",
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="Standard deviation of the noise. [default: the checkpoint's]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise; the same seed gives the same samples.")] = 0,
    match: Annotated[
        int | None, typer.Option(min=0, help="Rounds of mel matching; 0: none. [default: the checkpoint's]")
    ] = None,
    denoise: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How much of the model's hum in silence to take out.")
    ] = 0.0,
    precision: Precision = "float32",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Files of one length at once, at most. [default: 4 on a CPU, else 16]")
    ] = None,
    picture: Annotated[bool, typer.Option(help="Also write <stem>.png: the mel asked for, and that of the result.")] = False,
    speaker: Speaker = None,
    convention: MelConvention = None,
    config: MelConfig = None,
    rate: MelRate = None,
    hop: MelHop = None,
    log: MelLog = None,
    level: Annotated[float, typer.Option(help="dB to add to mels, as `flowavenet mel` finds it missing.")] = 0.0,
    device: Device = "cpu",
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave results that are there, and newer than their files: go on.")
    ] = False,
    engine: Annotated[str, typer.Option(help="plain: this process; ray: several, on this machine's processors.")] = "plain",
    actors: Annotated[
        int | None, typer.Option(min=1, help="Processes of engine ray. [default: one per processor]")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say all that was found out of each mel.")] = False,
) -> None:
    """Make audio from mel spectrograms; from audio, copy synthesis: analyse it and make it anew."""
    if engine not in ENGINES:
        raise ValueError(f"--engine is {engine}; use one of {', '.join(ENGINES)}")
    if actors and engine != "ray":
        raise ValueError(f"--actors {actors} is for --engine ray, not {engine}; add that, or leave the actors out")
    if engine == "ray" and device != "cpu":
        raise ValueError(f"--engine ray shares out processors, not {device}; leave the engine out")
    if out.startswith(("http://", "https://")):
        raise ValueError(f"{out}: it can be read, but not be written to; give a folder, or an address as s3://bucket/folder")
    from flowavenet.audio import MEL_SUFFIXES
    from flowavenet.audio.files import AUDIO_SUFFIXES
    from flowavenet.batch import Job, find_files, refuse_overwriting, vocode_files
    from flowavenet.cli.mels import stated_mel
    from flowavenet.vocoder import Vocoder

    files = find_files(inputs, AUDIO_SUFFIXES + MEL_SUFFIXES)
    refuse_overwriting(files, out, ".wav")
    vocoder, workers = Vocoder.from_pretrained(checkpoint or None, device, precision), None
    stated = stated_mel(vocoder.settings, convention, config, rate, hop, log)
    if engine == "ray":
        from flowavenet.batch.ray import RayEngine

        workers = RayEngine(checkpoint or None, precision, actors)
    how = {"temperature": temperature, "match": match, "denoise": denoise, "speaker": speaker}
    job = Job(out, batch or (4 if vocoder.device.type == "cpu" else 16), picture, seed, stated, level, how)
    with progress_bar() as bar:
        task = bar.add_task("vocoding", total=None)
        report = vocode_files(
            files, vocoder, job, skip_existing, workers,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    _print_notes(report, verbose)
    if report.skipped:
        print(f"{_files(report.skipped)} there already, in {out}")
    if report.frames:
        seconds = report.frames * vocoder.settings.hop_length / vocoder.sample_rate
        speed = f"{seconds:.1f} s of audio in {report.seconds:.1f} s: RTF {report.seconds / seconds:.3f} ({device})"
        print(f"{_files(len(files) - len(report.failed) - report.skipped)}, {speed} -> {out}")
    end([report.failed[file] for file in files if file in report.failed], len(files))


def _print_notes(report: Report, verbose: bool) -> None:
    """Say what a user should know of files, in a line; those whose notes differ in nothing but numbers share it.

    If verbose, each file has its line, with all that was found out of its mel.
    """
    alike: dict[str, list[File]] = {}
    for file in report.notes | report.details if verbose else report.notes:
        if file not in report.failed:
            alike.setdefault(str(file) if verbose else re.sub(r"[\d.]+", "", report.notes[file]), []).append(file)
    for first, *more in alike.values():
        also = f" (and {len(more)} more)" if more else ""
        said = [report.notes.get(first), report.details.get(first) if verbose else ""]
        print(f"note: {first}{also}: {'; '.join(filter(None, said))}", file=sys.stderr)


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"
