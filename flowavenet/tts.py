"""Text-to-speech: what a front-end makes of text, whole or while it is being made, becomes audio.

A front-end (acoustic model) turns text into a mel spectrogram, and a vocoder that into audio. Between the two, mels lie the
other way round, are of another convention, in half precision or on another device, come in pieces, or never end. A
:class:`MelAdapter` sees to all that, and the audio begins before the front-end is done.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowavenet.audio import CONVENTIONS, MelSettings, mel_settings
from flowavenet.meldetect import MelSource, detect, identify
from flowavenet.vocoder import Vocoder

LISTEN = (120, 240, 480)
"""Frames after which a front-end's convention is looked for, until it is sure; at the last it is decided anyhow."""
LAYOUT = "(bands, frames)"
"""Of all mels once they are arranged."""

Piece = Tensor | np.ndarray


class Runaway(ValueError):
    """A front-end did not stop by itself; all audio up to the limit has been given."""


class MelAdapter:
    """Make audio of all that one front-end gives, in time order, as soon as what it depends on is there.

    The front-end is anything that gives mels: a function that returns one, a generator that yields pieces of any lengths.
    How they are cut changes nothing about the audio. Each piece is (bands, frames), (frames, bands), or (bands,), which is
    one frame, with leading dimensions of size 1; a tensor on any device or an array, of any float type.

    Which convention its mels are in should be said. Otherwise the first of them are listened to until that is sure, for up
    to 480 frames (six seconds), which delays the audio. What is found holds for all that follows. An utterance that ends
    before gets the best guess, and the next one is listened to together with it.

    >>> adapter = MelAdapter(Vocoder.from_pretrained(), "tacotron2")
    >>> front_end = lambda text: (torch.full((2, 80), -8.0) for letter in text)
    >>> [chunk.shape[1] // 256 for chunk in adapter(front_end("eighteen letters.."), chunk_frames=32)]
    [32, 4]

    Args:
        vocoder: makes the audio.
        convention: what the front-end's mels are: a convention's name, the path of a YAML file, or settings; None: that is
            to be found out.
        level_db: to add to their level, dB of magnitude; see :func:`~flowavenet.meldetect.estimate_offset`.
        longest: seconds of audio after which an utterance is cut, as a front-end may never find an end.
    """

    def __init__(
        self, vocoder: Vocoder, convention: str | MelSettings | None = None, level_db: float = 0.0, longest: float = 60.0
    ):
        if not longest > 0:
            raise ValueError(f"longest is {longest:g} s; an utterance lasts more than 0 s")
        self.vocoder, self.level_db, self.longest = vocoder, level_db, longest
        self.source: MelSource | None = None
        """What the front-end's mels are; its ``note`` says how that was found out. None: that is not settled."""
        if convention is not None:
            self.source = MelSource(mel_settings(convention), vocoder.settings, LAYOUT, level_db=level_db)
        self._heard: Tensor | None = None                              # of earlier utterances, until it is settled
        self._bands_last: bool | None = None                           # in the last piece that showed it

    def __call__(self, mels: Piece | Iterable[Piece], chunk_frames: int = 32, **how: Any) -> Iterator[Tensor]:
        """Speak an utterance: yield (1, samples) of audio at the vocoder's sample rate, one chunk after the other.

        Closing the iterator closes the front-end's, so that it stops working as well. Errors come when the first chunk is
        asked for, or later.

        Args:
            mels: the utterance, as the front-end gives it.
            chunk_frames: frames per chunk; more of them are more delay, and less work.
            how: ``temperature``, ``seed``, ``match``, ``denoise``, ``speaker`` as for :meth:`Vocoder.stream`.

        Raises:
            Runaway: the utterance went on after ``longest`` seconds, whose audio has been given.
            ValueError: there is no mel, or what was given is none.
        """
        whole = isinstance(mels, Piece | tuple) or not isinstance(mels, Iterable)
        given = iter([mels] if whole else mels)
        try:
            source, pieces = self._taken_in(piece for piece in map(self._arranged, given) if piece.shape[2])
            rate = source.settings.sample_rate / source.settings.hop_length
            limited = _Limited(pieces, max(1, round(self.longest * rate)))
            yield from self.vocoder.stream(source.stream(limited), chunk_frames, **how)
            if limited.exceeded:
                raise Runaway(
                    f"the front-end gave more than {limited.frames} frames, {self.longest:g} s, and was stopped; "
                    "shorten the text, or raise longest"
                )
        finally:
            getattr(given, "close", lambda: None)()

    def _taken_in(self, pieces: Iterator[Tensor]) -> tuple[MelSource, Iterable[Tensor]]:
        """What the pieces are, and again all of them."""
        first = next(pieces, None)
        if first is None:
            raise ValueError("the front-end gave no mel, 0 frames; was there a text?")
        if self.source:
            return self.source, chain([first], pieces)
        before = first[..., :0] if self._heard is None else self._heard
        mine, heard = first, torch.cat([before, first], dim=2)
        # Looked at after fixed numbers of frames, so that the detection does not depend on how they come.
        for enough in [frames for frames in LISTEN if frames > before.shape[2]]:
            while heard.shape[2] < enough and (piece := next(pieces, None)) is not None:
                mine, heard = (torch.cat([frames, piece], dim=2) for frames in (mine, heard))
            looked_at = heard[..., :enough]
            if looked_at.shape[2] in _known_bands(self.vocoder.settings):  # a frame less, which cannot be taken for bands
                looked_at = looked_at[..., 1:]
            try:
                source = identify(looked_at, self.vocoder.settings, level_db=self.level_db)
            except ValueError:
                if enough == LISTEN[-1] or heard.shape[2] < enough:
                    raise
                continue                                               # more of it may tell
            if source.sure or heard.shape[2] < enough:
                break
        settled = source.sure or heard.shape[2] >= LISTEN[-1]
        self.source, self._heard = (source, None) if settled else (None, heard)
        if not source.sure:
            warnings.warn(f"the front-end's mels: {source.note}; better name their convention", stacklevel=3)
        return source, chain([mine], pieces)

    def _arranged(self, piece: Piece) -> Tensor:
        """A piece as (1, bands, frames), float32."""
        mel = _checked(piece)
        bands = {self.source.settings.n_mels} if self.source else _known_bands(self.vocoder.settings)
        first, last = (size in bands for size in mel.shape)
        if not (first or last):
            raise ValueError(
                f"the front-end gave a mel of shape {tuple(mel.shape)}, which has no dimension of "
                f"{' or '.join(map(str, sorted(bands)))} bands; name its convention, or another one"
            )
        if not (first and last):
            self._bands_last = last
        elif self._bands_last is None:                                 # 80 frames of 80 bands, and nothing before
            self._bands_last = detect(mel).layout == "(frames, bands)"
        return (mel.T if self._bands_last else mel)[None].float()


class _Limited:
    """Pieces of a mel, up to so many frames; ``exceeded`` tells whether there were more."""

    def __init__(self, pieces: Iterator[Tensor], frames: int):
        self.pieces, self.frames, self.exceeded = pieces, frames, False

    def __iter__(self) -> Iterator[Tensor]:
        left = self.frames
        for piece in self.pieces:
            self.exceeded = piece.shape[2] > left
            if left:
                yield piece[..., :left]
            if self.exceeded:
                return
            left -= piece.shape[2]


def _checked(piece: Piece) -> Tensor:
    """What a front-end gave as a tensor of two dimensions, if it is a mel."""
    if not isinstance(piece, Piece):
        what = f"{type(piece).__name__} of {len(piece)}" if isinstance(piece, tuple) else type(piece).__name__
        raise ValueError(f"the front-end gave a {what}, must be a mel, as a tensor or an array; pass the mel alone")
    mel = torch.from_numpy(np.array(piece)) if isinstance(piece, np.ndarray) else piece.detach()
    while mel.dim() > 2 and mel.shape[0] == 1:
        mel = mel[0]
    mel = mel[None] if mel.dim() == 1 else mel                         # one frame
    if mel.dim() != 2:
        raise ValueError(f"the front-end gave shape {tuple(piece.shape)}, must be (bands, frames); give one mel at a time")
    if not mel.is_floating_point():
        raise ValueError(f"the front-end gave {mel.dtype}, a mel is floating point; convert it to float32")
    if bad := int((~mel.isfinite()).sum()):
        raise ValueError(f"the front-end gave {bad} of {mel.numel()} values that are not finite; look at what it does")
    return mel


def _known_bands(wanted: MelSettings) -> set[int]:
    """How many bands a mel may have."""
    return {settings.n_mels for settings in [wanted, *CONVENTIONS.values()]}
