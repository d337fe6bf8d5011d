"""The mel doctor: tell in which convention a mel spectrogram is, from its values alone.

A mel seldom says how it was made, and a vocoder given another convention's makes noise of it. But speech is much alike: its
spectrum falls from the first formant on, whoever speaks. What each convention would make of average speech
(`averagespeech`) follows from its settings, so they can be put to the test: the right one is that under which the mel is
the most probable speech, and none of its values impossible. The width of each band leaves its marks in the low bands,
which tells even conventions that differ in nothing but their bands. If two fit alike, or none does, the finding is unsure.

Of 50 recordings of five voices in all 17 conventions 98 % are recognised, 80 % with certainty, none of them wrongly; of
pieces of 100 frames 92 %, 52 % with certainty, and one of 850 wrongly. They are other recordings than the model was made of,
but of its voices; a voice that it does not know is more often called unsure, mostly of which band is the highest: of five
conventions of one such voice 80 % were recognised, 36 % with certainty, none of them wrongly (2026-11-21).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from flowavenet.audio.averagespeech import (
    OVER_FRAMES,
    expected,
    hertz,
    in_values,
    likelihood,
    likelihood_of_change,
    rough_over_bands,
    steadiness,
)
from flowavenet.audio.conventions import CONVENTIONS
from flowavenet.audio.mel import MelSpectrogram
from flowavenet.audio.settings import MelSettings

STANDARDISED = "standardised"
"""What is found for a mel of mean 0 and variance 1 in each band: the corpus's statistics are wanted to undo it."""

_FLOORED = 0.06  # how the share of values that a floor hides differs from what average speech has
_UNLIKE = 1.5  # times as far from average speech as recordings are: less is none
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
    order = sorted(results, key=lambda family: -results[family][0])
    # Half the evidence counts, and less of a short piece: it is not as normal as the model of speech has it.
    heed = 1 / (2 + 200 * bands / mel3.numel())
    weights = torch.tensor([results[family][0] * heed for family in order], dtype=torch.float64).softmax(0).tolist()
    names, confidence = order[0], weights[0]
    _, misfit, reasons = results[names]
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


def _scores(
    mel: Tensor, conventions: Mapping[str, MelSettings], dtype: torch.dtype
) -> dict[tuple[str, ...], tuple[float, float, list[str]]]:
    """For each family of conventions that are alike: log density, how far it is from average speech, and what was seen."""
    families: dict[MelSettings, list[str]] = {}
    for name, settings in conventions.items():
        if settings.n_mels == mel.shape[1]:
            families.setdefault(_visible(settings), []).append(name)
    flat = mel.transpose(0, 1).flatten(1)                              # (bands, frames)
    least, count = flat.min().item(), int((flat == flat.min()).sum())
    clamped = count > max(2, 0.0005 * flat.numel())                    # a floor repeats exactly, a minimum does not
    heard = flat[:, (flat > least).any(0)]                             # without digital silence
    average, change, frames = heard.mean(1), heard.std(1, correction=0).mean(), heard.shape[1]
    results = {}
    for names in families.values():
        settings = conventions[names[0]]
        low, high = _range(settings)
        mean, centre = expected(settings)
        value, unit, part = in_values(mean, settings, low)
        slack = 0.002 * (high - low) + 8 * torch.finfo(dtype).eps * abs(low)
        score, misfit = likelihood((average - value) / unit, unit, centre, frames)
        by_change, off_change = likelihood_of_change(change / (unit.abs() * OVER_FRAMES).mean(), frames)
        score, misfit = score + by_change, max(misfit, off_change / 2)
        floored = (heard <= low + slack).float().mean() - (1 - part).mean()
        score -= 0.5 * (floored.item() / _FLOORED) ** 2
        reasons = []
        # No analysis goes beyond the range, but a front-end's predictions do, by a little.
        little, much = slack, 0.1 * (high - low)
        score -= 5 * bool((flat < low - little).any() or (flat > high + little).any())
        outside = ((flat < low - much) | (flat > high + much)).float().mean().item()
        score -= 1000 * outside + 20 * bool(outside)
        if outside > 0.001:
            reasons.append(f"{outside:.1%} of its values are beyond {low:.4g} to {high:.4g}")
        if clamped:
            at_floor = abs(least - low) <= slack
            score += 15 if at_floor else -15 - 1000 * count / flat.numel()
            if at_floor:
                reasons.append(f"its lowest value, {least:.4g}, repeats {count} times and is {names[0]}'s floor")
        results[tuple(names)] = (score, misfit, reasons)
    if families:
        unit = torch.full_like(average, 1 / OVER_FRAMES)
        centre = hertz(torch.linspace(200, 2200, len(average)))
        score, misfit = likelihood(average / unit, unit, centre, frames)
        results[(STANDARDISED,)] = (score + likelihood_of_change(change, frames)[0], misfit, [])
    return results


@lru_cache(maxsize=64)
def _range(settings: MelSettings) -> tuple[float, float]:
    return MelSpectrogram(settings).range()


def _visible(settings: MelSettings) -> MelSettings:
    """The settings without what values do not show."""
    return replace(settings, frame_centre="hop", eps=1e-14, pad_mode="reflect", peak=None)


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
    return "all values are the same" if mel.max() == mel.min() else ""


def _squeezed(mel: Tensor) -> Tensor:
    """Take dimensions of size 1 away, and put one in front if only two are left: (batch, ., .)."""
    mel = mel.squeeze()
    return mel[None] if mel.dim() == 2 else mel


def _nothing(reason: str) -> Finding:
    return Finding("unknown", None, (), None, 0.0, False, {}, (reason,))
