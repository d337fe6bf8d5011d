"""Whether a run should go on, from its curves: the words, and the figures they rest on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array

from flowavenet.evaluation.forecasts import Estimate, noise_of, slope, tried_gain

LEAST = 8
"""Validations before a curve is judged."""
RECENT = 0.25
"""A forecast is from what came after this part of the run: the beginning follows another law."""
SCHEDULE_OVER = 0.05
"""Part of its peak that the learning rate has when its schedule is taken to have ended."""
UNFORESEEN = 0.5
"""Standard error of a forecast, as part of the gain, while the learning rate falls: the past does not tell what that brings.
In ten hours of two lapflows with cosine schedules, 0.6 to 2.0 of what was forecast came, rms error 0.46."""


class Curve(NamedTuple):
    """Values over a run: (n,) each; ``hours`` of training are NaN where nobody took the time."""

    steps: Array
    hours: Array
    values: Array

    def since(self, step: float) -> Curve:
        """What came at that step or later."""
        return Curve(*(column[self.steps >= step] for column in self))


@dataclass(frozen=True)
class Advice:
    """What to do with a run: ``go on``, ``stop`` or ``wait`` (nobody can tell yet), why, and the figures behind it.

    ``reason`` is one of: early, gain, schedule runs, schedule over, plateau, noise, overfitting, divergence, not finite.
    """

    verdict: str
    reason: str
    text: str
    evidence: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.verdict}: {self.text}"


def advise(valid: Curve, train: Curve, rate: Curve, worth: float = 0.005) -> Advice:
    """Judge a run, first by what is broken, then by what the next hour can be expected to bring.

    Args:
        valid: at each validation, the larger the better, nats per sample.
        train: the same of training crops; may be empty.
        rate: the learning rate; may be empty.
        worth: nats that an hour must bring to be worth its while.
    """
    broken = _not_finite(valid, train)
    if broken:
        return broken
    if len(valid.steps) < LEAST:
        return Advice("go on", "early", f"{len(valid.steps)} validations so far, a curve can be judged from {LEAST}")
    return _worse(valid, train) or _outlook(valid, rate, worth)


def _not_finite(valid: Curve, train: Curve) -> Advice | None:
    for name, curve in (("training", train), ("validation", valid)):
        if len(curve.values) and not np.isfinite(curve.values[-1]):
            finite = np.flatnonzero(np.isfinite(curve.values))
            since = int(curve.steps[finite[-1] + 1 if len(finite) else 0])
            return Advice(
                "stop", "not finite", f"the likelihood in {name} is not finite since step {since}: resume from a checkpoint "
                f"before that with a lower --model.learning_rate, or a log_scale_limit in the config", {"since": since},
            )
    return None


def _worse(valid: Curve, train: Curve) -> Advice | None:
    """Has validation passed its best? Then it is by what training did meanwhile that one knows why."""
    values, best = valid.values, int(np.nanargmax(valid.values))
    after, noise = valid.since(valid.steps[best] + 1), max(noise_of(values), 1e-6)
    around = float(np.median(values[max(best - 1, 0) : best + 2]))     # the best of many is lucky
    drop = around - float(np.median(after.values[-max(len(after.values) // 3, 1) :])) if len(after.values) else 0.0
    falls = len(after.values) >= 5 and slope(after.steps, after.values)[2] < 0 and drop > 3 * noise
    if not (falls or (len(after.values) and drop > 20 * noise)):
        return None
    step = int(valid.steps[best])
    change = _change(train, step)
    evidence = {
        "best_step": step, "best": float(values[best]), "lost": drop, "noise": noise, "train_change": change.value,
        "train_change_error": change.error,
    }
    if change.high < 0:
        return Advice(
            "stop", "divergence", f"training itself has got worse since step {step}, by {-change.value:.3f} nats, and "
            f"validation by {drop:.3f}: go back to a checkpoint of that time with a lower --model.learning_rate", evidence,
        )
    gained = f" while training gained {change.value:.3f}" if change.low > 0 else ""
    return Advice(
        "stop", "overfitting", f"validation has got worse since step {step}, by {drop:.3f} nats{gained}: use the checkpoint "
        f"of step {step}; more data, or a smaller model, would help", evidence,
    )


def _change(train: Curve, step: int) -> Estimate:
    """What training crops gained since a step: the last fifth of what came since, less as much around the step."""
    since = train.since(step).values
    width = max(len(since) // 5, 3)
    first = int(np.searchsorted(train.steps, step))
    parts = train.values[max(first - width // 2, 0) : first + width // 2 + 1], since[-width:]
    if min(map(len, parts)) < 3:
        return Estimate(0.0, np.inf)
    (before, variance_then), (now, variance_now) = map(_median, parts)
    return Estimate(now - before, math.sqrt(variance_then + variance_now))


def _median(values: Array) -> tuple[float, float]:
    """The median, which outliers among crops do not move, and its variance if the rest is Gaussian."""
    median = float(np.median(values))
    return median, math.pi / 2 * (1.4826 * float(np.median(np.abs(values - median)))) ** 2 / len(values)


def _outlook(valid: Curve, rate: Curve, worth: float) -> Advice:
    """What the next hour will bring, and whether that is worth it, as the learning rate goes."""
    last = valid.steps[-1]
    recent = valid.since(max(1.0, min(RECENT * last, valid.steps[-LEAST])))  # a power law has no step 0
    hours = recent.hours[-1] - recent.hours[0]
    clock = np.isfinite(hours) and hours > 0
    ahead = (last - recent.steps[0]) / hours if clock else last / 4    # steps
    span = "in the next hour" if clock else f"in the next {ahead:,.0f} steps"
    gain = tried_gain(recent.steps, recent.values, ahead)
    third = valid.since(min(valid.steps[0] + (last - valid.steps[0]) * 2 / 3, valid.steps[-LEAST]))
    middle, low, high = (value * ahead for value in slope(third.steps, third.values))
    left, falling = _rate(rate)
    if falling:
        gain = Estimate(gain.value, math.hypot(gain.error, UNFORESEEN * gain.value))
    evidence = {
        "gain": gain.value, "gain_error": gain.error, "steps_ahead": float(ahead), "worth": worth,
        "slope": middle, "slope_low": low, "slope_high": high, "noise": noise_of(recent.values), "rate_left": left,
    }
    expected = f"{gain.value:+.4f} ± {1.96 * gain.error:.4f} nats expected {span}"
    less = f"less than the {worth:g} that would be worth it"

    def advice(verdict: str, reason: str, text: str) -> Advice:
        return Advice(verdict, reason, text, evidence)

    if left <= SCHEDULE_OVER:
        return advice(
            "stop", "schedule over", f"the learning rate has come to its end, {left:.0%} of its peak; at that, {expected}. "
            f"More takes a longer schedule from the start: --trainer.max_time or --trainer.max_steps",
        )
    if gain.low > worth:
        return advice("go on", "gain", expected)
    if falling:
        return advice(
            "go on", "schedule runs", f"{expected}, but the learning rate is still falling, at {left:.0%} of its peak: a "
            f"curve is judged when its schedule has ended",
        )
    if gain.high < worth:
        return advice("stop", "plateau", f"{expected}, {less}")
    return advice("wait", "noise", f"{expected}, maybe more, maybe less than the {worth:g} worth it: look again in an hour")


def _rate(rate: Curve) -> tuple[float, bool]:
    """The learning rate's last value as part of its peak, and whether it has been falling lately; 1 if it is not known."""
    if not len(rate.values):
        return 1.0, False
    lately = rate.since(rate.steps[-1] * 3 / 4).values
    return float(rate.values[-1] / rate.values.max()), bool(lately[-1] < 0.95 * lately[0])
