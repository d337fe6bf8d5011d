"""A page to listen by: every recording beside its copies, spectrograms, figures; in a folder that needs no server."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from torch import Tensor

from flowavenet.audio import save_audio
from flowavenet.evaluation.alignment import POLICY
from flowavenet.evaluation.folders import Utterance
from flowavenet.evaluation.medians import Median
from flowavenet.evaluation.metrics import METRICS, Metric
from flowavenet.evaluation.pages import fill, spectrogram_levels, table
from flowavenet.evaluation.report import FACTS, Report, number, span
from flowavenet.files import ready_folder, write_atomically
from flowavenet.plots import save_image

RECORDING = "recording"
BRIEF = ("mr_stft_log_magnitude", "pesq_wb", "hnr_db", "dnsmos")
"""Metrics that stand beside a spectrogram."""
RANGE_DB = 90.0
ARROWS = {"low": "↓", "high": "↑", "0": "→ 0"}


class Gallery:
    """A folder of audio and pictures: ``audio/<n>-<system>/<name>.flac``, ``spectrograms/<n>-<system>/<name>.png``.

    What is kept is what was scored: aligned, level matched, at the recording's rate, in 16 bits.

    Args:
        out: the folder, made if missing.
        pairs: what there is to keep.
    """

    def __init__(self, out: Path, pairs: Sequence[Utterance]):
        self.out, self.pairs = out, pairs
        ready_folder(out)
        self.pictures = find_spec("matplotlib") is not None
        systems = [None, *pairs[0].copies]
        self.folders = {system: f"{i}-{_safe(system or RECORDING)}" for i, system in enumerate(systems)}
        for kind in ("audio", "spectrograms")[: 1 + self.pictures]:
            for folder in self.folders.values():
                (out / kind / folder).mkdir(parents=True, exist_ok=True)

    def hints(self) -> list[str]:
        """What to install for pictures, if there are none."""
        missing = "no spectrograms, as matplotlib is not installed; pip install 'flowavenet[evaluate]'"
        return [] if self.pictures else [missing]

    def audio(self, system: str | None, name: str) -> str:
        """Where the audio of a system, or the recording (None), is within the folder."""
        return f"audio/{self.folders[system]}/{name}.flac"

    def picture(self, system: str | None, name: str) -> str:
        """Where its spectrogram is."""
        return f"spectrograms/{self.folders[system]}/{name}.png"

    def __call__(self, name: str, waves: dict[str | None, Tensor], sample_rate: int) -> None:
        """Keep the audio of an utterance, all softer if one would be clipped, and draw it on one scale of colours."""
        peak = max(1.0, *(float(wave.abs().max()) for wave in waves.values()))
        loudest = float(spectrogram_levels(waves[None]).max())
        for system, wave in waves.items():
            save_audio(self.out / self.audio(system, name), wave / peak, sample_rate)
            if self.pictures:
                levels = spectrogram_levels(wave, len(waves[None]))
                save_image(self.out / self.picture(system, name), levels, loudest - RANGE_DB, loudest)


def write_page(report: Report, gallery: Gallery) -> Path:
    """Write ``index.html``, which plays and shows what the gallery keeps and loads nothing from elsewhere: its path."""
    rows = {(row["system"], row["file"]): row for row in report.rows}
    utterances = []
    for pair in gallery.pairs:
        own = {system: rows[system, pair.name] for system in (None, *pair.copies) if (system, pair.name) in rows}
        if own:
            utterances.append(_utterance(pair.name, own, gallery))
    parts = {
        "TITLE": escape(" · ".join(report.systems)),
        "POLICY": escape(POLICY),
        "NOTES": "".join(f"<p class='note'>{escape(line)}</p>" for line in [*report.hints, *report.failed]),
        "MEDIANS": _medians(report),
        "DIFFERENCES": _differences(report),
        "ORDERS": "".join(f'<option value="{name}">{escape(metric.title)}</option>' for name, metric in METRICS.items()),
        "UTTERANCES": "\n".join(utterances),
    }
    with write_atomically(gallery.out / "index.html") as temporary:
        temporary.write_text(fill("listening.html", parts), encoding="utf-8")
    return gallery.out / "index.html"


def _utterance(name: str, rows: dict[str | None, dict], gallery: Gallery) -> str:
    """Return a recording (None) and its copies: players, spectrograms, figures."""
    copies = {system: row for system, row in rows.items() if system is not None}
    badness = {key: max(_badness(row[key], metric) for row in copies.values()) for key, metric in METRICS.items()}
    keys = " ".join(f'data-{key}="{value:.4g}"' for key, value in badness.items() if math.isfinite(value))
    takes = []
    for i, system in enumerate([None, *copies]):
        picture = quote(gallery.picture(system, name))
        image = f'<img src="{picture}" alt="spectrogram" loading="lazy">' if gallery.pictures else ""
        takes.append(
            f'<div class="take"><button type="button"><kbd>{i}</kbd>{escape(system or RECORDING)}</button>'
            f'<div class="line">{image}<i></i></div><p>{_brief(rows[system]) if system in rows else ""}</p>'
            f'<audio src="{quote(gallery.audio(system, name))}" preload="none" controls></audio></div>'
        )
    shown = {key: (metric.title, metric.digits) for key, metric in METRICS.items()}
    shown |= {key: (title, 1) for key, title in FACTS.items()}
    lines = [
        (title, "", [f"<td>{number(row[key], digits)}</td>" for row in rows.values()])
        for key, (title, digits) in shown.items()
    ]
    seconds = max(row["seconds"] for row in copies.values())
    figures = table([system or RECORDING for system in rows], lines)
    return (
        f"<section {keys}><h3>{escape(name)} <small>{seconds:.1f} s</small></h3>{''.join(takes)}"
        f"<details><summary>all figures</summary>{figures}</details></section>"
    )


def _brief(row: dict) -> str:
    """Return the few figures that stand beside a spectrogram, and what was done to the file."""
    known = [key for key in BRIEF if not math.isnan(row[key])]
    said = [f"{METRICS[key].title} <b>{number(row[key], METRICS[key].digits)}</b>" for key in known]
    if row["lag_ms"]:
        said.append(f"lag {number(row['lag_ms'], 1)} ms undone")
    return "<br>".join([*said, *([escape(row["note"])] if row["note"] else [])])


def _medians(report: Report) -> str:
    lines = []
    for name, metric in METRICS.items():
        values = [medians[name] for medians in report.systems.values()]
        bad = [_badness(value.median, metric) for value in values]
        best = min(bad) if len(bad) > 1 and -math.inf < min(bad) < max(bad) else None
        cells = [_cell(value, metric, "best" if b == best else "") for value, b in zip(values, bad, strict=True)]
        own = [] if report.recordings is None else [_cell(report.recordings[name], metric, "")]
        lines.append((metric.title, ARROWS[metric.best], [*own, *cells]))
    facts = {"files": [str(len(report.of(system, "file"))) for system in report.systems]}
    facts |= {title: [span(report.of(system, key)) for system in report.systems] for key, title in FACTS.items()}
    blank = ["<td></td>"] * (report.recordings is not None)
    lines += [(title, "", [*blank, *(f'<td class="fact">{text}</td>' for text in texts)]) for title, texts in facts.items()]
    return table(list(report.columns), lines)


def _differences(report: Report) -> str:
    if not report.differences:
        return ""
    lines = []
    for name, metric in METRICS.items():
        values = [medians[name] for medians in report.differences.values()]
        cells = [_cell(value, metric, "sure" if value.differs else "", signed=True) for value in values]
        lines.append((metric.title, ARROWS[metric.best], cells))
    return (
        "<h2>Differences</h2><p>Of two systems, file by file: the median, and its 95&nbsp;% interval; bold where that is on "
        f"one side of 0.</p>{table([f'{second} − {first}' for first, second in report.differences], lines)}"
    )


def _cell(value: Median, metric: Metric, kind: str, signed: bool = False) -> str:
    ends = [number(end, metric.digits, signed) for end in (value.low, value.high)]
    interval = "" if math.isnan(value.low) else f" <small>{ends[0]} … {ends[1]}</small>"
    return f'<td class="{kind}">{number(value.median, metric.digits, signed)}{interval}</td>'


def _badness(value: float, metric: Metric) -> float:
    """What is larger the worse a value is; minus infinity if there is none."""
    if math.isnan(value):
        return -math.inf
    return {"low": value, "high": -value, "0": abs(value)}[metric.best]


def _safe(name: str) -> str:
    """A name that is safe in any file system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)
