"""A training run in figures and words: how far it is, what it logged last, what to do with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flowavenet.checkpoint import load_checkpoint
from flowavenet.evaluation.advice import Advice, Curve, advise
from flowavenet.evaluation.forecasts import Z95, outlying, smoothed
from flowavenet.evaluation.report import number
from flowavenet.evaluation.runs import Run
from flowavenet.files import write_atomically

GOALS = {"nats_per_sample": 1, "kl": -1}
"""What training by likelihood, and by distillation, is judged by; 1: the larger the better."""
PARTS = 60
"""Points of a smoothed curve, at most."""
GAUSSIAN = {"mean": 0.0, "variance": 1.0, "kurtosis": 3.0}


@dataclass(frozen=True)
class Progress:
    """A run and what is to be said of it.

    Args:
        run: what it logged.
        worth: nats that another hour must bring to be worth it.
    """

    run: Run
    worth: float = 0.005

    @cached_property
    def goal(self) -> str:
        """What the run is judged by; raises ValueError if it has logged none of that."""
        for goal in GOALS:
            if {f"valid/{goal}", f"train/{goal}"} & self.run.curves.keys():
                return goal
        raise ValueError(f"{self.run.folder}: logged neither train/nats_per_sample nor train/kl; is it a run of flowavenet?")

    def of(self, split: str) -> Curve:
        """The goal on ``train`` or ``valid``, as logged."""
        return self.run.curve(f"{split}/{self.goal}")

    @cached_property
    def rate(self) -> Curve:
        """The learning rate; runs of before it had a name of its own have ``lr-<optimizer>``."""
        return self.run.curve("train/learning_rate", *(tag for tag in self.run.curves if tag.startswith("lr-")))

    @cached_property
    def advice(self) -> Advice:
        """What to do."""
        better = GOALS[self.goal]
        valid, train = (curve._replace(values=better * curve.values) for curve in map(self.of, ("valid", "train")))
        return advise(valid, train, self.rate, self.worth)

    @cached_property
    def train(self) -> Curve:
        """The goal on training crops, smoothed."""
        return smooth(self.of("train"))

    @cached_property
    def gap(self) -> Curve:
        """By how much training crops are better than validation: (validations,). Its rise says more than its value, as crops
        differ, and validation is at averaged weights."""
        valid, train = self.of("valid"), self.train
        if not len(train.steps):
            return valid._replace(values=np.full(len(valid.steps), np.nan))
        return valid._replace(values=GOALS[self.goal] * (np.interp(valid.steps, train.steps, train.values) - valid.values))

    @cached_property
    def noise(self) -> dict[str, dict[str, float]]:
        """What the run's noise was at last, scale by scale: mean, variance and kurtosis, which of a Gaussian are 0, 1, 3."""
        scales: dict[str, dict[str, float]] = {}
        for figure in GAUSSIAN:
            for scale, curve in self.run.under(f"flow/noise_{figure}/").items():
                scales.setdefault(scale, {})[figure] = float(curve.values[-1])
        return scales

    @cached_property
    def facts(self) -> dict[str, str]:
        """How far the run is and what it logged last."""
        run, valid = self.run, self.of("valid")
        everything = run.curves.values()
        hours = np.nanmax([np.nan_to_num(curve.hours[-1]) for curve in everything])
        facts = {
            "steps": f"{max(int(curve.steps[-1]) for curve in everything):,}",
            "hours of training": f"{hours:.2f}" if hours else "-",
            "processes": " ".join(f"{first:,}-{last:,} ({hours:.2f} h)" for first, last, hours in run.sessions) or "-",
            "validations": str(len(valid.steps)),
        }
        if len(valid.steps):
            best = int(np.nanargmax(GOALS[self.goal] * valid.values)) if np.isfinite(valid.values).any() else -1
            facts[f"last validation, {self.unit}"] = number(valid.values[-1], 4)
            facts["best validation"] = f"{number(valid.values[best], 4)} at step {int(valid.steps[best]):,}"
        if len(self.train.values):
            facts[f"training crops lately, {self.unit}"] = number(self.train.values[-1], 3)
        for title, tag, digits in (
            ("seconds of audio trained per second", "speed/audio_seconds_per_second", 1),
            ("gradient norm lately", "train/gradient_norm", 2),
        ):
            if len(values := run.curve(tag).values):
                facts[title] = number(float(np.nanmedian(values[-max(len(values) // 10, 1) :])), digits)
        crops = self.of("train")
        if (odd := np.flatnonzero(outlying(crops.values))).size:
            facts["training crops far off"] = f"{len(odd)}, the last at step {int(crops.steps[odd[-1]]):,}"
        facts["steps skipped, as not finite"] = str(len(run.curve("train/skipped_in_a_row").steps))
        facts["vocoder/ holds step"] = self._kept()
        return facts

    @property
    def unit(self) -> str:
        """Of the goal."""
        return "nats per sample" if self.goal == "nats_per_sample" else "KL, nats per sample"

    def _kept(self) -> str:
        """The step of the run's checkpoint folder."""
        try:
            return f"{load_checkpoint(self.run.folder / 'vocoder')[2].get('steps', '-'):,}"
        except (OSError, ValueError):
            return "-"

    def evidence(self) -> dict[str, str]:
        """What the advice rests on, as it is shown; nats, and larger is better."""
        found = self.advice.evidence
        lines = {
            "expected in {steps_ahead:,.0f} steps": "{gain:+.4f} ± {gain_margin:.4f}",
            "as many at the slope of the last third": "{slope:+.4f} [{slope_low:+.4f}, {slope_high:+.4f}]",
            "worth going on for": "{worth:g}", "noise of one validation": "{noise:.4f}",
            "learning rate, of its peak": "{rate_left:.0%}", "best validation": "{best:.4f} at step {best_step:,.0f}",
            "lost since": "{lost:.4f}", "gained on training crops since": "{train_change:+.3f} ± {train_change_margin:.3f}",
        }
        known = found | {name.replace("error", "margin"): Z95 * value for name, value in found.items() if "error" in name}
        fields = {title: set(re.findall(r"{(\w+)", title + text)) for title, text in lines.items()}
        return {
            title.format(**known): text.format(**known) for title, text in lines.items() if fields[title] <= known.keys()
        }

    def markdown(self) -> str:
        """All of it as text, for a terminal or a page."""
        parts = [f"# {self.run.folder.resolve().name}", f"**{self.advice.verdict}**: {self.advice.text}"]
        parts += [_pairs(self.facts), _pairs(self.evidence())]
        if self.noise:
            rows = [[scale, *(number(value, 3) for value in figures.values())] for scale, figures in self.noise.items()]
            parts.append(_markdown(["noise", *(f"{name}, Gaussian {value:g}" for name, value in GAUSSIAN.items())], rows))
        valid, gap = self.of("valid"), self.gap.values
        shown = np.unique(np.linspace(0, len(valid.steps) - 1, min(len(valid.steps), 12)).round().astype(int))
        rows = [
            [f"{int(valid.steps[i]):,}", number(valid.hours[i], 2), number(valid.values[i], 4), number(gap[i], 3)]
            for i in shown
        ]
        if rows:
            parts.append(_markdown(["step", "hours", f"validation, {self.unit}", "training less validation"], rows))
        return "\n\n".join(part for part in parts if part) + "\n"

    def write(self, out: Path) -> None:
        """Write ``report.md`` and ``report.json``, with all curves, into a folder."""
        content = {
            "run": str(self.run.folder), "verdict": self.advice.verdict, "reason": self.advice.reason,
            "text": self.advice.text, "evidence": self.advice.evidence, "facts": self.facts, "noise": self.noise,
            "sessions": [session._asdict() for session in self.run.sessions],
            "curves": {tag: {key: column.tolist() for key, column in curve._asdict().items()}
                       for tag, curve in sorted(self.run.curves.items())},
        }
        with write_atomically(out / "report.json") as temporary:
            temporary.write_text(json.dumps(_known(content), allow_nan=False) + "\n")
        with write_atomically(out / "report.md") as temporary:
            temporary.write_text(self.markdown(), encoding="utf-8")


def smooth(curve: Curve) -> Curve:
    """The same in few points: medians of parts of the run."""
    values, places = smoothed(curve.values, PARTS)
    return Curve(curve.steps[places], curve.hours[places], values)


def _pairs(pairs: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in pairs.items())


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _known(value: Any) -> Any:
    """The same with null for what is not finite, as JSON wants it."""
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_known(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
