"""Take in mels of any convention: find out what they are, and bring them to what a vocoder wants.

A mel that is the vocoder's own is left as it is, bit for bit. One that is surely of another convention is converted, with
what that costs. Where the doctor is unsure, the vocoder's own convention has the benefit of the doubt, as most mels are
made for the vocoder that they are given to; only if it is out of the question is the best guess taken. Either is said.
Mels that come together are mostly of one front-end, and what each alone leaves open, all of them may tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from flowavenet.audio.calibration import estimate_offset, with_offset
from flowavenet.audio.conventionfiles import user_conventions
from flowavenet.audio.conventions import CONVENTIONS, convention
from flowavenet.audio.conversion import Conversion, Converter, convert
from flowavenet.audio.doctor import STANDARDISED, Finding, examine
from flowavenet.audio.melfiles import MelFile
from flowavenet.audio.settings import MelSettings

OTHER = "unnamed"
"""What a convention is called that has no name."""
DOUBT = 0.02
"""The vocoder's own convention is taken if it is at least so probable."""
ENOUGH = 4096
"""Frames that are looked at to find out what a mel is."""
COMPANY = 20
"""Mels of a folder that are looked at to find out what all of them are."""


@dataclass(frozen=True)
class Intake:
    """What mels were found to be, and how they become what a vocoder wants."""

    settings: MelSettings
    """What they are."""
    wanted: MelSettings
    """What the vocoder was trained on."""
    layout: str
    """`(bands, frames)` or `(frames, bands)`, leading dimensions aside."""
    note: str = ""
    """What a user should know, in one line; empty: they are what is wanted, for sure."""
    finding: Finding | None = None
    """How they were recognised; None if what they are was given."""
    conversion: Conversion | None = None
    """What converting the mel that was looked at costs; None: nothing has to be done, or none was looked at."""
    level_db: float = 0.0
    """Added to their level."""

    @property
    def converts(self) -> bool:
        """Whether they are written otherwise than the vocoder wants them."""
        return not self.settings.alike(self.wanted)

    def arrange(self, mel: Tensor) -> Tensor:
        """Bring a mel of the layout to (batch, bands, frames), float32 or wider."""
        mel = mel if mel.dim() == 3 else _flat(mel)[None]
        mel = mel.to(torch.promote_types(mel.dtype, torch.float32))
        return mel.transpose(1, 2) if self.layout == "(frames, bands)" else mel

    def frames(self, frames: int) -> int:
        """How many frames so many become."""
        return Converter(self.settings, self.wanted).frames(frames) if self.converts else frames

    def __call__(self, mel: Tensor) -> Tensor:
        """Bring a whole mel (batch, bands, frames) to what the vocoder wants."""
        return torch.cat(list(self.stream([mel])), dim=2)

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Bring pieces of a mel, (batch, bands, any number of frames), to what the vocoder wants, as they arrive."""
        if self.level_db:
            pieces = (with_offset(piece, self.settings, self.level_db) for piece in pieces)
        return Converter(self.settings, self.wanted).stream(pieces) if self.converts else iter(pieces)


def take_in(
    mel: Tensor, wanted: MelSettings, source: str | MelSettings | None = None, level_db: float = 0.0,
    company: Finding | None = None,
) -> Intake:
    """Find out what a mel is, and how it becomes one of the settings that are wanted.

    Args:
        mel: as a front-end made it: (bands, frames) or (frames, bands), with leading dimensions of size 1, or (batch, ., .).
            What is found holds for all that its front-end makes.
        wanted: the vocoder's settings.
        source: what the mel is: a convention's name, the path of a YAML file, or settings; None: that is to be found out.
        level_db: to add to its level, dB of magnitude.
        company: what the mels that came with it were found to be (:func:`examine_together`), which counts if it alone leaves
            the doctor unsure.

    Raises ValueError, in one line with the cure, for what cannot be understood.

    >>> from flowavenet.audio.conventions import convention
    >>> take_in(torch.zeros(1, 80, 200), convention("hifigan"), "matcha").note
    'taken as matcha, as was said; converted to hifigan, 0.00 dB lost'
    """
    own = _name(wanted)
    if source is None:
        settings, layout, said, finding = _recognised(mel, wanted, own, company)
    else:
        settings = source if isinstance(source, MelSettings) else convention(source)
        layout, said, finding = _layout(mel, settings), f"taken as {_name(settings)}, as was said", None
    intake = Intake(settings, wanted, layout, finding=finding, level_db=level_db)
    conversion = None
    if not settings.alike(wanted):
        _, conversion = convert(intake.arrange(mel)[..., :ENOUGH], settings, wanted)
        said += f"; converted to {own}, {conversion.loss_db:.2f} dB lost"
    if level_db:
        said += f"; made {level_db:+g} dB louder"
    elif said:
        said += _level(intake.arrange(mel)[..., :ENOUGH], settings)
    return replace(intake, note=said.removeprefix("; "), conversion=conversion)


def examine_together(files: Sequence[Path], wanted: MelSettings) -> Finding | None:
    """Find out what the mel files of a folder are, by a few of them, which together show more than each alone.

    None if there are no two that can be read, or not all of as many bands, and so not of one front-end.
    """
    known, mels = _known(wanted), []
    for file in files[:: -(-len(files) // COMPANY)]:
        with suppress(ValueError, OSError):                            # will be said of the file when its turn comes
            mel = MelFile(file).beginning(ENOUGH)
            finding = examine(mel, known)
            if finding.bands:
                mels.append(finding.arrange(mel))
    if len(mels) < 2 or len({mel.shape[1] for mel in mels}) > 1:
        return None
    return examine(torch.cat(mels, dim=2), known)


def _recognised(
    mel: Tensor, wanted: MelSettings, own: str, company: Finding | None
) -> tuple[MelSettings, str, str, Finding]:
    """What a mel is, its layout, what is to be said about that, and the evidence."""
    known = _known(wanted)
    finding = examine(_beginning(mel), known)
    if finding.bands is None:
        said = f"taken as {own}, the vocoder's own, as nothing can be told: {finding.reasons[0]}"
        return wanted, _layout(mel, wanted), said, finding
    layout = finding.layout.removeprefix("batch of ")
    if company and not finding.sure and company.bands == finding.bands:
        finding = company
    if finding.names == (STANDARDISED,) and finding.confidence > 0.9 and finding.speech:
        raise ValueError(
            "each band has mean 0 and variance 1, whose statistics are not in it; give them, in a YAML file of "
            "'like: parallel_wavegan' and 'statistics: stats.npy', as its mel convention"
        )
    if finding.sure:
        return known[finding.names[0]], layout, "" if own in finding.names else f"is {finding.names[0]}", finding
    odds = ", ".join(f"{name} {part:.0%}" for name, part in list(finding.scores.items())[:3])
    if wanted.n_mels == finding.bands and (finding.scores[own] >= DOUBT or not finding.speech):
        return wanted, layout, f"taken as {own}, the vocoder's own, which is not sure: {odds}", finding
    best = next(name for name in finding.scores if name != STANDARDISED)
    return known[best], layout, f"taken as {best}, which is not sure: {odds}", finding


def _level(mel: Tensor, settings: MelSettings) -> str:
    """What is to be said about a level that is not that of any recording; mostly nothing."""
    with suppress(ValueError):                                         # nothing is above the floor
        off = estimate_offset(mel, settings)
        if abs(off.db) > 3 * off.error_db:
            where = "above" if off.db > 0 else "below"
            return f"; its level is {abs(off.db):.0f} dB {where} average speech, which --level {-off.db:.0f} puts right"
    return ""


def _name(settings: MelSettings) -> str:
    """What a convention is called."""
    same = [name for name, other in CONVENTIONS.items() if other.alike(settings)]
    return next((name for name in same if CONVENTIONS[name] == settings), same[0] if same else OTHER)


def _known(wanted: MelSettings) -> dict[str, MelSettings]:
    """All conventions: the vocoder's, the published, and the user's."""
    return {_name(wanted): wanted} | CONVENTIONS | {str(name): convention(str(name)) for name in user_conventions()}


def _layout(mel: Tensor, settings: MelSettings) -> str:
    """Which dimension is the bands, if there are so many."""
    shape, bands = tuple(mel.shape), settings.n_mels
    if len(shape) >= 2 and shape[-2] == bands:
        return "(bands, frames)"
    if len(shape) >= 2 and shape[-1] == bands:
        return "(frames, bands)"
    raise ValueError(f"shape {shape} has no dimension of {bands} bands, as its mel convention has; name another one")


def _beginning(mel: Tensor) -> Tensor:
    """As much of a mel as is looked at."""
    return mel[..., :ENOUGH, :ENOUGH] if mel.dim() >= 2 else mel


def _flat(mel: Tensor) -> Tensor:
    """Take leading dimensions of size 1 away, down to two."""
    while mel.dim() > 2 and mel.shape[0] == 1:
        mel = mel[0]
    return mel
