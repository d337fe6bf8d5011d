"""Exact synthesis piece by piece: a chunk and the context that its samples depend on are rendered, the context is cut away.

What makes the pieces fit is that nothing depends on how the signal is cut: the noise is a function of the seed and of the
position in time, and a model says with ``reach()`` how far away a sample can still hear a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from flowavenet.audio import MelSpectrogram
from flowavenet.models import WaveNet

BLOCK = 8192
"""Samples of noise that are drawn at a time."""


class Noise:
    """White Gaussian noise of which any part can be had at any time.

    Block ``b`` of row ``r`` is the beginning of the random stream seeded with a hash of (seed, r, b).

    Args:
        seed: of all rows; or one per row, and each of them is then what row 0 of that seed would be.
        batch: rows.
        device: where it is made; every kind of device has its own streams.
    """

    def __init__(self, seed: int | Sequence[int], batch: int, device: torch.device | str = "cpu"):
        rows = [(seed, row) for row in range(batch)] if isinstance(seed, int) else [(one, 0) for one in seed]
        if len(rows) != batch:
            raise ValueError(f"{len(rows)} seeds for a batch of {batch}: give one, or as many as there are rows")
        self.rows = rows
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device)

    def __call__(self, start: int, stop: int) -> Tensor:
        """Samples start ... stop - 1: (batch, stop - start), float32."""
        first, last = start // BLOCK, -(-stop // BLOCK)
        blocks = [torch.stack([self._block(*row, b) for row in self.rows]) for b in range(first, last)]
        whole = torch.cat(blocks, dim=1) if blocks else torch.empty(len(self.rows), 0, device=self.device)
        return whole[:, start - first * BLOCK : stop - first * BLOCK]

    def _block(self, seed: int, row: int, block: int) -> Tensor:
        self.generator.manual_seed(_mix(_mix(_mix(seed) + row) + block))
        return torch.randn(BLOCK, generator=self.generator, device=self.device)


def _mix(x: int) -> int:
    """Scatter integers over 63 bits, neighbours far apart (the finaliser of SplitMix64)."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return (x ^ (x >> 31)) >> 1


class Continued:
    """A model that draws each sample given all before it, rendering one window of a mel after the other: no sample is drawn
    twice, and none is forgotten that the next window shows again.

    Args:
        model: one whose ``sequential`` is ``decode``.
        speaker: whose voice.
    """

    def __init__(self, model: WaveNet, speaker: Tensor | None = None):
        self.model, self.speaker = model, speaker
        self.generation = model.generation()
        self.wave: Tensor | None = None                                # as far as it is drawn, from the window's beginning
        self.first = 0                                                 # frame that it begins with

    def __call__(self, noise: Callable[[int, int], Tensor], mel: Tensor, first: int, end: int) -> Tensor:
        """Render a window: (batch, end * hop).

        Args:
            noise: gives samples start ... stop - 1.
            mel: the window, (batch, n_mels, frames), with the context that its conditioning needs on either side.
            first: the number of its first frame; never less than before.
            end: so many of its frames are wanted.
        """
        hop, end = self.model.hop_length, min(end, mel.shape[-1])
        wave = mel.new_zeros(len(mel), 0) if self.wave is None else self.wave[:, (first - self.first) * hop :]
        done, wanted = wave.shape[1], end * hop
        if done < wanted:
            z = noise(first * hop + done, first * hop + wanted).to(mel.dtype)
            cond = self.model.conditioning(mel, self.speaker)[..., done:wanted]
            wave = torch.cat([wave, self.generation(z, cond)], dim=1)
        self.wave, self.first = wave, first
        return wave


def mel_in_pieces(waves: Iterable[Tensor], spectrogram: MelSpectrogram, frames: int) -> Iterator[Tensor]:
    """Analyse a wave that comes in pieces, (batch, samples) of any lengths: its mel, so many frames at a time.

    Each piece as soon as the samples that its last frame looks at are there; together the mel of the whole.
    """
    settings, window = spectrogram.settings, spectrogram.window
    hop = settings.hop_length

    def analyse(wave: Tensor, first: int, start: int, stop: int) -> Tensor:
        return spectrogram(wave.to(window.device))[..., start // hop : -(-stop // hop)]

    return in_chunks(waves, frames * hop, settings.context, hop, analyse)


def in_chunks(
    mel: Tensor | Iterable[Tensor], chunk_frames: int, reach: tuple[int, int], grid: int,
    render: Callable[[Tensor, int, int, int], Tensor],
) -> Iterator[Tensor]:
    """Render a mel chunk by chunk: each one as soon as the frames it depends on are there.

    Args:
        mel: (batch, n_mels, frames), or pieces of it in time order, of any lengths, as they arrive.
        chunk_frames: frames per chunk; the last one may be shorter.
        reach: frames of context, before and after.
        grid: windows begin at multiples of so many frames.
        render: takes a window of the mel, the number of its first frame, and which frames of the window to return: from,
            to; returns (batch, (to - from) * hop) samples.

    Yields:
        (batch, chunk_frames * hop) samples; together as many as rendering the whole gives, and the same.
    """
    if chunk_frames < 1:
        raise ValueError(f"chunk_frames is {chunk_frames}; a chunk has at least 1 frame")
    before, after = reach
    pieces = iter([mel] if isinstance(mel, Tensor) else mel)
    held, first, start, ended = None, 0, 0, False                      # frames at hand, the number of the first of them
    while True:
        while not ended and (held is None or first + held.shape[-1] < start + chunk_frames + after):
            piece = next(pieces, None)
            ended = piece is None
            if piece is not None:
                held = piece if held is None else torch.cat([held, piece], dim=-1)
        if held is None or start >= first + held.shape[-1]:
            return
        stop = min(start + chunk_frames, first + held.shape[-1])
        begin = max(0, start - before) // grid * grid
        held, first = held[..., begin - first :], begin
        yield render(held[..., : stop + after - begin], begin, start - begin, stop - begin)
        start = stop
