"""What a curve says of its own future: power laws, robust slopes, noise."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array

EXPONENTS = np.concatenate([np.linspace(-1.0, 0.0, 20, endpoint=False), np.geomspace(0.02, 12.0, 200)])
"""Of the power laws that are averaged: -1 is a straight line, near 0 a logarithm, 12 has long arrived."""
RESOLUTION = 0.01
"""Part of a gain by which forecasts of neighbouring exponents may differ."""
Z95 = 1.96


class Estimate(NamedTuple):
    """A number with its standard error."""

    value: float
    error: float

    @property
    def low(self) -> float:
        """Where its 95 % interval begins."""
        return self.value - Z95 * self.error

    @property
    def high(self) -> float:
        """Where it ends."""
        return self.value + Z95 * self.error


def expected_gain(x: Array, y: Array, ahead: float) -> Estimate:
    """By how much a curve will have risen at ``x[-1] + ahead``, if it goes on as a power law.

    y = a + b (1 - t^-c) / c,  t = x / x[-1]:  a is where it is, b how fast it rises, a + b / c where it goes to

    For every exponent c the rest is least squares. All of them are averaged, each weighted by how well it fits: where the
    points cannot tell a curve that bends from one that goes on, the error is as large as their forecasts are apart.
    Residuals that hang together count as fewer.

    Args:
        x: what goes on, such as steps, increasing and positive: (n,), n at least 5.
        y: (n,).
        ahead: in the unit of ``x``.
    """
    c = EXPONENTS[:, None]
    curves, later = (1 - (x / x[-1]) ** -c) / c, (1 - (1 + ahead / x[-1]) ** -EXPONENTS) / EXPONENTS
    curves = curves - curves.mean(axis=1, keepdims=True)               # least squares of each against y, less their means
    variances = 1 / (curves**2).sum(axis=1)
    slopes = variances * (curves @ (y - y.mean()))
    residuals = y - y.mean() - slopes[:, None] * curves
    squares = (residuals**2).sum(axis=1)
    best = int(squares.argmin())
    scatter = max(squares[best] / max(len(x) - 3, 1), 1e-16)
    together = residuals[best, 1:] @ residuals[best, :-1] / max(squares[best], 1e-16)
    together = float(np.clip(together, 0, 0.9))
    scatter *= (1 + together) / (1 - together)
    weights = np.exp(-(squares - squares[best]) / (2 * scatter))
    weights /= weights.sum()
    gains = slopes * later
    value = float(weights @ gains)
    variance = float(weights @ (scatter * variances * later**2 + (gains - value) ** 2))
    return Estimate(value, math.hypot(math.sqrt(variance), RESOLUTION * value))


def tried_gain(x: Array, y: Array, ahead: float) -> Estimate:
    """:func:`expected_gain`, with the error it has shown: real curves are no power laws, as rates fall and averages lag.

    The first two thirds of the points forecast the last one. By what part of the gain this is wrong, beyond what noise
    explains, the forecast from all points may be wrong as well. n is at least 8.
    """
    known = -(-2 * len(x) // 3)
    then, came = expected_gain(x[:known], y[:known], x[-1] - x[known - 1]), y[-1] - y[known - 1]
    wrong = (then.value - came) ** 2 - then.error**2 - 2 * noise_of(y) ** 2
    part = np.sqrt(max(wrong, 0.0)) / max(abs(then.value), abs(came), 1e-12)
    gain = expected_gain(x, y, ahead)
    return Estimate(gain.value, float(np.hypot(gain.error, part * gain.value)))


def slope(x: Array, y: Array) -> tuple[float, float, float]:
    """The median of the slopes between all pairs of points, and its 95 % interval: few outliers do not matter.

    >>> slope(np.arange(9.0), 2 * np.arange(9.0))
    (2.0, 2.0, 2.0)

    Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968.
    """
    first, second = np.triu_indices(len(x), 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    n = len(x)
    spread = Z95 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = int(np.clip(np.floor((len(slopes) - spread) / 2), 0, len(slopes) - 1))
    return float(np.median(slopes)), float(slopes[low]), float(slopes[len(slopes) - 1 - low])


def noise_of(y: Array) -> float:
    """The standard deviation of what is not smooth in a curve, from how far each point is from between its neighbours."""
    bends = y[1:-1] - (y[:-2] + y[2:]) / 2                             # of white noise: variance 3 / 2
    return float(1.4826 * np.median(np.abs(bends)) / np.sqrt(1.5)) if len(bends) else 0.0


def smoothed(y: Array, parts: int) -> tuple[Array, Array]:
    """Medians of so many consecutive parts of equal size, or fewer, and the place of the middle of each; NaN is left out.

    >>> smoothed(np.array([1.0, 2.0, 60.0, 4.0, np.nan, 5.0]), 2)
    (array([2. , 4.5]), array([1, 4]))
    """
    groups = np.array_split(np.arange(len(y)), min(parts, len(y)) or 1)
    kept = [(group, y[group][np.isfinite(y[group])]) for group in groups]
    kept = [(group[len(group) // 2], np.median(values)) for group, values in kept if len(values)]
    places, medians = zip(*kept, strict=True) if kept else ((), ())
    return np.array(medians), np.array(places, int)


def outlying(y: Array) -> Array:
    """Which values are further from the middle half of all than ten times its width, or not finite."""
    if not np.isfinite(y).any():
        return np.ones(len(y), bool)
    low, high = np.nanquantile(np.where(np.isfinite(y), y, np.nan), [0.25, 0.75])
    with np.errstate(invalid="ignore"):
        return ~((y >= low - 10 * (high - low)) & (y <= high + 10 * (high - low)))
