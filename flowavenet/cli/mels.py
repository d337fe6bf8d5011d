"""The verb `mel`: tell what mels are, what a vocoder wants, and what is lost on the way; and convert them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowavenet.cli.console import end
from flowavenet.cli.options import Checkpoint, MelConfig, MelConvention, MelHop, MelLog, MelRate

if TYPE_CHECKING:
    from torch import Tensor

    from flowavenet.audio import MelSettings
    from flowavenet.meldetect import Detection, MelSource


def mel(
    inputs: Annotated[list[Path] | None, typer.Argument(help="Mel files, audio files, or folders.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for <stem>.npy, converted.")] = None,
    to: Annotated[str, typer.Option(help="Convention to convert to, by name or YAML. [default: the checkpoint's]")] = "",
    checkpoint: Checkpoint = "",
    convention: MelConvention = None,
    config: MelConfig = None,
    rate: MelRate = None,
    hop: MelHop = None,
    log: MelLog = None,
    level: Annotated[float, typer.Option(help="dB to add to the mels.")] = 0.0,
    reference: Annotated[
        Path | None, typer.Option(help="Recordings of the same voice, or of the same sentences, to compare the level with.")
    ] = None,
    conventions: Annotated[bool, typer.Option("--conventions", help="List those that have names.")] = False,
) -> None:
    """Tell in which convention mels are, and what converting them costs; with -o, convert them. Recordings are analysed."""
    from flowavenet.audio import ABOUT, CONVENTIONS, MEL_SUFFIXES, mel_settings
    from flowavenet.audio.files import AUDIO_SUFFIXES
    from flowavenet.batch import find_files, refuse_overwriting
    from flowavenet.files import Failures, ready_folder
    from flowavenet.meldetect import detect_together
    from flowavenet.vocoder import Vocoder

    if conventions:
        for name, settings in CONVENTIONS.items():
            print(f"{name:20} {brief(settings)}\n{'':20} {ABOUT[name]}")
        return
    if not inputs:
        raise ValueError("no files are named; name mel files, recordings or folders, or ask for --conventions")
    wanted = mel_settings(to) if to else Vocoder.from_pretrained(checkpoint or None).settings
    stated = stated_mel(wanted, convention, config, rate, hop, log)
    files = find_files(inputs, AUDIO_SUFFIXES + MEL_SUFFIXES)
    results = {Path(file.place): out / f"{file.name}.npy" if out else None for file in files}
    if out:
        refuse_overwriting(files, out, ".npy")
        for folder in sorted({out} | {path.parent for path in results.values()}):
            ready_folder(folder)
    failed = Failures()
    for (_, suffix), group in groupby(results, lambda file: (file.parent, file.suffix.lower())):
        beside = list(group)
        together = None if stated or suffix not in MEL_SUFFIXES else detect_together(beside, wanted)
        seen: list[tuple[MelSource, Tensor]] = []
        for file in beside:
            with failed.noted(file):
                if suffix in MEL_SUFFIXES:
                    seen.append(_identify(file, wanted, stated, level, together, results[file]))
                else:
                    _analyse(file, wanted, results[file])
        _compare_levels(seen, reference)
    end(failed.values(), len(files))


def stated_mel(
    wanted: MelSettings, convention: str | None, config: Path | None, rate: int | None, hop: int | None, log: str | None
) -> MelSettings | None:
    """Return what the options say that mels are; None if they say nothing, and it is detected."""
    from flowavenet.audio import mel_settings
    from flowavenet.audio.projectsettings import stated_settings

    named = mel_settings(convention) if convention else None
    return stated_settings(wanted, named, config, rate, hop, log)


def _identify(
    path: Path, wanted: MelSettings, stated: MelSettings | None, level: float, together: Detection | None, out: Path | None
) -> tuple[MelSource, Tensor]:
    """Say what a mel is, and convert it; return its source, and its beginning, arranged."""
    from flowavenet.audio import MelFile, save_mel
    from flowavenet.meldetect import identify
    from flowavenet.meldetect.source import ENOUGH

    file = MelFile(path)
    source = identify(file.beginning(ENOUGH), wanted, stated, level, together)
    frames, settings = file.frames(source.layout), source.settings
    seconds = frames * settings.hop_length / settings.sample_rate
    parts = [source.note or "is what is wanted", f"{frames} frames, {seconds:.2f} s", source.level_note]
    said = "; ".join(filter(None, parts))
    print(f"{path}: {said}")
    detection, conversion = source.detection, source.conversion
    for reason in detection.reasons if detection else ():
        print(f"  {reason}")
    print(f"  taken as {brief(settings)}")
    if conversion:
        print(f"  wanted   {brief(wanted)}")
        exact = "exact" if conversion.exact else f"{conversion.loss_db:.2f} dB lost on the way there and back"
        print(f"  {exact}: {', '.join(conversion.reasons)}")
    mel = file.read(source.layout)
    if out:
        save_mel(out, source(mel))
    return source, mel[..., :ENOUGH]


def _analyse(path: Path, wanted: MelSettings, out: Path | None) -> None:
    """Write the mel of a recording."""
    from flowavenet.audio import MelSpectrogram, load_audio, save_mel

    if out is None:
        raise ValueError(f"{path}: a recording, whose mel would be written; say where, with -o FOLDER")
    spectrogram = MelSpectrogram(wanted)
    mel = spectrogram(spectrogram.normalise(load_audio(path, wanted.sample_rate)))
    print(f"{path}: a recording, analysed into {mel.shape[2]} frames: {brief(wanted)}")
    save_mel(out, mel)


def _compare_levels(seen: Iterable[tuple[MelSource, Tensor]], reference: Path | None) -> None:
    """Say how loud mels of one convention are, all together."""
    from flowavenet.audio import MelSpectrogram, load_audio
    from flowavenet.audio.files import AUDIO_SUFFIXES
    from flowavenet.batch import find_files
    from flowavenet.meldetect import estimate_offset

    by_settings: dict[MelSettings, list[Tensor]] = {}
    for source, mel in seen:
        by_settings.setdefault(source.settings, []).append(mel)
    for settings, mels in by_settings.items():
        others = None
        if reference:
            spectrogram = MelSpectrogram(settings)
            waves = (load_audio(file.place, settings.sample_rate) for file in find_files([reference], AUDIO_SUFFIXES)[:100])
            others = [spectrogram(spectrogram.normalise(wave)) for wave in waves]
        off = estimate_offset(mels, settings, others)
        said = f"{len(mels)} mel{'s' * (len(mels) > 1)}: {abs(off.db):.1f} dB {'above' if off.db > 0 else 'below'}"
        if reference:
            print(f"{said} {reference}, give or take {off.error_db:.1f}; --level {-off.db:.1f} puts that right")
        else:
            print(f"{said} average speech, which means little as recordings differ by {off.error_db:.0f}; see --reference")


def brief(settings: MelSettings) -> str:
    """Return settings in a line."""
    lowest, highest = settings.band_edges
    bands = f"{settings.n_mels} bands of {lowest:g} to {highest:g} Hz"
    return f"{settings.log} of {bands}, {settings.win_length} / hop {settings.hop_length} at {settings.sample_rate} Hz"
