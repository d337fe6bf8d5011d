"""How speech differs from average speech: how probable the level and the contrast of a mel are, if it is speech.

Both curves over bands are taken to be normal (with a Student's tails, as nothing is quite normal) about average speech's.
Their covariances have a part that all bands share; one that is alike over some bands, wide for voices and rooms and, in the
level, narrow for harmonics; and a little of each band's own, so little that the zigzag of `averagespeech` shows.

There are two kinds of mels. Those *analysed* from recordings have the zigzag, and nothing beyond their convention's range.
Those *predicted* by a front-end are smoother: nearer to average speech, with less contrast, and rounded at the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowavenet.audio.averagespeech import OVER_FRAMES, AverageSpeech, mels

# Standard deviations in nats, reaches in mels, frequencies in Hz.
_RECORDING = 0.7  # of the level of whole recordings; 0.3 for the voices of `averagespeech`, but others record otherwise
_EMPHASISED = 1.5  # the same where pre-emphasis comes first: some bring recordings to a common peak after it
_SHAPE, _SHAPE_REACH = 0.36, 172.0  # of the level's shape
_RIPPLE, _RIPPLE_REACH, _BASS = 0.364, 41.0, 543.0  # of harmonics, which show most in the bass, below so many Hz
_BAND, _BAND_FRAME = 0.021, 0.46  # of each band on its own: of a voice, and of a single frame
_TREBLE, _IN_TREBLE = 7000.0, 1.5  # from where on recordings differ more in shape, and by how much: some are cut there
_UNHEARD, _WIDTH = 10900.0, 420.0  # from where on, and how gradually, many recordings have nothing
_FRAMES = 140.0  # so short a piece has twice the variance of shape, as it has what its few sounds have
_CONTRAST, _CONTRAST_SHAPE, _CONTRAST_REACH = 0.2, 0.103, 329.0
_CONTRAST_BAND, _CONTRAST_FRAME, _CONTRAST_FRAMES, _RUMBLE = 0.072, 1.32, 61.0, 0.48
_TAILS = 30.0  # degrees of freedom


@dataclass(frozen=True)
class Kind:
    """What mels of a kind have in common."""

    name: str
    variance: float
    """Of the level's shape, as a part of what recordings have."""
    contrast: float
    """By how much the contrast is above that of recordings, ln."""
    contrast_all: float
    """How much that differs from mel to mel, and ..."""
    contrast_band: float
    """... from band to band, beyond what it does in recordings."""
    change: float
    """By how much the standard deviation over frames is above that of recordings, ln, ..."""
    change_spread: float
    """... and how much that differs from mel to mel."""
    beyond: float
    """What values beyond the range cost, nats; far beyond it, they are out of the question for either."""
    rarer: float
    """How much rarer the kind is taken to be, nats."""


ANALYSED = Kind("analysed", 1.0, 0.0, 0.0, 0.0, 0.0, 0.12, 20.0, 0.0)
PREDICTED = Kind("predicted", 0.6, -0.8, 0.8, 0.25, -0.15, 0.3, 0.0, 3.0)
"""By 23 mels of four front-ends, whose contrast was 0.1 to 1.8 below that of recordings."""
KINDS = ANALYSED, PREDICTED


@dataclass(frozen=True)
class Difference:
    """How a mel differs from average speech, if it is of a convention; in nats of magnitude."""

    level: Tensor
    """(n_mels,)."""
    contrast: Tensor
    """(n_mels - 1,), NaN where it is not known."""
    change: float
    """ln of its standard deviation over frames, as a part of what is usual."""
    frames: int
    hidden: Tensor
    """The part of each band that is below the floor, (n_mels,); the rest tells less of it."""
    beyond: bool = False
    """Whether there are values beyond the range."""
    emphasised: bool = False
    """Whether the convention has pre-emphasis."""


def log_density(off: Difference, speech: AverageSpeech) -> tuple[float, float, Kind]:
    """How probable speech is that is so far off average, of either kind; its distance; and which kind it rather is.

    The log density is in nats, but for a constant. The distance is the largest of the curves' root mean squares, if their
    parts were independent and of variance 1, as the kind has it that is less far.
    """
    of_level, of_contrast = _level_covariance(off, speech), _contrast_covariance(off, speech)
    own = torch.eye(len(of_contrast), dtype=of_contrast.dtype)
    known = speech.filled[1:] & speech.filled[:-1] & torch.isfinite(off.contrast)
    recording = _EMPHASISED if off.emphasised else _RECORDING
    densities, distances = [], []
    for kind in KINDS:
        level, level_distance = _student(off.level, kind.variance * of_level + recording**2, speech.filled)
        vary = of_contrast + kind.contrast_all**2 + kind.contrast_band**2 * own
        contrast, contrast_distance = _student(off.contrast - kind.contrast, vary, known)
        spread = kind.change_spread + 1 / math.sqrt(off.frames)
        deviations = (off.change - kind.change) / spread
        change = -0.5 * deviations**2 - math.log(spread)
        densities.append(level + contrast + change - kind.beyond * off.beyond - kind.rarer)
        distances.append(max(level_distance, contrast_distance, abs(deviations) / 2))
    rather = KINDS[densities.index(max(densities))]
    return torch.tensor(densities, dtype=torch.float64).logsumexp(0).item(), min(distances), rather


def _level_covariance(off: Difference, speech: AverageSpeech) -> Tensor:
    """Of the level's shape, (n_mels, n_mels), without what all bands share."""
    centre = speech.centre
    unheard = torch.sigmoid((centre - _UNHEARD) / _WIDTH)
    shape = _SHAPE + _IN_TREBLE * torch.sigmoid((centre - _TREBLE) / _WIDTH) + 9.0 * unheard
    ripple = _RIPPLE * (0.3 + torch.exp(-centre / _BASS))
    own = _BAND**2 + _BAND_FRAME**2 / off.frames + (1.4 * unheard) ** 2 + (0.3 * off.hidden) ** 2
    few = 1 + _FRAMES / off.frames
    return few * (_alike(centre, _SHAPE_REACH, shape) + _alike(centre, _RIPPLE_REACH, ripple)) + torch.diag(own)


def _contrast_covariance(off: Difference, speech: AverageSpeech) -> Tensor:
    """Of the contrast of recordings, (n_mels - 1, n_mels - 1)."""
    centre = (speech.centre[1:] + speech.centre[:-1]) / 2
    unheard = torch.sigmoid((centre - _UNHEARD + _WIDTH) / _WIDTH)
    few = 1 + _CONTRAST_FRAMES / off.frames
    shape = _CONTRAST_SHAPE * math.sqrt(few) + 0.5 * unheard + _RUMBLE * torch.exp(-centre / 150)
    own = _CONTRAST_BAND**2 + _CONTRAST_FRAME**2 / off.frames + unheard**2 + (_RUMBLE * torch.exp(-centre / 80)) ** 2
    return _alike(centre, _CONTRAST_REACH, shape) + torch.diag(own) + _CONTRAST**2


def undo_floor(average: Tensor, low: float, unit: Tensor) -> tuple[Tensor, Tensor]:
    """What the mean of a band would be without the floor at ``low``, if its values vary as speech does; and the part above.

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


def _alike(centre: Tensor, reach: float, deviation: Tensor) -> Tensor:
    """Covariance of what is alike over bands within ``reach``, a standard deviation on the mel scale."""
    position = mels(centre)
    return torch.exp(-0.5 * ((position[:, None] - position) / reach) ** 2) * deviation[:, None] * deviation


def _student(off: Tensor, vary: Tensor, which: Tensor) -> tuple[float, float]:
    """Log density of what is off by so much, and its distance, of those bands alone."""
    off, vary = off[which], vary[which][:, which]
    if not len(off):
        return 0.0, 0.0
    factor = torch.linalg.cholesky(vary)
    squares = torch.linalg.solve_triangular(factor, off[:, None], upper=False).square().sum().item()
    tails = (_TAILS + len(off)) * math.log1p(squares / _TAILS)
    return -0.5 * tails - factor.diagonal().log().sum().item(), math.sqrt(squares / len(off))
