"""Say whether a run should go on, by one rule on its curves, with the figures that the rule looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy import ndarray as Array

from flowavenet.training.monitor.runs import Curve

LEAST = 8
"""Validations before a curve is judged."""
SCHEDULE_OVER = 0.05
"""Part of its peak that the learning rate has when its schedule is taken to have ended."""


@dataclass(frozen=True)
class Advice:
    """Say what to do with a run, ``go on`` or ``stop``, why, and the figures behind it, in nats, the larger the better.

    ``reason`` is one of: early, gain; schedule over, plateau, overfitting, divergence, not finite.
    """

    verdict: str
    reason: str
    text: str
    evidence: dict[str, float] = field(default_factory=dict)


def advise(valid: Curve, train: Curve, rate: Curve, worth: float = 0.005) -> Advice:
    """Judge a run: it stops when the likelihood is broken, falls, or rose by less than ``worth`` in the run's last quarter.

    gain = median(validations of the last quarter) - median(those of the quarter before),  give or take two errors of that

    While the learning rate falls, a curve that stands still is no reason to stop: the end of a schedule brings most.

    Args:
        valid: at each validation, the larger the better, nats per sample.
        train: the same of training crops; may be empty.
        rate: the learning rate; may be empty.
        worth: nats per sample that the last quarter of the run must have brought.
    """
    for name, curve in (("training", train), ("validation", valid)):
        if len(curve.values) and not np.isfinite(curve.values[-1]):
            since = int(curve.steps[curve.steps > max(curve.finite().steps, default=-1)][0])
            return Advice(
                "stop", "not finite", f"the likelihood in {name} is not finite since step {since}: go back to a checkpoint "
                f"before that with a lower --model.learning_rate, or a log_scale_limit in the config", {"since": since},
            )
    valid, train = valid.finite(), train.finite()
    left, falling = _schedule(rate)
    if left <= SCHEDULE_OVER:
        return Advice(
            "stop", "schedule over", f"the learning rate has come to its end, {left:.0%} of its peak; more takes a longer "
            f"schedule from the start: --trainer.max_time or --trainer.max_steps", _gain(valid.values) | {"rate_left": left},
        )
    if len(valid.steps) < LEAST:
        return Advice("go on", "early", f"{len(valid.steps)} validations so far, a curve can be judged from {LEAST}")
    if fallen := _fallen(valid, train):
        return fallen
    evidence = _gain(valid.values) | {"worth": worth, "rate_left": left}
    gain, error = evidence["gain"], evidence["gain_error"]
    found = f"the last quarter of the run brought {gain:+.4f} ± {2 * error:.4f} nats"
    if gain + 2 * error < worth and not falling:
        return Advice("stop", "plateau", f"{found}, less than the {worth:g} that would be worth it", evidence)
    still = f", and the learning rate still falls, at {left:.0%} of its peak" if falling else ""
    return Advice("go on", "gain", f"{found}; {worth:g} are worth it{still}", evidence)


def noise_of(y: Array) -> float:
    """Return the standard deviation of what is not smooth in a curve; few outliers do not move it."""
    bends = y[1:-1] - (y[:-2] + y[2:]) / 2                             # of white noise: variance 3 / 2
    return float(1.4826 * np.median(np.abs(bends)) / math.sqrt(1.5)) if len(bends) else 0.0


def _gain(values: Array) -> dict[str, float]:
    """Return by how much the last quarter is above the quarter before, and the error of that; nothing of a short curve."""
    n = len(values) // 4
    if not n:
        return {}
    gain = np.median(values[-n:]) - np.median(values[-2 * n : -n])
    return {"gain": float(gain), "gain_error": noise_of(values) * math.sqrt(math.pi / n)}  # two medians of n each


def _fallen(valid: Curve, train: Curve) -> Advice | None:
    """Stop a run whose last three validations are below its best; training crops since then tell why."""
    best, noise = int(valid.values.argmax()), max(noise_of(valid.values), 1e-6)
    around = float(np.median(valid.values[max(best - 1, 0) : best + 2]))  # the best of many is lucky
    lost = around - float(np.median(valid.values[-3:]))
    if lost < 5 * noise or best >= len(valid.values) - 3:
        return None
    step = int(valid.steps[best])
    change, error = _change(train, step)
    reason, cure = "overfitting", ": more data, or a smaller model, would help"
    if change > 2 * error:
        cure = f" while training gained {change:.3f}{cure}"
    elif change < -2 * error:
        reason, cure = "divergence", f" and training by {-change:.3f}: go back, with a lower --model.learning_rate"
    evidence = {"best_step": step, "best": around, "lost": lost, "noise": noise, "train_change": change}
    return Advice("stop", reason, f"since step {step} validation has got worse by {lost:.3f} nats{cure}", evidence)


def _change(train: Curve, step: int) -> tuple[float, float]:
    """Return what training crops gained since a step, medians of as many steps before it and now, and the error of that."""
    since = train.since(step).values
    now = since[-max(len(since) // 4, 1) :]
    before = train.values[train.steps < step][-len(now) :]
    if not len(before):
        return 0.0, math.inf
    spreads = [1.4826 * np.median(np.abs(part - np.median(part))) for part in (before, now)]  # outliers do not move it
    return float(np.median(now) - np.median(before)), 1.25 * float(np.hypot(*spreads)) / math.sqrt(len(before))


def _schedule(rate: Curve) -> tuple[float, bool]:
    """Return the last learning rate as part of its peak, and whether it has fallen lately; 1, False if it is not known."""
    if not len(rate.values):
        return 1.0, False
    lately = rate.since(rate.steps[-1] * 3 / 4).values
    return float(rate.values[-1] / rate.values.max()), bool(lately[-1] < 0.95 * lately[0])
