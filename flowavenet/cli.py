"""The command line: one function per verb. Imports happen inside the verbs, so that ``--help`` is instant."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from flowavenet.batch import end, find_files, for_each, once, one_line, progress_bar, unique_stems

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Exact-likelihood flow vocoders: mel spectrogram in, waveform out, in one parallel pass; and back.",
)

Checkpoint = Annotated[str, typer.Option(help="A shipped checkpoint by name, or a checkpoint folder. [default: shipped]")]
Precision = Annotated[str, typer.Option(help="Of the nets: float32 or bfloat16.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Speaker = Annotated[str | None, typer.Option(help="Whose voice, by name, if the checkpoint tells voices apart.")]

TEMPERATURES = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@app.command()
def vocode(
    inputs: Annotated[list[Path], typer.Argument(help="Mel files (.npy .pt .safetensors), audio files, or folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for <stem>.wav; made if missing.")],
    checkpoint: Checkpoint = "",
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="Standard deviation of the noise. [default: the checkpoint's]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise; the same seed gives the same samples.")] = 0,
    match: Annotated[
        int | None, typer.Option(min=0, help="Rounds that bring the sample to exactly this mel; 0: none. [the checkpoint's]")
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
    device: Device = "cpu",
) -> None:
    """Make audio from mel spectrograms; from audio, copy synthesis: analyse it and make it anew."""
    from flowavenet.audio import MEL_SUFFIXES
    from flowavenet.vocoder import Vocoder
    from flowavenet.vocoding import Vocoding

    files = unique_stems(find_files(inputs, MEL_SUFFIXES))
    vocoder = Vocoder.from_pretrained(checkpoint or None, device, precision)
    voice = vocoder.voice(speaker)
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar() as bar:
        task = bar.add_task("vocoding", total=None)
        work = Vocoding(
            vocoder, out, batch or (4 if vocoder.device.type == "cpu" else 16), picture, seed,
            lambda done, total: bar.update(task, completed=done, total=total),
            temperature=temperature, match=match, denoise=denoise, speaker=voice,
        )
        work.run(files)
    failed = [work.failed[file] for file in files if file in work.failed]
    if work.made:
        seconds = work.made * vocoder.settings.hop_length / vocoder.sample_rate
        speed = f"{seconds:.1f} s of audio in {work.spent:.1f} s: RTF {work.spent / seconds:.3f} ({device})"
        print(f"{len(files) - len(failed)} files, {speed} -> {out}")
    end(failed, len(files))


# verbs whose words Lightning's own parser reads
TRAINING = {"add_help_option": False, "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}}


@app.command(**TRAINING)
def fit(context: typer.Context) -> None:
    """Train on a corpus: fit --config recipes/speech_folder/small.yaml --data.corpus FOLDER; --help lists all settings."""
    _train("fit", context.args)


@app.command(**TRAINING)
def distil(context: typer.Context) -> None:
    """Train a parallel student from a WaveNet: distil --config RECIPE --model.teacher FOLDER; --help lists all settings."""
    _train("distil", context.args)


def _train(verb: str, arguments: list[str]) -> None:
    try:
        from flowavenet.training import fit
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"training needs {error.name}: pip install 'flowavenet[train]'") from None
    getattr(fit, verb)(arguments)


@app.command()
def prepare(
    corpus: Annotated[Path, typer.Argument(help="A folder of audio in any layout, LJSpeech, VCTK, or a manifest CSV.")],
    out: Annotated[Path, typer.Argument(help="Folder for the checked FLAC files and manifest.csv.")],
    sample_rate: Annotated[int, typer.Option(help="Of the result, Hz.")] = 22050,
    min_seconds: Annotated[float, typer.Option(help="Shorter clips are left out.")] = 0.1,
    valid_fraction: Annotated[float, typer.Option(help="Part for validation, where the corpus does not say.")] = 0.02,
) -> None:
    """Check a corpus, file by file, and bring it to one format; run again, it goes on where it stopped."""
    from flowavenet.training.corpus import prepare_corpus

    with progress_bar() as bar:
        task = bar.add_task("preparing", total=None)
        report = prepare_corpus(
            corpus, out, sample_rate, min_seconds=min_seconds, valid_fraction=valid_fraction,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for path, reason in report.doubtful:
        print(f"kept, but look at it: {once(path, reason)}")
    print(f"{report.kept} clips, {report.seconds / 3600:.2f} h at {sample_rate} Hz -> {out}/manifest.csv")
    end([once(path, reason) for path, reason in report.skipped], report.kept + len(report.skipped))


@app.command()
def score(
    inputs: Annotated[list[Path], typer.Argument(help="Audio files or folders.")],
    checkpoint: Checkpoint = "",
    dequantisation: Annotated[float, typer.Option(help="Width of the uniform noise added to samples; 0: none.")] = 2**-15,
    seed: Annotated[int, typer.Option(help="Of that noise.")] = 0,
    speaker: Speaker = None,
    device: Device = "cpu",
) -> None:
    """Log-likelihood of recordings given their own mels, in nats and bits per sample."""
    import torch

    from flowavenet.audio import load_audio
    from flowavenet.losses import bits_per_sample, dequantise
    from flowavenet.vocoder import Vocoder

    if dequantisation < 0:
        raise ValueError(f"--dequantisation is {dequantisation}; the width of a noise is at least 0")
    files = find_files(inputs)
    vocoder = Vocoder.from_pretrained(checkpoint or None, device)
    voice = vocoder.voice(speaker)
    level = "as recorded" if vocoder.settings.peak is None else f"peak {vocoder.settings.peak}"
    print(f"# {vocoder.sample_rate} Hz, level {level}, uniform dequantisation of width {dequantisation:.6g}")
    print("nats/sample  bits/sample  seconds  file")

    def one(file: Path) -> None:
        wave = vocoder.normalise(load_audio(file, vocoder.sample_rate))
        noise = torch.Generator().manual_seed(seed)
        nats = vocoder.log_prob(dequantise(wave, dequantisation, noise), vocoder.mel(wave), voice).item() / wave.shape[1]
        bits = f"{bits_per_sample(nats, dequantisation):11.4f}" if dequantisation else f"{'-':>11}"
        print(f"{nats:11.4f}  {bits}  {wave.shape[1] / vocoder.sample_rate:7.2f}  {file}", flush=True)

    end(for_each(files, one), len(files))


@app.command()
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


@app.command()
def evaluate(
    reference: Annotated[Path, typer.Argument(help="Folder of recordings.")],
    folders: Annotated[list[Path], typer.Argument(help="Folders of vocoded audio with the same file names.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write all figures to this JSON file.")] = None,
) -> None:
    """Compare vocoded folders with recordings: PESQ, STOI, spectral and mel distances; medians per folder."""
    import json

    from flowavenet.audio import write_atomically
    from flowavenet.evaluation.folders import evaluate_folders, summary, table

    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=None)
        rows = evaluate_folders(
            reference, folders, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    medians = summary(rows)
    print(table(medians))
    if out:
        with write_atomically(out) as temporary:
            temporary.write_text(json.dumps({"summary": medians, "files": rows}, indent=2, default=str) + "\n")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    checkpoint: Checkpoint = "",
) -> None:
    """Write a checkpoint's whole inverse to ONNX: noise and mel in, waveform out, any batch and length."""
    from flowavenet.vocoder import Vocoder

    try:
        import onnxscript  # noqa: F401 - without it torch fails late
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"export needs {error.name or 'onnxscript'}: pip install 'flowavenet[export]'") from None
    from flowavenet.export import export_program, save_onnx

    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: no such folder; create it first")
    vocoder = Vocoder.from_pretrained(checkpoint or None)
    save_onnx(export_program(vocoder), out)
    grid, hop = vocoder.model.frame_grid, vocoder.settings.hop_length
    shapes = f"noise (batch, frames * {hop}), mel (batch, {vocoder.settings.n_mels}, frames), frames a multiple of {grid}"
    voices = f", speaker (batch,): {', '.join(vocoder.speakers)}" if vocoder.speakers else ""
    print(f"{shapes}{voices} -> {out}")


@app.command()
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
    from flowavenet.vocoder import DEFAULT, Vocoder, find_checkpoint

    files = _valid_files(inputs)
    files = files[:: -(-len(files) // limit)]
    vocoder = Vocoder.from_pretrained(checkpoint or None, device)
    voice = vocoder.voice(speaker)
    waves = [vocoder.normalise(load_audio(file, vocoder.sample_rate)) for file in files]
    match = vocoder.rounds(match)
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
    """As :func:`find_files`; but of a manifest, or a folder with one, the clips of its valid part."""
    from flowavenet.training.corpus import read_corpus

    files: list[Path] = []
    for path in inputs:
        if path.suffix == ".csv" or (path / "manifest.csv").is_file():
            files += [clip.path for clip in read_corpus(path) if clip.split == "valid"]
        else:
            files += find_files([path])
    return files


def main() -> None:
    """Entry point: errors that a user can cure are one line and exit code 2."""
    # Threads of torch that wait for each other go on turning for milliseconds by default: on a machine whose cores are busy
    # with something else as well, that makes synthesis a hundred times slower instead of ten.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
