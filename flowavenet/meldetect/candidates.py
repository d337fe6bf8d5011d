"""Score a mel against many settings at once: how probable is it as speech in each of them?

Level and contrast over bands (see `speech`) are taken to be normal, with a Student's tails, about those of average speech.
Their covariances have a part that all bands share; one that is alike over some bands, wide for voices and rooms and, in the
level, narrow for harmonics; and a little of each band's own, so little that the zigzag of `speech` shows. How frames follow
each other adds three numbers more.

There are two kinds of mels. Those *analysed* from recordings have the zigzag, and nothing beyond their range. Those
*predicted* by a front-end are smoother: nearer to average speech, with less contrast, and rounded at the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from flowavenet.audio.mel import MelSpectrogram
from flowavenet.audio.settings import MelSettings
from flowavenet.meldetect.measure import Measured
from flowavenet.meldetect.speech import AT_PEAK, OVER_FRAMES, average_speech, mels, overlap

# Standard deviations in nats, widths in mels, frequencies in Hz.
_RECORDING = 0.7  # level of whole recordings; 0.3 for the voices of `speech`, but others record otherwise
_EMPHASISED = 1.5  # the same where pre-emphasis comes first: some bring recordings to a common peak after it
_SHAPE, _SHAPE_WIDTH = 0.36, 172.0  # shape of the level
_RIPPLE, _RIPPLE_WIDTH, _BASS = 0.364, 41.0, 543.0  # harmonics, which show most in the bass, below so many Hz
_BAND, _BAND_FRAME = 0.021, 0.46  # each band on its own: of a voice, and of a single frame
_TREBLE, _IN_TREBLE = 7000.0, 1.5  # from where on recordings differ more in shape, and by how much: some are cut there
_UNHEARD, _WIDTH = 10900.0, 420.0  # from where on, and how gradually, many recordings have nothing
_FRAMES = 140.0  # so short a piece has twice the variance of shape, as it holds few sounds
_CONTRAST, _CONTRAST_SHAPE, _CONTRAST_WIDTH = 0.2, 0.103, 329.0
_CONTRAST_BAND, _CONTRAST_FRAME, _CONTRAST_FRAMES, _RUMBLE = 0.072, 1.32, 61.0, 0.48
_TAILS = 30.0  # degrees of freedom
_FLOORED = 0.06  # how the share of values that a floor hides differs from what normal values have
_FULL_SCALE, _FULL_SCALE_SPREAD = 3.2, 0.35  # nats: the loudest of recordings at full scale, above their level's peak
_EMPHASISED_PEAK = 1.4  # nats that those are above it which are brought to full scale after pre-emphasis
_CHANGE_SPREAD = 0.12  # ln of the standard deviation over frames
# Steps: how far the first is above that of `speech`, the ratio of the second to the first, and of the last two; where
# windows overlap by three quarters and hops are 11.6 ms; what overlap and hop change; deviations; correlation of first and
# last.
_STEP, _STEP_SPREAD = torch.tensor([0.60, 0.495, 0.24]), torch.tensor([0.2, 0.025, 0.06])
_OVERLAP, _HOP_SLOPE, _USUAL_HOP, _STEP_ALIKE = 0.51, -0.15, 256 / 22050, -0.7
PREDICTED_RARER = 3.0
"""Nats by which predicted mels are taken to be rarer than analysed ones."""


@dataclass(frozen=True)
class Table:
    """Settings of one number of bands, and what average speech is in them; first dimension: settings."""

    settings: tuple[MelSettings, ...]
    level: Tensor
    contrast: Tensor
    step: Tensor
    filled: Tensor
    known: Tensor
    """Where the contrast is of two filled bands."""
    level_alike: Tensor
    """Covariance of the level, without what all bands share and what each has of its own, (settings, bands, bands)."""
    level_own: Tensor
    contrast_alike: Tensor
    contrast_shape: Tensor
    contrast_own: Tensor
    unit: Tensor
    """Values that a nat of magnitude is, (settings, bands)."""
    offset: Tensor
    """Value of magnitude 1, (settings, bands)."""
    low: Tensor
    high: Tensor


def in_values(settings: MelSettings) -> tuple[Tensor, Tensor]:
    """Return the values that a nat of magnitude is, and the value of magnitude 1, per band; of a linear mel, of its ln."""
    nat = {"ln": 1.0, "log10": 1 / math.log(10), "db": 20 / math.log(10), "linear": 1.0}[settings.log]
    scale = torch.tensor(settings.scale, dtype=torch.float64).expand(settings.n_mels)
    return scale * settings.power * nat, scale * torch.tensor(settings.offset, dtype=torch.float64)


@lru_cache(maxsize=1024)
def value_range(settings: MelSettings) -> tuple[float, float]:
    """Return the lowest and the highest value that a mel can have; of a linear mel, of its ln."""
    low, high = MelSpectrogram(settings).range()
    return (math.log(max(low, 1e-30)), math.log(high)) if settings.log == "linear" else (low, high)


@lru_cache(maxsize=16)
def table(settings: tuple[MelSettings, ...], with_range: bool = True) -> Table:
    """Prepare settings, all of as many bands; without the range of their values, for :func:`score_free` only."""
    speech = [average_speech(one) for one in settings]
    stacked = {
        name: torch.from_numpy(np.stack([getattr(one, name) for one in speech]))
        for name in ("centre", "level", "contrast", "step", "filled")
    }
    centre, filled = stacked.pop("centre"), stacked["filled"]
    unheard = torch.sigmoid((centre - _UNHEARD) / _WIDTH)
    shape = _SHAPE + _IN_TREBLE * torch.sigmoid((centre - _TREBLE) / _WIDTH) + 9.0 * unheard
    ripple = _RIPPLE * (0.3 + torch.exp(-centre / _BASS))
    between = (centre[:, 1:] + centre[:, :-1]) / 2
    unheard_between = torch.sigmoid((between - _UNHEARD + _WIDTH) / _WIDTH)
    position = torch.from_numpy(mels(centre.numpy()))
    middle = torch.from_numpy(mels(between.numpy()))
    units, offsets = zip(*map(in_values, settings), strict=True)
    ranges = [value_range(one) if with_range else (math.nan, math.nan) for one in settings]
    low, high = torch.tensor(ranges, dtype=torch.float64).T
    return Table(
        settings=settings,
        **stacked,
        known=filled[:, 1:] & filled[:, :-1],
        level_alike=_alike(position, _SHAPE_WIDTH, shape) + _alike(position, _RIPPLE_WIDTH, ripple),
        level_own=_BAND**2 + (1.4 * unheard) ** 2,
        contrast_alike=_alike(middle, _CONTRAST_WIDTH, torch.ones_like(middle)),
        contrast_shape=0.5 * unheard_between + _RUMBLE * torch.exp(-between / 150),
        contrast_own=_CONTRAST_BAND**2 + unheard_between**2 + (_RUMBLE * torch.exp(-between / 80)) ** 2,
        unit=torch.stack(units),
        offset=torch.stack(offsets),
        low=low,
        high=high,
    )


@dataclass(frozen=True)
class Scores:
    """How well settings explain a mel, (settings,) each."""

    density: Tensor
    """ln of the probability of the mel, nats, but for a constant."""
    distance: Tensor
    """How far from average speech it is, as a part of how far recordings are."""
    predicted: Tensor
    """True if it is rather predicted than analysed."""
    outside: Tensor
    """Part of the values far beyond the range."""
    beyond: Tensor
    """True if there are values beyond the range."""
    at_end: Tensor
    """True if the lowest or the highest value repeats and is an end of the range."""


def score(mel: Measured, against: Table, slack: float) -> Scores:
    """Score a mel against listed settings, whose values are known.

    Args:
        mel: what was measured of it; for linear settings, of its ln.
        against: the settings.
        slack: rounding of its float type, as a part of a value.
    """
    unit, low, high = against.unit.abs(), against.low, against.high
    level, part = _undo_floor(mel.average, low[:, None], unit)
    felt = unit * part.clamp(min=0.3)                                  # what a nat is in values, near a floor
    emphasis = torch.tensor([one.preemphasis > 0 for one in against.settings])
    at_peak = torch.tensor([one.peak is not None for one in against.settings])
    shared = torch.where(emphasis, _EMPHASISED, _RECORDING) ** 2
    off = (level - against.offset) / against.unit - against.level
    change = (mel.change / (OVER_FRAMES * felt.mean(1))).log()
    gap = (0.002 * (high - low) + slack * low.abs())
    beyond = (mel.lowest < low - gap) | (mel.highest > high + gap)
    both, far = [], []
    for predicted in (False, True):
        variance, contrast_off, all_, own, bias, spread, cost = (
            (0.6, -0.8, 0.8, 0.25, -0.15, 0.3, 0.0) if predicted else (1.0, 0.0, 0.0, 0.0, 0.0, _CHANGE_SPREAD, 20.0)
        )
        density, distance = _curves(mel, against, off, part, shared, unit, variance, contrast_off, all_, own)
        spread += 1 / math.sqrt(mel.frames)
        off_change = (change - bias) / spread
        density = density - 0.5 * off_change**2 - math.log(spread) - cost * beyond - PREDICTED_RARER * predicted
        both.append(density + step_density(mel, against, unit, predicted))
        far.append(torch.maximum(distance, off_change.abs() / 2))
    predicted = both[1] > both[0]
    density = torch.stack(both).logsumexp(0) - felt.log().sum(1)
    floored = mel.below(low + gap) - (1 - part).mean(1)
    density -= 0.5 * (floored / _FLOORED) ** 2
    loudest = ((mel.loudest - against.offset) / against.unit).amin(1) - against.level.amax(1) - _FULL_SCALE
    loudest = loudest - AT_PEAK * ~at_peak - _EMPHASISED_PEAK * emphasis
    density -= 0.5 * (loudest.clamp(min=0) / _FULL_SCALE_SPREAD) ** 2
    outside = mel.below(low - 0.1 * (high - low)) + 1 - mel.below(high + 0.1 * (high - low))
    density -= 1000 * outside + 20 * (outside > 0)
    at_floor = (mel.lowest - low).abs() <= gap
    if mel.clamped:
        repeats = mel.below(torch.tensor(mel.lowest + 1e-12, dtype=torch.float64)).item()
        density += torch.where(at_floor, 15.0, -15 - 1000 * repeats)
    clipped = torch.tensor([one.clip is not None for one in against.settings])
    at_clip = clipped & ((mel.highest - high).abs() <= gap) if mel.capped else torch.zeros_like(clipped)
    density += 15.0 * at_clip
    at_end = at_clip | (at_floor if mel.piled else torch.zeros_like(at_floor))
    return Scores(density, torch.minimum(*far), predicted, outside, beyond, at_end)


def score_free(mel: Measured, against: Table) -> Tensor:
    """Score a mel against settings of which only the bands and the grid are meant: its values may be scaled and shifted.

    Returns densities that compare with those of :func:`score`, before what range and floor add there, (settings,).
    """
    one = torch.ones_like(against.level)
    ours = mel.contrast(one)
    known = against.known & torch.isfinite(ours)
    by_contrast = torch.where(known, ours - against.contrast, 0.0).sum(1) / known.sum(1).clamp(min=1)
    by_change = math.log(mel.change / OVER_FRAMES)
    ln_unit = (by_contrast / _CONTRAST**2 + by_change / _CHANGE_SPREAD**2) / (1 / _CONTRAST**2 + 1 / _CHANGE_SPREAD**2)
    unit = ln_unit.exp()[:, None] * one
    low = torch.full_like(ln_unit, mel.lowest) if mel.piled else mel.lowest - 3 * ln_unit.exp()
    level, part = _undo_floor(mel.average, low[:, None], unit)
    felt = unit * part.clamp(min=0.3)
    off = level / unit - against.level
    off = off - off.median(dim=1, keepdim=True).values
    density, _ = _curves(mel, against, off, part, torch.full_like(ln_unit, _RECORDING**2), unit, 1.0, 0.0, 0.0, 0.0)
    spread = _CHANGE_SPREAD + 1 / math.sqrt(mel.frames)
    change = (mel.change / (OVER_FRAMES * felt.mean(1))).log() / spread
    return density - 0.5 * change**2 - math.log(spread) + step_density(mel, against, unit) - felt.log().sum(1)


def _curves(
    mel: Measured, against: Table, off: Tensor, part: Tensor, shared: Tensor, unit: Tensor,
    variance: float, contrast_off: float, contrast_all: float, contrast_band: float,
) -> tuple[Tensor, Tensor]:
    """Log density of level and contrast, and their distance, (settings,) each."""
    few = 1 + _FRAMES / mel.frames
    own = against.level_own + _BAND_FRAME**2 / mel.frames + (0.3 * (1 - part)) ** 2
    vary = variance * (few * against.level_alike + torch.diag_embed(own)) + shared[:, None, None]
    level, level_distance = _student(off, vary, against.filled)
    shape = _CONTRAST_SHAPE * math.sqrt(1 + _CONTRAST_FRAMES / mel.frames) + against.contrast_shape
    own = against.contrast_own + _CONTRAST_FRAME**2 / mel.frames + contrast_band**2
    vary = against.contrast_alike * shape[:, :, None] * shape[:, None] + torch.diag_embed(own)
    vary = vary + _CONTRAST**2 + contrast_all**2
    difference = mel.contrast(unit) - against.contrast - contrast_off
    contrast, contrast_distance = _student(difference, vary, against.known & torch.isfinite(difference))
    return level + contrast, torch.maximum(level_distance, contrast_distance)


def step_density(mel: Measured, against: Table, unit: Tensor, predicted: bool = False) -> Tensor:
    """Log density of how frames follow each other, (settings,)."""
    steps = mel.steps - unit.abs().log()[:, None]
    first = (steps[:, 0] - against.step).nanmedian(1).values
    ratios = [(mel.steps[1] - mel.steps[0]).nanmedian(), (mel.steps[3] - mel.steps[2]).nanmedian()]
    seen = torch.stack([first, *(ratio.expand_as(first) for ratio in ratios)], dim=1)
    usual = torch.stack([expected_steps(one) for one in against.settings])
    spread = _STEP_SPREAD * (5.0 if predicted else 1.0) * math.sqrt(1 + 100 / mel.frames)
    off = ((seen - usual) / spread).nan_to_num()
    last = (off[:, 2] - _STEP_ALIKE * off[:, 0]) / math.sqrt(1 - _STEP_ALIKE**2)
    squares = off[:, 0] ** 2 + off[:, 1] ** 2 + last**2
    return -0.5 * (_TAILS + 3) * torch.log1p(squares / _TAILS) - spread.log().sum()


@lru_cache(maxsize=2048)
def expected_steps(settings: MelSettings) -> Tensor:
    """Return what the three numbers of steps are for settings, (3,)."""
    ratio = 0.5 * math.log((1 - overlap(settings, 2) ** 2) / (1 - overlap(settings, 1) ** 2))
    slower = math.log(settings.hop_length / settings.sample_rate / _USUAL_HOP)
    return _STEP.double() + torch.tensor([0.0, _OVERLAP * (ratio - 0.271), _HOP_SLOPE * slower])


def _undo_floor(average: Tensor, low: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of each band as it would be without the floor at ``low``, and the part of it that is above.

    Solves E[max(x, low)] = average for the mean of a normal x, by Newton's method.
    """
    deviation = OVER_FRAMES * unit
    wanted = ((average - low) / deviation).clamp(min=0.02)
    above = wanted.clone()
    for _ in range(6):
        part = torch.special.ndtr(above)
        have = above * part + torch.exp(-0.5 * above.square()) / math.sqrt(2 * math.pi)
        above = (above - (have - wanted) / part.clamp(min=0.02)).clamp(min=-2.5)
    return low + deviation * above, torch.special.ndtr(above)


def _alike(position: Tensor, width: float, deviation: Tensor) -> Tensor:
    """Covariance of what is alike over bands within ``width`` mels, (settings, bands, bands)."""
    near = torch.exp(-0.5 * ((position[:, :, None] - position[:, None]) / width) ** 2)
    return near * deviation[:, :, None] * deviation[:, None]


def _student(off: Tensor, vary: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Log density of differences (settings, n) of covariance (settings, n, n), and their distance, of some of them alone."""
    keep = which.double()
    vary = vary * keep[:, :, None] * keep[:, None] + torch.diag_embed(1 - keep)
    factor = torch.linalg.cholesky(vary)
    off = torch.where(which, off, 0.0)
    squares = torch.linalg.solve_triangular(factor, off[:, :, None], upper=False).square().sum((1, 2))
    count = keep.sum(1)
    density = -0.5 * (_TAILS + count) * torch.log1p(squares / _TAILS) - factor.diagonal(dim1=1, dim2=2).log().sum(1)
    return density, (squares / count.clamp(min=1)).sqrt()
