"""A page to watch a training run by: what to do with it, its curves, what it sounds like over time; one file."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
import soundfile
import torch

from flowavenet.evaluation.advice import RECENT, Curve
from flowavenet.evaluation.forecasts import Z95
from flowavenet.evaluation.pages import fill, spectrogram_levels, table
from flowavenet.evaluation.progress import GAUSSIAN, Progress, smooth
from flowavenet.evaluation.report import number
from flowavenet.files import write_atomically
from flowavenet.plots import Line, image_png, panel_svg

POINTS = 2000
"""Of a curve that are drawn, at most."""
TAKES = 7
"""Times in the run at which a clip is heard, at most."""
RANGE_DB = 90.0


def write_training_page(progress: Progress, out: Path) -> Path:
    """Write ``index.html`` into a folder, which holds curves, sounds and pictures itself: its path."""
    advice = progress.advice
    clips = "\n".join(_clips(progress))
    kind = advice.verdict.replace(" ", "-")
    parts = {
        "TITLE": escape(progress.run.folder.resolve().name),
        "ADVICE": f'<p class="advice {kind}"><b>{escape(advice.verdict)}</b> {escape(advice.text)}</p>',
        "FACTS": _pairs("The run", progress.facts),
        "EVIDENCE": _pairs("The evidence, nats", progress.evidence(), METHOD if "gain" in advice.evidence else ""),
        "CURVES": "".join(f"<figure>{svg}</figure>" for svg in _panels(progress)),
        "NOISE": _noise(progress),
        "LISTEN": LISTEN if clips else "",
        "CLIPS": clips,
    }
    with write_atomically(out / "index.html") as temporary:
        temporary.write_text(fill("training.html", parts), encoding="utf-8")
    return out / "index.html"


METHOD = (
    "The forecast is of a power law through the validations of the last three quarters of the run. Its interval, 95 %, "
    "holds the error of the fit, and the one by which its first two thirds fail to foretell the last."
)
LISTEN = (
    '<h2>Listen</h2><p>The same clips from the same noise, at steps of the run.</p><div class="tools">'
    "<span><kbd>0</kbd> … <kbd>9</kbd> switch, at the same moment</span> <span><kbd>space</kbd> play, pause</span>"
    "<span><kbd>↑</kbd> <kbd>↓</kbd> clip</span></div>"
)


def _panels(progress: Progress) -> Iterator[str]:
    """The curves that there are, as SVG."""
    run, valid, evidence = progress.run, progress.of("valid"), progress.advice.evidence
    lines = [*_raw_and_smooth("training crops", progress.of("train")), _points("validation", valid)]
    yield panel_svg(progress.unit, lines)
    if len(valid.steps) > 2:
        recent = valid.since(RECENT * valid.steps[-1])
        lines = [_points("validation", recent)]
        if "gain" in evidence:
            then, sign = recent.steps[-1] + evidence["steps_ahead"], -1 if progress.goal == "kl" else 1
            ends = [recent.values[-1], recent.values[-1] + sign * evidence["gain"]]
            lines.append(Line("forecast", [recent.steps[-1], then], ends))
            lines.append(Line("", [then], ends[1:], "points", [Z95 * evidence["gain_error"]]))
        yield panel_svg("validation lately, and to come", lines)
    if np.isfinite(progress.gap.values).any():
        yield panel_svg("training less validation, nats", [_line("gap", progress.gap)])
    if len(progress.rate.steps):
        yield panel_svg("learning rate", [_line("rate", progress.rate)])
    norm, speed = run.curve("train/gradient_norm"), run.curve("speed/audio_seconds_per_second")
    if np.isfinite(norm.values).any():
        yield panel_svg("gradient norm", _raw_and_smooth("", norm), log=True)
    if len(speed.steps):
        yield panel_svg("seconds of audio trained per second", _raw_and_smooth("", speed))
    for title, *prefixes in (
        ("log-det of each block, nats per sample", "flow/log_det/", "log_det_per_sample/"),
        ("noise: variance, Gaussian 1", "flow/noise_variance/"),
        ("noise: kurtosis, Gaussian 3", "flow/noise_kurtosis/"),
        ("log-scales of couplings: mean", "flow/log_scale_mean/coupling"),
        ("log-scales of couplings: spread", "flow/log_scale_spread/coupling"),
        ("log-scales of ActNorm: mean", "flow/log_scale_mean/actnorm"),
    ):
        curves = {name: curve for prefix in prefixes for name, curve in run.under(prefix).items()}
        if curves:
            yield panel_svg(title, [_line(name, curve) for name, curve in curves.items()])


def _line(label: str, curve: Curve, kind: str = "line") -> Line:
    every = -(-len(curve.steps) // POINTS) or 1
    return Line(label, curve.steps[::every], curve.values[::every], kind)


def _points(label: str, curve: Curve) -> Line:
    return _line(label, curve, "points")


def _raw_and_smooth(label: str, curve: Curve) -> list[Line]:
    return [_line("", curve, "faint"), _line(label, smooth(curve))]


def _clips(progress: Progress) -> Iterator[str]:
    """A section for each clip: the recording, and what was rendered at some steps, evenly in the logarithm of the step."""
    sounds = progress.run.sounds
    for clip in sorted({tag.partition("/")[0] for tag in sounds if tag.endswith("/vocoded")}):
        steps, recorded = sorted(sounds[f"{clip}/vocoded"]), sounds.get(f"{clip}/recorded", {})
        places = np.geomspace(1, len(steps), min(len(steps), TAKES)).round().astype(int) - 1
        takes = {f"step {steps[place]:,}": sounds[f"{clip}/vocoded"][steps[place]] for place in dict.fromkeys(places)}
        if recorded:
            takes = {"recording": recorded[max(recorded)]} | takes
        waves = {name: _wave(wav) for name, wav in takes.items()}
        samples = max(map(len, waves.values()))
        levels = {name: spectrogram_levels(wave, samples) for name, wave in waves.items()}
        loudest = max(float(level.max()) for level in levels.values())
        yield f"<section><h3>{escape(clip)}</h3>" + "".join(
            f'<div class="take"><button type="button"><kbd>{key}</kbd>{escape(name)}</button>'
            f'<div class="line"><img src="{_data("image/png", image_png(levels[name], loudest - RANGE_DB, loudest))}" '
            f'alt="spectrogram"><i></i></div><p></p>'
            f'<audio src="{_data("audio/wav", wav)}" preload="none" controls></audio></div>'
            for key, (name, wav) in enumerate(takes.items())
        ) + "</section>"


def _wave(wav: bytes) -> torch.Tensor:
    wave, _ = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
    return torch.from_numpy(wave[:, 0])


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _pairs(title: str, pairs: dict[str, str], remark: str = "") -> str:
    lines = [(name, "", [f"<td>{escape(value)}</td>"]) for name, value in pairs.items()]
    return f"<div><h3>{title}</h3>{table([], lines)}<p>{remark}</p></div>" if pairs else ""


def _noise(progress: Progress) -> str:
    """How Gaussian the noise is."""
    if not progress.noise:
        return ""
    lines = [
        (scale, "", [f"<td>{number(value, 3)}</td>" for value in figures.values()])
        for scale, figures in progress.noise.items()
    ]
    heads = [f"{name} (Gaussian: {value:g})" for name, value in GAUSSIAN.items()]
    return (
        "<h2>The noise</h2><p>Of validation crops, by where it leaves the flow, at the last validation. What is more peaked "
        f"than a Gaussian, or has another variance, the likelihood has yet to gain.</p>{table(heads, lines)}"
    )
