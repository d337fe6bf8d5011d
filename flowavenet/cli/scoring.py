"""The verb that says how likely recordings are, frame by frame, and which of a folder stand out."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowavenet.cli.console import end, progress_bar
from flowavenet.cli.mels import brief
from flowavenet.cli.options import Checkpoint, Device, Speaker

if TYPE_CHECKING:
    from flowavenet.audio import MelSettings
    from flowavenet.evaluation.outliers import Measured, Standing
    from flowavenet.evaluation.scoring import Likelihood

Row = dict[str, Any]
HEAD = "nats/sample  bits/sample  seconds  file"


def score(
    inputs: Annotated[list[Path], typer.Argument(help="Audio files or folders.")],
    checkpoint: Checkpoint = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for <stem>.csv, each frame's nats, and <stem>.png, a picture.")
    ] = None,
    rank: Annotated[bool, typer.Option("--rank", help="The files that stand out first, and in what.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
    dequantisation: Annotated[float, typer.Option(help="Width of the uniform noise added to samples; 0: none.")] = 2**-15,
    seed: Annotated[int, typer.Option(help="Of that noise.")] = 0,
    speaker: Speaker = None,
    device: Device = "cpu",
) -> None:
    """Log-likelihood of recordings given their own mels, in nats and bits per sample; with --rank, find bad recordings."""
    from flowavenet.audio import load_audio
    from flowavenet.audio.files import AUDIO_SUFFIXES
    from flowavenet.batch import find_files
    from flowavenet.evaluation import outliers, scoring
    from flowavenet.files import Failures, ready_folder
    from flowavenet.vocoder import DEFAULT, Vocoder

    if dequantisation < 0:
        raise ValueError(f"--dequantisation is {dequantisation}; the width of a noise is at least 0")
    files = find_files(inputs, AUDIO_SUFFIXES)
    for folder in sorted({out} | {(out / file.name).parent for file in files}) if out else ():
        ready_folder(folder)
    vocoder = Vocoder.from_pretrained(checkpoint or None, device)
    voice, settings, name = vocoder.voice(speaker), vocoder.settings, checkpoint or DEFAULT
    level = "as recorded" if settings.peak is None else f"peak {settings.peak}"
    print(f"# {name}: level {level}, uniform dequantisation of width {dequantisation:.6g}, mel {brief(settings)}")
    if not rank:
        print(HEAD)
    rows: list[Row] = []
    measured: list[Measured] = []
    failed = Failures()
    with progress_bar() as bar:
        for file in bar.track(files, description="scoring") if rank else files:
            with failed.noted(file):
                wave = load_audio(file.place, vocoder.sample_rate)
                likelihood = scoring.score(vocoder, vocoder.spectrogram.normalise(wave), dequantisation, seed, voice)
                if out:
                    _write(out / file.name, likelihood, settings)
                rows.append({"file": str(file)} | likelihood.summary())
                if rank:
                    measured.append(outliers.measure(wave[0], vocoder.sample_rate, likelihood.surprise_db))
                else:
                    print(_line(rows[-1]), flush=True)
    if rank and rows:
        rows = _ranked(rows, outliers.rank(measured))
    if json_file:
        given = {"checkpoint": name, "level": level, "dequantisation": dequantisation, "mel": asdict(settings)}
        _write_json(json_file, given | {"files": rows, "failed": list(failed.values())})
    end(failed.values(), len(files))


def _ranked(rows: list[Row], standings: list[Standing]) -> list[Row]:
    """Say which files stand out, and in what; their rows, with all that was measured, in that order."""
    print("# deviation: from the median of these files, in robust standard deviations (1.48 median absolute deviations)")
    print(f"deviation  {HEAD}: what is unusual")
    ranked = []
    for row, standing in sorted(zip(rows, standings, strict=True), key=lambda pair: -pair[1].deviation):
        print(f"{standing.deviation:9.1f}  {_line(row)}{': ' * bool(standing.reasons)}{', '.join(standing.reasons)}")
        values = {name: None if math.isnan(value) else value for name, value in standing.values.items()}
        ranked.append(row | {"deviation": standing.deviation, "reasons": standing.reasons, "measured": values})
    return ranked


def _line(row: Row) -> str:
    nats, bits = _figure(row["nats_per_sample"]), _figure(row["bits_per_sample"])
    return f"{nats:>11}  {bits:>11}  {row['seconds']:7.2f}  {row['file']}"


def _figure(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.4f}" if abs(number) < 1e5 else f"{number:.3g}"


def _write(stem: Path, likelihood: Likelihood, settings: MelSettings) -> None:
    """A recording's likelihood over time, as a table and as a picture."""
    from flowavenet.evaluation.scoring import SHOWN
    from flowavenet.plots import save_curve_over

    each, seconds = likelihood.per_sample()
    likelihood.write(stem.with_name(f"{stem.name}.csv"))
    title = f"{stem.name}: {_figure(likelihood.nats_per_sample)} nats per sample"
    curve = "nats per sample", seconds, each.clamp(-SHOWN, SHOWN)
    save_curve_over(stem.with_name(f"{stem.name}.png"), title, likelihood.mel, settings, curve)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    from flowavenet.files import write_atomically

    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
