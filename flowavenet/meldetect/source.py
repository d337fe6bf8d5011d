"""Identify the mels that a vocoder is given, and bring them to the convention that it wants.

A mel that is the vocoder's own is left as it is, bit for bit. One that is surely of another convention is converted. If the
detection is unsure, the vocoder's own convention has the benefit of the doubt, as most mels are made for the vocoder that
they are given to; only if it is out of the question, the best guess is taken. One that no listed convention explains is
refused, and the error says what was seen and how to go on. Mels of one folder are mostly of one front-end, and are looked
at together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from flowavenet.audio.conventionfiles import user_conventions
from flowavenet.audio.conventions import CONVENTIONS, convention
from flowavenet.audio.conversion import Conversion, Converter, convert
from flowavenet.audio.melfiles import MelFile
from flowavenet.audio.settings import MelSettings
from flowavenet.meldetect.detect import Detection, detect
from flowavenet.meldetect.level import estimate_offset, with_offset

OTHER = "unnamed"
"""Name of a convention that has none."""
DOUBT = 0.02
"""The vocoder's own convention is taken if it is at least so probable."""
ENOUGH = 4096
"""Frames that are looked at to detect what a mel is."""
TOGETHER = 20
"""Mels of a folder that are looked at to detect what all of them are."""
CURE = "name its convention (--mel-convention), or give its settings (--mel-config FILE; --mel-rate, --mel-hop, --mel-log)"


@dataclass(frozen=True)
class MelSource:
    """What mels are, and how they become what a vocoder wants."""

    settings: MelSettings
    """What they are."""
    wanted: MelSettings
    """What the vocoder was trained on."""
    layout: str
    """`(bands, frames)` or `(frames, bands)`, leading dimensions aside."""
    note: str = ""
    """What a user should know, in one line; empty: they are what is wanted, for sure."""
    level_note: str = ""
    """What a user should know of their level; mostly empty."""
    detection: Detection | None = None
    """How they were recognised; None if what they are was given."""
    conversion: Conversion | None = None
    """What converting the mel that was looked at costs; None: nothing has to be done, or none was looked at."""
    level_db: float = 0.0
    """Added to their level."""

    @property
    def name(self) -> str:
        """Name of their convention."""
        return _name(self.settings)

    @property
    def converts(self) -> bool:
        """True if they are written otherwise than the vocoder wants them."""
        return not self.settings.alike(self.wanted)

    @property
    def sure(self) -> bool:
        """True if what they are was given, or detected for sure."""
        return self.detection is None or self.detection.sure

    def notes(self, frames: int) -> str:
        """Say in one line what a user should know of a mel of so many frames; empty: nothing."""
        if not (self.note or self.level_note):
            return ""
        rate, hop = self.settings.sample_rate, self.settings.hop_length
        lasts = f"{frames * hop / rate:.2f} s at hop {hop} and {rate} Hz"
        return "; ".join(filter(None, [self.note, lasts, self.level_note]))

    def arrange(self, mel: Tensor) -> Tensor:
        """Bring a mel of the layout to (batch, bands, frames), float32 or wider."""
        mel = mel if mel.dim() == 3 else _flat(mel)[None]
        mel = mel.to(torch.promote_types(mel.dtype, torch.float32))
        return mel.transpose(1, 2) if self.layout == "(frames, bands)" else mel

    def frames(self, frames: int) -> int:
        """Return how many frames so many become."""
        return Converter(self.settings, self.wanted).frames(frames) if self.converts else frames

    def __call__(self, mel: Tensor) -> Tensor:
        """Bring a whole mel (batch, bands, frames) to what the vocoder wants."""
        return torch.cat(list(self.stream([mel])), dim=2)

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Bring pieces of a mel, (batch, bands, any number of frames), to what the vocoder wants, as they arrive."""
        if self.level_db:
            pieces = (with_offset(piece, self.settings, self.level_db) for piece in pieces)
        return Converter(self.settings, self.wanted).stream(pieces) if self.converts else iter(pieces)


def identify(
    mel: Tensor, wanted: MelSettings, source: str | MelSettings | None = None, level_db: float = 0.0,
    together: Detection | None = None,
) -> MelSource:
    """Find out what a mel is, and how it becomes one of the settings that are wanted.

    Args:
        mel: as a front-end made it: (bands, frames) or (frames, bands), with leading dimensions of size 1, or (batch, ., .).
            What is found holds for all that its front-end makes.
        wanted: the vocoder's settings.
        source: what the mel is: a convention's name, the path of a YAML file, or settings; None: it is detected.
        level_db: to add to its level, dB of magnitude.
        together: what the mels of its folder were detected to be (:func:`detect_together`), which counts if the detection of
            this one alone is unsure.

    Raises ValueError, in one line with the cure, for what cannot be understood.

    >>> from flowavenet.audio.conventions import convention
    >>> identify(torch.zeros(1, 80, 200), convention("hifigan"), "matcha").note
    'taken as matcha, as was said; converted to hifigan, 0.00 dB lost'
    """
    own = _name(wanted)
    if source is None:
        settings, layout, said, detection = _detected(mel, wanted, own, together)
    else:
        settings = source if isinstance(source, MelSettings) else convention(source)
        layout, said, detection = _layout(mel, settings), f"taken as {_name(settings)}, as was said", None
    found = MelSource(settings, wanted, layout, detection=detection, level_db=level_db)
    conversion, level = None, ""
    if found.converts:
        _, conversion = convert(found.arrange(mel)[..., :ENOUGH], settings, wanted)
        said += f"; converted to {own}, {conversion.loss_db:.2f} dB lost"
    if level_db:
        level = f"made {level_db:+g} dB louder"
    elif said:
        level = _level(found.arrange(mel)[..., :ENOUGH], settings)
    return replace(found, note=said.removeprefix("; "), level_note=level, conversion=conversion)


def detect_together(files: Sequence[Path], wanted: MelSettings) -> Detection | None:
    """Detect what the mel files of a folder are, by a few of them, which together show more than each alone.

    None if the first of them is the vocoder's own for sure; if there are no two that can be read; or if they have different
    numbers of bands, and so are not of one front-end.
    """
    known, mels = _known(wanted), []
    for file in files[:: -(-len(files) // TOGETHER)]:
        with suppress(ValueError, OSError):                            # will be said of the file when its turn comes
            mel = MelFile(file).beginning(ENOUGH)
            detection = detect(mel, known, _name(wanted))
            if not mels and detection.sure and _name(wanted) in detection.names:
                return None
            if detection.bands:
                mels.append(detection.arrange(mel))
    if len(mels) < 2 or len({mel.shape[1] for mel in mels}) > 1:
        return None
    return detect(torch.cat(mels, dim=2), known)


def _detected(
    mel: Tensor, wanted: MelSettings, own: str, together: Detection | None
) -> tuple[MelSettings, str, str, Detection]:
    """Return what a mel is, its layout, what is to be said about that, and the detection."""
    known = _known(wanted)
    found = detect(_beginning(mel), known, own)
    if found.bands is None:
        said = f"taken as {own}, the vocoder's own, as nothing can be told: {found.reasons[0]}"
        return wanted, _layout(mel, wanted), said, found
    layout = found.layout.removeprefix("batch of ")
    if together and not found.sure and together.bands == found.bands:
        found = replace(together, layout=found.layout)
    if found.verdict == "standardised" and found.speech:
        raise ValueError(
            "each band has about mean 0 and variance 1, and the statistics are not in it; give them, in a YAML file of "
            "'like: parallel_wavegan' and 'statistics: stats.npy', as its mel convention"
        )
    if found.sure:
        return known[found.names[0]], layout, "" if own in found.names else f"is {found.names[0]}", found
    odds = ", ".join(f"{name} {part:.0%}" for name, part in list(found.scores.items())[:3])
    if wanted.n_mels == found.bands and (found.scores.get(own, 0.0) >= DOUBT or not found.speech):
        return wanted, layout, f"taken as {own}, the vocoder's own, which is not sure: {odds}", found
    if found.verdict == "unknown" or not found.names:
        raise ValueError(f"no convention that is known explains it: {'; '.join(found.reasons)}; {CURE}")
    return known[found.names[0]], layout, f"taken as {found.names[0]}, which is not sure: {odds}", found


def _level(mel: Tensor, settings: MelSettings) -> str:
    """Say how far a level is from that of any recording; mostly nothing."""
    with suppress(ValueError):                                         # nothing is above the floor
        off = estimate_offset(mel, settings)
        if abs(off.db) > 3 * off.error_db:
            where = "above" if off.db > 0 else "below"
            return f"its level is {abs(off.db):.0f} dB {where} average speech, which --level {-off.db:.0f} puts right"
    return ""


def _name(settings: MelSettings) -> str:
    """Return the name of a convention."""
    same = [name for name, other in CONVENTIONS.items() if other.alike(settings)]
    return next((name for name in same if CONVENTIONS[name] == settings), same[0] if same else OTHER)


def _known(wanted: MelSettings) -> dict[str, MelSettings]:
    """Return all conventions by name: the vocoder's, the published, and the user's."""
    return {_name(wanted): wanted} | CONVENTIONS | {str(name): convention(str(name)) for name in user_conventions()}


def _layout(mel: Tensor, settings: MelSettings) -> str:
    """Tell which dimension is the bands, if there are so many."""
    shape, bands = tuple(mel.shape), settings.n_mels
    if len(shape) >= 2 and shape[-2] == bands:
        return "(bands, frames)"
    if len(shape) >= 2 and shape[-1] == bands:
        return "(frames, bands)"
    raise ValueError(f"shape {shape} has no dimension of {bands} bands, as its mel convention has; {CURE}")


def _beginning(mel: Tensor) -> Tensor:
    """Return as much of a mel as is looked at."""
    return mel[..., :ENOUGH, :ENOUGH] if mel.dim() >= 2 else mel


def _flat(mel: Tensor) -> Tensor:
    """Take leading dimensions of size 1 away, down to two."""
    while mel.dim() > 2 and mel.shape[0] == 1:
        mel = mel[0]
    return mel
