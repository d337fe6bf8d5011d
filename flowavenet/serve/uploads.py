"""Read what visitors upload: a recording or a mel file, refused in one line if it is broken, too long or too short."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from flowavenet.audio import MEL_SUFFIXES, MelFile, audio_blocks, audio_info
from flowavenet.batch import Mel
from flowavenet.files import once, one_line
from flowavenet.vocoder import Vocoder

SHORTEST, LONGEST = 0.2, 60.0
"""Seconds that a clip may have."""


@dataclass(frozen=True)
class Clip:
    """A mel, and the recording that it was computed from, if there is one."""

    mel: Tensor
    """(1, n_mels, frames)."""
    wave: Tensor | None = None
    """(1, samples)."""
    note: str = ""
    """What to know of a mel that is not, or not surely, of the vocoder's convention."""

    def beginning(self, frames: int, hop_length: int) -> Clip:
        """The first frames of it."""
        wave = None if self.wave is None else self.wave[:, : frames * hop_length]
        return replace(self, mel=self.mel[..., :frames], wave=wave)

    def whole(self, vocoder: Vocoder) -> Clip:
        """It without the last few hundredths of a second, whose samples fill no group of the flow and so have no model."""
        hop, grid = vocoder.settings.hop_length, vocoder.model.frame_grid
        frames = self.mel.shape[-1] if self.wave is None else self.wave.shape[1] // hop
        return self.beginning(frames // grid * grid, hop) if frames >= grid else self


def load_clip(
    path: str | Path, vocoder: Vocoder, convention: str | None = None, level_db: float = 0.0, longest: float = LONGEST
) -> Clip:
    """Read an audio file, or a mel file of any convention, for a vocoder.

    Args:
        path: its suffix tells which of the two it is.
        convention, level_db: what a mel is, see :func:`~flowavenet.meldetect.identify`.
        longest: seconds that it may have.

    Raises ValueError, in one line that names the file without its folder, which is none of the visitor's: not a file of this
    kind, broken, not SHORTEST to ``longest`` seconds.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in MEL_SUFFIXES:
            return _mel(path, vocoder, convention, level_db, longest)
        return _recording(path, vocoder, longest)
    except (ValueError, OSError, RuntimeError) as error:               # the last: whatever torch cannot do
        reason = one_line(error).replace(str(path), path.name)
        raise ValueError(once(Path(path.name), reason)) from error


def _mel(path: Path, vocoder: Vocoder, convention: str | None, level_db: float, longest: float) -> Clip:
    hop = vocoder.settings.hop_length / vocoder.sample_rate            # seconds
    _check(path, max(MelFile(path).shape) * hop, longest)              # before its convention is looked for
    file = Mel(path, vocoder.settings, convention, level_db)
    _check(path, file.frames * hop, longest)
    return Clip(torch.cat(list(file.mel()), dim=-1).to(vocoder.device), note=file.source.notes(file.given))


def _recording(path: Path, vocoder: Vocoder, longest: float) -> Clip:
    wave = vocoder.spectrogram.normalise(_read(path, vocoder.sample_rate, longest)).to(vocoder.device)
    return Clip(vocoder.mel(wave), wave)


def _read(path: Path, sample_rate: int, longest: float) -> Tensor:
    """The wave (1, samples), read no further than is allowed, since a header may promise less than there is."""
    seconds = audio_info(path).seconds
    _check(path, seconds, longest)
    blocks, samples = [], 0
    for block in audio_blocks(path, sample_rate):
        blocks.append(block)
        samples += block.shape[1]
        _check(path, max(seconds, samples / sample_rate), longest)
    return torch.cat(blocks, dim=1)


def _check(path: Path, seconds: float, longest: float) -> None:
    if seconds > longest:
        cure = "cut it, or use flowavenet vocode"
        raise ValueError(f"{path}: {seconds:.1f} s, at most {longest:g} s are taken here; {cure}")
    if seconds < SHORTEST:
        raise ValueError(f"{path}: {seconds:.3f} s, at least {SHORTEST:g} s are wanted; bring a longer one")
