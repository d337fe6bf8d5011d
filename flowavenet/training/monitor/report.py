"""Put a run into words, figures and one page: what ``flowavenet report`` prints and writes."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from flowavenet.files import write_atomically
from flowavenet.plots import panel_svg
from flowavenet.training.monitor.rule import Advice, advise
from flowavenet.training.monitor.runs import Curve, Run

GOALS = {"nats_per_sample": 1, "kl": -1}
"""What training by likelihood, and by distillation, is judged by; 1: the larger the better."""
TAKES = 7
"""Steps of the run at which a clip is heard, at most."""
STATISTICS = {
    "noise (of a Gaussian 0, 1, 3)": {"noise_mean": "mean", "noise_variance": "variance", "noise_kurtosis": "kurtosis"},
    "block": {"log_det": "log-det, nats per sample"},
    "log-scales": {"log_scale_mean": "mean", "log_scale_spread": "spread"},
}
"""Figures of the parts of the flow, under ``flow/``, table by table."""


@dataclass(frozen=True)
class Report:
    """Judge a run and show it.

    Args:
        run: what it logged.
        worth: nats per sample that its last quarter must have brought.
    """

    run: Run
    worth: float = 0.005

    @cached_property
    def goal(self) -> str:
        """The quantity that the run is judged by. Raises ValueError: the run has logged none."""
        for goal in GOALS:
            if {f"valid/{goal}", f"train/{goal}"} & self.run.curves.keys():
                return goal
        raise ValueError(f"{self.run.folder}: logged neither train/nats_per_sample nor train/kl; is it a run of flowavenet?")

    @cached_property
    def advice(self) -> Advice:
        """The rule's verdict."""
        sign, valid, train = GOALS[self.goal], self._of("valid"), self._of("train")
        rate = self.run.curve("train/learning_rate")
        return advise(Curve(valid.steps, sign * valid.values), Curve(train.steps, sign * train.values), rate, self.worth)

    def _of(self, split: str) -> Curve:
        return self.run.curve(f"{split}/{self.goal}")

    @cached_property
    def facts(self) -> dict[str, str]:
        """How far the run is, what it logged last, and the evidence of the verdict, as text by title."""
        valid, train = self._of("valid").finite(), self._of("train").smooth()
        facts = {"steps": f"{max(int(curve.steps[-1]) for curve in self.run.curves.values()):,}"}
        if len(valid.steps):
            best = int(np.argmax(GOALS[self.goal] * valid.values))
            facts["last validation"] = f"{valid.values[-1]:.4f} of {len(valid.steps)}"
            facts["best validation"] = f"{valid.values[best]:.4f} at step {int(valid.steps[best]):,}"
        if len(train.steps):
            facts["training crops lately"] = f"{train.values[-1]:.3f}"
        if skipped := len(self.run.curve("train/skipped_in_a_row").steps):
            facts["steps skipped, as not finite"] = str(skipped)
        evidence = {f"evidence: {name.replace('_', ' ')}": f"{value:.5g}" for name, value in self.advice.evidence.items()}
        return facts | evidence

    @cached_property
    def statistics(self) -> dict[str, dict[str, dict[str, float]]]:
        """What the flow did to validation crops at last: table -> part of the flow -> figure -> value."""
        tables: dict[str, dict[str, dict[str, float]]] = {}
        for table, figures in STATISTICS.items():
            for figure, title in figures.items():
                for part, curve in self.run.under(f"flow/{figure}/").items():
                    tables.setdefault(table, {}).setdefault(part, {})[title] = float(curve.values[-1])
        return tables

    def text(self) -> str:
        """Return verdict and facts, in Markdown, for a terminal."""
        lines = [f"- {title}: {value}" for title, value in self.facts.items()]
        verdict = f"**{self.advice.verdict}**: {self.advice.text}"
        return "\n".join([f"# {self.run.folder.resolve().name}: {self.goal}", "", verdict, "", *lines])

    def write(self, out: Path) -> Path:
        """Write ``index.html``, which holds curves and sounds itself, and ``report.json``; return the path of the page."""
        content = {
            "run": str(self.run.folder), **asdict(self.advice), "facts": self.facts, "statistics": self.statistics,
        }
        with write_atomically(out / "report.json") as temporary:
            temporary.write_text(json.dumps(_known(content), allow_nan=False, indent=1) + "\n")
        parts = {
            "TITLE": escape(self.run.folder.resolve().name),
            "KIND": self.advice.verdict.replace(" ", "-"),
            "VERDICT": f"<b>{self.advice.verdict}</b> {escape(self.advice.text)}",
            "FACTS": _table([], self.facts.items()),
            "CURVES": "".join(f"<figure>{svg}</figure>" for svg in self._panels()),
            "CLIPS": "".join(self._clips()),
            "STATISTICS": "".join(_figures(name, table) for name, table in self.statistics.items()),
        }
        template = files("flowavenet.training.monitor").joinpath("report.html").read_text("utf-8")
        with write_atomically(out / "index.html") as temporary:
            temporary.write_text(re.sub(r"<!--([A-Z]+)-->", lambda match: parts[match[1]], template), encoding="utf-8")
        return out / "index.html"

    def _panels(self) -> Iterator[str]:
        """Yield the curves that have more than one point, as SVG."""
        run = self.run
        for title, curves in {
            self.goal: {"training crops": self._of("train").smooth(), "validation": self._of("valid")},
            "learning rate": {"rate": run.curve("train/learning_rate").smooth(200)},
            "gradient norm": {"norm": run.curve("train/gradient_norm").smooth()},
            "log-det of each block, nats per sample": run.under("flow/log_det/"),
            "noise: variance, Gaussian 1": run.under("flow/noise_variance/"),
            "noise: kurtosis, Gaussian 3": run.under("flow/noise_kurtosis/"),
        }.items():
            shown = {name: curve.finite() for name, curve in curves.items() if len(curve.finite().steps) > 1}
            if shown:
                yield panel_svg(title, shown)

    def _clips(self) -> Iterator[str]:
        """Yield a section for each clip: the recording, and what was rendered at steps evenly apart in proportion."""
        sounds = self.run.sounds
        for clip in sorted({tag.partition("/")[0] for tag in sounds if tag.endswith("/vocoded")}):
            vocoded, recorded = sounds[f"{clip}/vocoded"], sounds.get(f"{clip}/recorded", {})
            steps = sorted(vocoded)
            places = np.geomspace(1, len(steps), min(len(steps), TAKES)).round().astype(int) - 1
            takes = {"recording": recorded[max(recorded)]} if recorded else {}
            takes |= {f"step {steps[place]:,}": vocoded[steps[place]] for place in dict.fromkeys(places)}
            yield f"<section><h3>{escape(clip)}</h3>"
            for name, wav in takes.items():
                audio = f'<audio src="{_data("audio/wav", wav)}" preload="none" controls></audio>'
                yield f"<label>{escape(name)} {audio}</label>"
            if picture := self.run.pictures.get(f"{clip}/mel"):
                yield f'<img src="{_data("image/png", picture)}" alt="mel given, and vocoded at last">'
            yield "</section>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in heads)}</tr>"] if heads else []
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _figures(name: str, table: dict[str, dict[str, float]]) -> str:
    rows = ([part, *map("{:.3f}".format, row.values())] for part, row in table.items())
    return _table([name, *next(iter(table.values()))], rows)


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _known(value: object) -> object:
    """Return the same with null for what is not finite, as JSON wants it."""
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
