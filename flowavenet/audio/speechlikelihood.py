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
"""Of the 23 mels of four front-ends that were seen, contrast was 0.1 to 1.8 below that of recordings."""


def of_level(
    off: Tensor, speech: AverageSpeech, hidden: Tensor, kind: Kind, frames: int, emphasised: bool
) -> tuple[float, float]:
    """Log density of a level that is ``off`` average speech's, (n_mels,), in nats; and its distance from it.

    The distance is the root mean square of what ``off`` would be if its parts were independent and of variance 1.

    Args:
        hidden: the part of each band that is below the floor; the rest tells less of it.
        emphasised: whether the convention has pre-emphasis.
    """
    centre = speech.centre
    unheard = torch.sigmoid((centre - _UNHEARD) / _WIDTH)
    shape = _SHAPE + _IN_TREBLE * torch.sigmoid((centre - _TREBLE) / _WIDTH) + 9.0 * unheard
    ripple = _RIPPLE * (0.3 + torch.exp(-centre / _BASS))
    own = _BAND**2 + _BAND_FRAME**2 / frames + (1.4 * unheard) ** 2 + (0.3 * hidden) ** 2
    few = 1 + _FRAMES / frames
    vary = few * (_alike(centre, _SHAPE_REACH, shape) + _alike(centre, _RIPPLE_REACH, ripple)) + torch.diag(own)
    return _student(off, kind.variance * vary + (_EMPHASISED if emphasised else _RECORDING) ** 2, speech.filled)


def of_contrast(off: Tensor, speech: AverageSpeech, kind: Kind, frames: int) -> tuple[float, float]:
    """Log density of a contrast that is ``off`` average speech's, (n_mels - 1,), ignoring NaN; and its distance from it."""
    centre = (speech.centre[1:] + speech.centre[:-1]) / 2
    unheard = torch.sigmoid((centre - _UNHEARD + _WIDTH) / _WIDTH)
    few = 1 + _CONTRAST_FRAMES / frames
    shape = _CONTRAST_SHAPE * math.sqrt(few) + 0.5 * unheard + _RUMBLE * torch.exp(-centre / 150)
    own = _CONTRAST_BAND**2 + _CONTRAST_FRAME**2 / frames + unheard**2 + (_RUMBLE * torch.exp(-centre / 80)) ** 2
    vary = _alike(centre, _CONTRAST_REACH, shape) + torch.diag(own + kind.contrast_band**2)
    vary = vary + _CONTRAST**2 + kind.contrast_all**2
    return _student(off - kind.contrast, vary, speech.filled[1:] & speech.filled[:-1] & torch.isfinite(off))


def of_change(off: float, kind: Kind, frames: int) -> tuple[float, float]:
    """Log density, but for a constant, of a standard deviation over frames whose ln is ``off``; and deviations it is off."""
    spread = kind.change_spread + 1 / math.sqrt(frames)
    deviations = (off - kind.change) / spread
    return -0.5 * deviations**2 - math.log(spread), abs(deviations)


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
    off, vary = off[which], vary[which][:, which]
    if not len(off):
        return 0.0, 0.0
    factor = torch.linalg.cholesky(vary)
    squares = torch.linalg.solve_triangular(factor, off[:, None], upper=False).square().sum().item()
    tails = (_TAILS + len(off)) * math.log1p(squares / _TAILS)
    return -0.5 * tails - factor.diagonal().log().sum().item(), math.sqrt(squares / len(off))
