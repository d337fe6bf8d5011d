"""Detect in which convention a mel spectrogram is, from its values alone; or say that no listed one explains it.

A mel seldom says how it was made, and a vocoder makes noise of one in another convention. But speech is much alike: what
each convention makes of average speech follows from its settings (`speech`), and the right one is that under which the mel
is the most probable speech (`candidates`). The list of conventions is open: many a project has its own. So the best of the
list is compared with settings that nobody listed but somebody could have (`neighbours`): another rate, window, hop, range
of bands, another way of writing values. Only if none of them explains the mel as well, and nothing of it is impossible, is
a detection sure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowavenet.audio.conventions import CONVENTIONS
from flowavenet.audio.settings import LARGEST_VALUE, MelSettings
from flowavenet.meldetect.candidates import Scores, score, score_free, step_density, table
from flowavenet.meldetect.measure import Measured, rough_over_bands, steadiness
from flowavenet.meldetect.neighbours import neighbours, other_emphasis, other_hops, other_values

_HEED = 0.5  # part of the evidence that counts, as speech is not quite what the model has it to be
_SHORT = 100.0  # frames of which half of that counts
_LIKELY = 0.95  # probability that a sure detection has
_AHEAD, _BEHIND = 2.0, 10.0  # nats by which settings that are not listed may explain a mel better: sure, unknown
_UNLIKE, _UNKNOWN = 1.5, 2.5  # times as far from average speech as recordings are: not sure, unknown
_OTHER_HOP, _OWN_HOP = 3.0, 6.0  # nats, likewise of another hop: predicted mels are as smooth as those of a shorter one
_OWN = 4.0  # nats by which a vocoder's own convention is likelier than others
_TILTED = 6.0  # nats by which pre-emphasis may explain a mel better: some voices are as bright as that
_RIVAL = 3.0  # nats by which a sure detection explains a mel better than other ways of writing the same bands
_STEADY = 0.7  # correlation of adjacent frames: that of speech is above 0.79
_MEAN, _DEVIATION = 0.45, (0.7, 1.4)  # root mean square of band means, and band deviations, of a standardised mel
_NATURAL = {"offset": 0.0, "scale": 1.0, "clip": None}


@dataclass(frozen=True)
class Detection:
    """What a mel was found to be, and how sure that is."""

    verdict: str
    """`sure`, `unsure`, `unknown` (no listed convention explains it), or `standardised` (mean 0 and variance 1 per band)."""
    layout: str
    """`(bands, frames)` or `(frames, bands)`, with `batch of` before it if there are several; or `unknown`."""
    bands: int | None
    """Bands, if the layout is known."""
    names: tuple[str, ...]
    """Conventions whose values are alike, and which fit best; they may differ in where frames sit. Empty: none was tried."""
    settings: MelSettings | None
    """Settings of the first of them."""
    scores: dict[str, float]
    """Probability by name among those that are listed, best first; names that are alike share theirs."""
    reasons: tuple[str, ...]
    """What was seen, in short sentences."""
    speech: bool = False
    """True if frames follow each other as those of speech do."""

    @property
    def sure(self) -> bool:
        """True if one can rely on it."""
        return self.verdict == "sure"

    @property
    def confidence(self) -> float:
        """Probability of `names` among all that are listed, 0 to 1."""
        return self.scores[self.names[0]] if self.names else 0.0

    def arrange(self, mel: Tensor) -> Tensor:
        """Bring the mel that was examined to (batch, bands, frames), float32."""
        if self.bands is None:
            raise ValueError(f"mel has shape {tuple(mel.shape)}, whose layout is unknown; give (bands, frames)")
        mel = _squeezed(mel.float())
        return mel if self.layout.endswith("(bands, frames)") else mel.transpose(1, 2)


def detect(mel: Tensor, conventions: Mapping[str, MelSettings] = CONVENTIONS, own: str | None = None) -> Detection:
    """Detect the layout and the convention of a mel spectrogram of speech.

    Args:
        mel: (bands, frames) or (frames, bands), with any number of dimensions of size 1, and maybe one of several
            utterances before them; any float type. A second is enough; longer is surer.
        conventions: those that are listed, by name.
        own: the one that the mel was probably made for, a vocoder's own, which is taken to be likelier than the others.

    >>> detect(torch.rand(80, 100)).sure
    False
    """
    shape = tuple(mel.shape)
    if problem := _problem(mel):
        return Detection("unknown", "unknown", None, (), None, {}, (f"shape {shape}, {mel.dtype}: {problem}",))
    mel3 = _squeezed(mel.detach().float().cpu())
    known = sorted({settings.n_mels for settings in conventions.values()})
    turns = {"(bands, frames)": mel3, "(frames, bands)": mel3.transpose(1, 2)}
    turns = {layout: turned for layout, turned in turns.items() if turned.shape[1] in known}
    if not turns:
        said = f"shape {shape}: no dimension is one of {', '.join(map(str, known))} bands"
        return Detection("unknown", "unknown", None, (), None, {}, (said,))
    layout = max(turns, key=lambda layout: rough_over_bands(turns[layout]))
    turned = turns[layout]
    doubtful = len(turns) == 2 and rough_over_bands(turned) < 3
    steady = steadiness(turned)
    layout = "batch of " * (len(mel3) > 1) + layout
    said = [f"{layout} of shape {shape}, {str(mel.dtype).removeprefix('torch.')}"]
    if doubtful:
        said.append("it could as well be the other way round")
    if steady <= _STEADY:
        said.append(f"frames next to each other correlate by {steady:.2f}, those of speech by 0.8 to 1")
    measured = _Mel(turned, torch.finfo(mel.dtype).eps)
    found = measured.among(conventions, own)
    verdict = found.verdict
    if verdict == "sure" and (doubtful or steady <= _STEADY):
        verdict = "unsure"
    if verdict != "standardised" and steady <= _STEADY / 2:
        verdict = "unknown"
    return replace(found, verdict=verdict, layout=layout, reasons=(*said, *found.reasons), speech=steady > _STEADY)


class _Mel:
    """A mel (batch, bands, frames) that is compared with conventions; what is measured of it is measured once."""

    def __init__(self, mel: Tensor, rounding: float):
        self.slack = 8 * rounding
        self.plain = Measured.of(mel)
        self.bands = mel.shape[1]
        flat = mel.double().transpose(0, 1).flatten(1)
        means, deviations = flat.mean(1), flat.std(1)
        inside = ((deviations > _DEVIATION[0]) & (deviations < _DEVIATION[1])).double().mean()
        self.standardised = not self.plain.clamped and bool(means.square().mean().sqrt() < _MEAN and inside > 0.9)
        positive = self.plain.lowest >= 0 and not self.standardised
        self.of_ln = Measured.of(mel.double().clamp(min=1e-10).log()) if positive else None

    def among(self, conventions: Mapping[str, MelSettings], own: str | None) -> Detection:
        """Find the best of conventions, and whether it explains the mel."""
        families: dict[tuple, list[str]] = {}
        for name, settings in conventions.items():
            if settings.n_mels == self.bands:
                families.setdefault(settings.values_key, []).append(name)
        density, of = [], []
        for linear, mel in ((False, self.plain), (True, self.of_ln)):
            listed = (conventions[names[0]] for names in families.values())
            settings = tuple(one for one in listed if (one.log == "linear") == linear)
            if settings and mel:
                scores = score(mel, table(settings), self.slack)
                made_for = torch.tensor([own in families[one.values_key] for one in settings])
                density += (scores.density + _OWN * made_for).tolist()
                of += [(one, scores, number, mel) for number, one in enumerate(settings)]
        if not of:
            return Detection("unknown", "", self.bands, (), None, {}, ("no listed convention has such values",))
        heed = _HEED / (1 + _SHORT / self.plain.frames)
        weights = (torch.tensor(density, dtype=torch.float64) * heed).softmax(0).tolist()
        order = sorted(range(len(of)), key=lambda number: -density[number])
        names = [tuple(families[of[number][0].values_key]) for number in order]
        probable = {name: weights[number] for number, group in zip(order, names, strict=True) for name in group}
        settings, scores, number, mel = of[order[0]]
        verdict, said = self._verdict(settings, scores, number, mel, names[0][0], own in names[0])
        if weights[order[0]] < _LIKELY:
            verdict = "unsure" if verdict == "sure" else verdict
            said.append(f"{names[1][0]} fits nearly as well")
        if self.standardised:
            verdict, said = "standardised", ["each band has about mean 0 and variance 1"]
        elif len(names[0]) > 1:
            said.append(f"{', '.join(names[0])} have the same values")
        return Detection(verdict, "", self.bands, names[0], conventions[names[0][0]], probable, tuple(said))

    def _verdict(
        self, settings: MelSettings, scores: Scores, number: int, mel: Measured, name: str, own: bool
    ) -> tuple[str, list[str]]:
        """Say whether a convention, the best of its list, explains the mel, and what was seen."""
        said: list[str] = []
        distance, outside = scores.distance[number].item(), scores.outside[number].item()
        predicted, at_end = bool(scores.predicted[number]), bool(scores.at_end[number])
        sure = distance < _UNLIKE and not scores.beyond[number]
        known = distance < _UNKNOWN and outside < 0.001
        if outside >= 0.001:
            said.append(f"{outside:.1%} of its values are far beyond those of {name}")
        if distance >= _UNLIKE:
            said.append(f"as {name} it is {distance:.1f} times as far from average speech as recordings are")
        if at_end:
            said.append(f"values repeat at an end of {name}'s range, {mel.lowest:.4g} to {mel.highest:.4g}")
        elif mel.clamped:
            said.append(f"its lowest value, {mel.lowest:.4g}, repeats and is not {name}'s floor")
            sure = False
        if predicted:
            said.append(f"it is as smooth as what front-ends predict, if {name}")
        bare = _open(settings)
        others = (*neighbours(settings), other_emphasis(bare))
        plain = score_free(mel, table((bare, *others), False))
        plain[-1] -= _TILTED
        best = int(plain[1:].argmax())
        ahead = (plain[1 + best] - plain[0]).item()
        if not predicted and ahead > _AHEAD:
            sure, known = False, known and ahead < _BEHIND * (2 if at_end else 1)
            said.append(f"{_difference(settings, others[best])} would explain it better than {name} ({ahead:.0f} nats)")
        hops = other_hops(settings)
        steps = step_density(mel, table((settings, *hops), False), table((settings,), False).unit)
        best = int(steps[1:].argmax())
        ahead = (steps[1 + best] - steps[0]).item()
        if not predicted and ahead > (_OWN_HOP if own else _OTHER_HOP):
            sure, known = False, known and ahead < _BEHIND
            said.append(f"its frames follow each other as with hop {hops[best].hop_length}, not {settings.hop_length}")
        scaled = any(getattr(settings, field) != plain for field, plain in _NATURAL.items())
        if scaled and not at_end:
            sure = False
            said.append("neither end of its range was seen, so that its scale is a guess")
        written = other_values(settings)
        ahead = (score(mel, table(written), self.slack).density.max() - scores.density[number]).item()
        if ahead > -_RIVAL:
            sure, known = False, known and ahead < _BEHIND
            said.append("its values could be another logarithm, or decibels of another range")
        return "sure" if sure and known else "unsure" if known else "unknown", said


def _difference(settings: MelSettings, other: MelSettings) -> str:
    """Say in what other settings differ."""
    words = []
    if other.sample_rate != settings.sample_rate:
        words.append(f"{other.sample_rate} Hz")
    if (other.win_length, other.n_fft) != (settings.win_length, settings.n_fft):
        words.append(f"a window of {other.win_length}")
    if (other.f_min, other.f_max) != settings.band_edges:
        words.append(f"bands of {other.f_min:g} to {other.f_max:g} Hz")
    if other.mel_scale != settings.mel_scale:
        words.append(f"the mel scale {other.mel_scale}")
    if other.preemphasis != settings.preemphasis:
        words.append(f"pre-emphasis {other.preemphasis:g}")
    return " and ".join(words)


def _open(settings: MelSettings) -> MelSettings:
    """The settings with values that are not said, as those of :func:`neighbours`."""
    low, high = settings.band_edges
    scaled = dict(f_min=low, f_max=high, band_rate=None) if settings.band_rate is None else {}
    return replace(settings, log="ln", offset=0.0, scale=1.0, clip=None, peak=None, frame_centre="hop", **scaled)


def _problem(mel: Tensor) -> str:
    """Say what keeps a tensor from being a mel spectrogram; empty: nothing."""
    if not mel.is_floating_point():
        return "not floating point, as a mel is"
    if mel.numel() == 0:
        return "there are no values"
    if bad := int((~torch.isfinite(mel)).sum()):
        return f"{bad} of {mel.numel()} values are not finite"
    if _squeezed(mel).dim() != 3:
        return "more or fewer than bands, frames, and utterances before them"
    if (largest := mel.abs().max().item()) > LARGEST_VALUE:
        return f"its values go up to {largest:.3g}, which no mel's do"
    return "all values are the same" if mel.max() == mel.min() else ""


def _squeezed(mel: Tensor) -> Tensor:
    """Take dimensions of size 1 away, and put one in front if only two are left: (batch, ., .)."""
    mel = mel.squeeze()
    return mel[None] if mel.dim() == 2 else mel
