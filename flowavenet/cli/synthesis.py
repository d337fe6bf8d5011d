"""Verbs that make audio: vocode, and tune, which finds out how it comes out best."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from flowavenet.batch import end, find_files, progress_bar, say, spare, unique_stems
from flowavenet.cli.options import Checkpoint, Device, MelConfig, MelConvention, MelHop, MelLog, MelRate, Precision, Speaker

ENGINES = ["plain", "ray"]
TEMPERATURES = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def vocode(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Mel files (.npy .pt .safetensors), audio files, or folders; by path or address (s3://...)."),
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for <stem>.wav; made if missing; or its address.")],
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
) -> None:
    """Make audio from mel spectrograms; from audio, copy synthesis: analyse it and make it anew."""
    from flowavenet.audio import MEL_SUFFIXES
    from flowavenet.audio.files import AUDIO_SUFFIXES
    from flowavenet.cli.mels import stated_mel
    from flowavenet.files import ready_folder
    from flowavenet.remote import check_results, find_remote, is_url
    from flowavenet.remotevocoding import RemoteVocoding
    from flowavenet.vocoder import Vocoder
    from flowavenet.vocoding import Vocoding

    if engine not in ENGINES:
        raise ValueError(f"--engine is {engine}; use one of {', '.join(ENGINES)}")
    if actors and engine != "ray":
        raise ValueError(f"--actors {actors} is for --engine ray, not {engine}; add that, or leave the actors out")
    remote = any(is_url(place) for place in [*inputs, out])
    if remote:
        files = find_remote(inputs, AUDIO_SUFFIXES + MEL_SUFFIXES)
        check_results(out, files, ".wav")
    else:
        files = find_files(map(Path, inputs), MEL_SUFFIXES)
        spare(files, Path(out), ".wav")
    unique_stems(files)
    vocoder = Vocoder.from_pretrained(checkpoint or None, device, precision)
    voice = vocoder.voice(speaker)
    stated = stated_mel(vocoder.settings, convention, config, rate, hop, log)
    if not remote:
        ready_folder(out)
    with progress_bar() as bar:
        task = bar.add_task("vocoding", total=None)
        work = (RemoteVocoding if remote else Vocoding)(
            vocoder, out if remote else Path(out), batch or (4 if vocoder.device.type == "cpu" else 16), picture, seed,
            lambda done, total: bar.update(task, completed=done, total=total), stated, level, skip_existing,
            temperature=temperature, match=match, denoise=denoise, speaker=voice,
        )
        if engine == "ray":
            from flowavenet.rayvocoding import RayVocoding

            RayVocoding(work, checkpoint or None, precision, actors).run(files)
        else:
            work.run(files)
    say({file: note for file, note in work.notes.items() if file not in work.failed})
    failed = [work.failed[file] for file in files if file in work.failed]
    if work.skipped:
        print(f"{work.skipped} files were there already, in {out}")
    if work.made:
        seconds = work.made * vocoder.settings.hop_length / vocoder.sample_rate
        speed = f"{seconds:.1f} s of audio in {work.spent:.1f} s: RTF {work.spent / seconds:.3f} ({device})"
        print(f"{len(files) - len(failed) - work.skipped} files, {speed} -> {out}")
    end(failed, len(files))


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
    """As :func:`find_files`; but of a manifest, or a folder with one, the clips of its valid part."""
    from flowavenet.data.corpus import read_corpus

    files: list[Path] = []
    for path in inputs:
        if path.suffix == ".csv" or (path / "manifest.csv").is_file():
            files += [clip.path for clip in read_corpus(path) if clip.split == "valid"]
        else:
            files += find_files([path])
    return files
