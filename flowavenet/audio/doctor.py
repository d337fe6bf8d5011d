"""The mel doctor: tell in which convention a mel spectrogram is, from its values alone.

A mel seldom says how it was made, and a vocoder given another convention's makes noise of it. But speech is much alike: its
spectrum falls from the first formant on, whoever speaks. What each convention would make of average speech (`averagespeech`)
follows from its settings, so they can be put to the test: the right one is that under which the mel, or rather a sketch of
it (`melsketch`), is the most probable speech (`speechlikelihood`), and none of its values impossible. If two fit alike, or
none does, the finding is unsure.

Recordings of five voices, other than the model was made of, in the 15 conventions that differ in values, 750 mels per figure
(2026-11-21). None was called another convention with certainty:

====================================  ===========  ===========  ===========
recognised (with certainty)           6 s or less  2 s          1 s
====================================  ===========  ===========  ===========
voices that the model was made of     99.3 (90) %  99.2 (82) %  96.9 (65) %
voices left out of it, one at a time  99.2 (86) %  98.5 (75) %  96.3 (55) %
====================================  ===========  ===========  ===========

Of predictions, 20 of three front-ends (18 `rayhane`, 2 `hifigan`) were seen and recognised, 9 of them with certainty; the
constants for predictions were chosen on these. Of three of a fourth (range -4 to 4, hop 275) two are found to be
`rayhane_275` and one `rayhane`. What is blurred over bands has lost where they lie, which is not noticed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from flowavenet.audio.averagespeech import AT_PEAK, OVER_FRAMES, average_speech, rough_over_bands, steadiness
from flowavenet.audio.conventions import CONVENTIONS
from flowavenet.audio.mel import MelSpectrogram
from flowavenet.audio.melsketch import Sketch
from flowavenet.audio.settings import LARGEST_VALUE, MelSettings
from flowavenet.audio.speechlikelihood import PREDICTED, Difference, log_density, undo_floor

STANDARDISED = "standardised"
"""What is found for a mel of mean 0 and variance 1 in each band: the corpus's statistics are wanted to undo it."""

_FLOORED = 0.06  # how the share of values that a floor hides differs from what normal values have
_FULL_SCALE, _FULL_SCALE_SPREAD = 3.2, 0.35  # nats: the loudest of recordings at full scale, above their level's peak
_EMPHASISED = 1.4  # nats that those are above it which are brought to full scale after pre-emphasis
_UNLIKE = 1.6  # times as far from average speech as recordings are: less is none
_HEED = 0.5  # the part of the evidence that counts, as speech is not quite what the model has it to be
_SHORT = 100.0  # frames of which half of that counts
_STEADY = 0.7  # correlation of adjacent frames: theirs is above 0.79


@dataclass(frozen=True)
class Finding:
    """What a mel was found to be, and how sure that is."""

    layout: str
    """`(bands, frames)` or `(frames, bands)`, with `batch of` before it if there are several; or `unknown`."""
    bands: int | None
    """Bands, if the layout is known."""
    names: tuple[str, ...]
    """Conventions whose values are alike, and which fit best; they may differ in where frames sit. None: nothing known."""
    settings: MelSettings | None
    """The settings of the first of them; None also if it is `standardised`."""
    confidence: float
    """Probability of `names` among all that were tried, 0 to 1."""
    sure: bool
    """Whether to rely on it: nothing else comes near, and it is what speech looks like."""
    scores: dict[str, float]
    """Probability by name, best first; names that are alike share theirs."""
    reasons: tuple[str, ...]
    """What was seen, in short sentences."""
    speech: bool = False
    """Whether frames follow each other as those of speech do."""

    @property
    def verdict(self) -> str:
        """`sure` or `unsure`."""
        return "sure" if self.sure else "unsure"

    def arrange(self, mel: Tensor) -> Tensor:
        """Bring the mel that was examined to (batch, bands, frames), float32."""
        if self.bands is None:
            raise ValueError(f"mel has shape {tuple(mel.shape)}, whose layout is unknown; give (bands, frames)")
        mel = _squeezed(mel.float())
        return mel if self.layout.endswith("(bands, frames)") else mel.transpose(1, 2)


def examine(mel: Tensor, conventions: Mapping[str, MelSettings] = CONVENTIONS) -> Finding:
    """Find the layout and the convention of a mel spectrogram of speech.

    Args:
        mel: (bands, frames) or (frames, bands), with any number of dimensions of size 1, and maybe one of several
            utterances before them; any float type. A second is enough; longer is surer.
        conventions: those that are tried, by name.

    >>> examine(torch.randn(80, 100)).verdict
    'unsure'
    """
    shape = tuple(mel.shape)
    if problem := _problem(mel):
        return _nothing(f"shape {shape}, {mel.dtype}: {problem}")
    mel3 = _squeezed(mel.detach().float().cpu())
    known = sorted({settings.n_mels for settings in conventions.values()})
    turns = {"(bands, frames)": mel3, "(frames, bands)": mel3.transpose(1, 2)}
    turns = {layout: turned for layout, turned in turns.items() if turned.shape[1] in known}
    if not turns:
        return _nothing(f"shape {shape}: no dimension is one of {', '.join(map(str, known))} bands")
    layout = max(turns, key=lambda layout: rough_over_bands(turns[layout]))
    turned = turns[layout]
    doubtful = len(turns) == 2 and rough_over_bands(turned) < 3
    bands, steady = turned.shape[1], steadiness(turned)
    results = _scores(turned, conventions, mel.dtype)
    order = sorted(results, key=lambda family: -results[family].density)
    heed = _HEED / (1 + _SHORT * bands / mel3.numel())
    weights = torch.tensor([results[family].density * heed for family in order], dtype=torch.float64).softmax(0).tolist()
    names, confidence = order[0], weights[0]
    misfit, reasons = results[names].distance, results[names].seen
    standardised = names == (STANDARDISED,)
    impossible = any("beyond" in reason for reason in reasons)
    sure = confidence >= 0.95 and misfit < _UNLIKE and steady > _STEADY and not (standardised or doubtful or impossible)
    layout = "batch of " * (len(mel3) > 1) + layout
    said = [f"{layout} of shape {shape}, {str(mel.dtype).removeprefix('torch.')}", *reasons]
    if doubtful:
        said.append("it could as well be the other way round")
    if steady <= _STEADY:
        said.append(f"frames next to each other correlate by {steady:.2f}, those of speech by 0.8 to 1")
    if standardised:
        said.append("each band has mean 0 and variance 1; give the statistics of its corpus")
    elif confidence < 0.95:
        said.append(f"{order[1][0]} fits nearly as well")
    if misfit >= _UNLIKE:
        said.append(f"as {names[0]} it is {misfit:.1f} times as far from average speech as recordings are")
    if len(names) > 1:
        said.append(f"{', '.join(names)} have the same values")
    said.append("the hop cannot be seen in a mel, and is the convention's")
    scores = {name: weight for family, weight in zip(order, weights, strict=True) for name in family}
    settings = None if standardised else conventions[names[0]]
    return Finding(layout, bands, names, settings, confidence, sure, scores, tuple(said), steady > _STEADY)


@dataclass(frozen=True)
class _Score:
    """How well a convention fits: log density, distance from average speech, and what was seen."""

    density: float
    distance: float
    seen: list[str]


def _scores(
    mel: Tensor, conventions: Mapping[str, MelSettings], dtype: torch.dtype
) -> dict[tuple[str, ...], _Score]:
    """Try all conventions of as many bands: the scores of each family of those whose values are alike."""
    families: dict[tuple, list[str]] = {}
    for name, settings in conventions.items():
        if settings.n_mels == mel.shape[1]:
            families.setdefault(settings.values_key, []).append(name)
    sketch = Sketch.of(mel)
    scores = {tuple(names): _score(sketch, conventions[names[0]], names[0], dtype) for names in families.values()}
    return scores | {(STANDARDISED,): _standardised(sketch)}


def _score(sketch: Sketch, settings: MelSettings, name: str, dtype: torch.dtype) -> _Score:
    speech, (low, high) = average_speech(settings), _range(settings)
    unit, offset = _in_values(settings)
    slack = 0.002 * (high - low) + 8 * torch.finfo(dtype).eps * abs(low)
    level, part = undo_floor(sketch.average, low, unit.abs())
    felt = unit.abs() * part.clamp(min=0.3)                            # what a nat is in values, near a floor
    off = Difference(
        level=(level - offset) / unit - speech.level,
        contrast=sketch.contrast(unit.abs()) - speech.contrast,
        change=math.log(sketch.change / (OVER_FRAMES * felt.mean().item())),
        frames=sketch.frames,
        hidden=1 - part,
        beyond=sketch.lowest < low - slack or sketch.highest > high + slack,
        emphasised=settings.preemphasis > 0,
    )
    density, distance, kind = log_density(off, speech)
    density -= felt.log().sum().item()
    floored = (sketch.values <= low + slack).double().mean() - (1 - part).mean()
    density -= 0.5 * (floored.item() / _FLOORED) ** 2
    loudest = ((sketch.loudest - offset) / unit).min().item() - speech.level.max().item() - _FULL_SCALE
    loudest -= AT_PEAK * (settings.peak is None) + _EMPHASISED * (settings.preemphasis > 0)
    density -= 0.5 * max(0.0, loudest / _FULL_SCALE_SPREAD) ** 2
    seen = [f"it is as smooth as what front-ends predict, if {name}"] if kind is PREDICTED else []
    much = 0.1 * (high - low)
    outside = ((sketch.values < low - much) | (sketch.values > high + much)).double().mean().item()
    density -= 1000 * outside + 20 * bool(outside)
    if outside > 0.001:
        seen.append(f"{outside:.1%} of its values are beyond {low:.4g} to {high:.4g}")
    if sketch.clamped:
        at_floor = abs(sketch.lowest - low) <= slack
        count = int((sketch.values == sketch.lowest).sum())
        density += 15 if at_floor else -15 - 1000 * count / sketch.values.numel()
        if at_floor:
            seen.append(f"its lowest value, {sketch.lowest:.4g}, repeats {count} times and is {name}'s floor")
    if sketch.capped and settings.clip is not None and abs(sketch.highest - high) <= slack:
        density += 15
        seen.append(f"its highest value, {sketch.highest:.4g}, repeats and is where {name} is clipped")
    return _Score(density, distance, seen)


def _standardised(sketch: Sketch) -> _Score:
    """The score of mean 0 and variance 1 in each band, whatever bands those are."""
    speech = average_speech(MelSettings(n_mels=len(sketch.average)))
    unit = torch.full_like(sketch.average, 1 / OVER_FRAMES)
    contrast = sketch.contrast(unit) - speech.contrast
    off = Difference(sketch.average / unit, contrast, math.log(sketch.change), sketch.frames, torch.zeros_like(unit))
    density, distance, _ = log_density(off, speech)
    return _Score(density - unit.log().sum().item(), distance, [])


def _in_values(settings: MelSettings) -> tuple[Tensor, Tensor]:
    """The values that a nat of magnitude is, and the value of magnitude 1, per band."""
    scale = torch.tensor(settings.scale, dtype=torch.float64).expand(settings.n_mels)
    nat = {"ln": 1.0, "log10": 1 / math.log(10), "db": 20 / math.log(10)}[settings.log]
    return scale * settings.power * nat, scale * torch.tensor(settings.offset, dtype=torch.float64)


@lru_cache(maxsize=64)
def _range(settings: MelSettings) -> tuple[float, float]:
    return MelSpectrogram(settings).range()


def _problem(mel: Tensor) -> str:
    """What keeps a tensor from being a mel spectrogram; empty: nothing."""
    if not mel.is_floating_point():
        return "not floating point, as a mel is"
    if mel.numel() == 0:
        return "there are no values"
    if bad := int((~torch.isfinite(mel)).sum()):
        return f"{bad} of {mel.numel()} values are not finite"
    if _squeezed(mel).dim() != 3:
        return "more or fewer than bands, frames, and utterances before them"
    if (largest := mel.abs().max().item()) > LARGEST_VALUE:
        return f"its values go up to {largest:.3g}, which no logarithms do"
    return "all values are the same" if mel.max() == mel.min() else ""


def _squeezed(mel: Tensor) -> Tensor:
    """Take dimensions of size 1 away, and put one in front if only two are left: (batch, ., .)."""
    mel = mel.squeeze()
    return mel[None] if mel.dim() == 2 else mel


def _nothing(reason: str) -> Finding:
    return Finding("unknown", None, (), None, 0.0, False, {}, (reason,))
