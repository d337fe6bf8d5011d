"""Exact synthesis piece by piece: a chunk and the context that its samples depend on are rendered, the context is cut away.

What makes the pieces fit is that nothing depends on how the signal is cut: the noise is a function of the seed and of the
position in time, a model says by its receptive field how far away a sample can still hear a change, and what is recurrent
goes on from an explicit state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from flowavenet.audio import BiasDenoiser, MelMatching, MelSpectrogram
from flowavenet.models import FlowVocoder
from flowavenet.nets import Net
from flowavenet.transforms import ReceptiveField, State

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
"""Dtype of the nets; None: that of the weights."""
BLOCK = 8192
"""Samples of noise that are drawn at a time."""


class Noise:
    """Draw white Gaussian noise of which any part can be had at any time.

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
        """Return samples start ... stop - 1: (batch, stop - start), float32."""
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


class Synthesiser(nn.Module):
    """Make a mel a waveform, whole or chunk by chunk: render it by the flow, take out its hum, bring it to the mel's level.

    Args:
        model: a flow, whose weights are used as they are whenever it renders.
        spectrogram: the mel convention that it was trained on.
        precision: dtype of the nets, see :data:`PRECISIONS`; half precision takes a copy of them as they are
            now. Signals stay in the dtype of the mel.
    """

    def __init__(self, model: FlowVocoder, spectrogram: MelSpectrogram, precision: str = "float32"):
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is not known; choose one of: {', '.join(PRECISIONS)}")
        if dtype := PRECISIONS[precision]:
            model = deepcopy(model)
            for net in model.modules():
                if isinstance(net, Net):
                    net.to(dtype)
        self.model = model
        self.spectrogram = spectrogram
        self.matching = MelMatching(spectrogram)
        self.denoiser: BiasDenoiser | None = None
        self._denoised: list | None = None                             # the voices that it is for

    def stream(
        self, mel: Tensor | Iterable[Tensor], chunk_frames: int, temperature: float, seed: int | Sequence[int], match: int,
        denoise: float = 0.0, voice: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Synthesise chunk by chunk; see :meth:`flowavenet.Vocoder.stream`, which fills in what a checkpoint says.

        Args:
            voice: the vectors that stand for speakers, of a model that tells voices apart.
        """
        hop, noise, state = self.model.hop_length, None, State()
        grid = math.lcm(self.model.frame_grid, self.matching.stride)
        around = self._after_flow(match, denoise > 0)

        @torch.no_grad()
        def render(window: Tensor, first: int, start: int, stop: int) -> Tensor:
            nonlocal noise
            device = self.spectrogram.window.device
            window, noise = window.to(device), noise or Noise(seed, len(window), device)
            # what follows the flow needs less context than the flow
            begin, end = max(0, start - around) // grid * grid, min(stop + around, window.shape[-1])
            state.first, state.final = first * hop, end * hop
            frames = self.model.whole_frames(window.shape[-1])
            z = temperature * noise(first * hop, (first + frames) * hop).to(window.dtype)
            wave = self.model.render(z, window, voice, state)[:, begin * hop : end * hop]
            if denoise:
                wave = self._denoiser(voice)(wave, denoise)
            wave = self.matching(wave, window[..., begin:end], match)
            return wave[:, (start - begin) * hop : (stop - begin) * hop]

        return in_chunks(mel, chunk_frames, self.receptive_field(match, denoise > 0), grid, render)

    def receptive_field(self, match: int, denoise: bool = False) -> ReceptiveField:
        """Return the frames of mel, before and after, that a chunk is computed from, beside what a recurrent flow remembers;
        those after are the look-ahead of a stream."""
        around = self._after_flow(match, denoise)
        return self.model.receptive_field + (around, around)

    def tile(self, match: int, denoise: bool = False) -> int:
        """Return how many frames of a long mel to synthesise at a time, so that memory does not grow with it: six times the
        context that is computed again for each tile, and not too few."""
        return max(1024, 6 * sum(self.receptive_field(match, denoise)))

    def _after_flow(self, match: int, denoise: bool) -> int:
        return self.matching.receptive_field(match) + 4 * denoise

    def _denoiser(self, voice: Tensor | None) -> BiasDenoiser:
        voices = None if voice is None else voice.tolist()
        if self.denoiser is None or self._denoised != voices:
            frames, window = self.model.whole_frames(128), self.spectrogram.window
            noise = window.new_zeros(1 if voice is None else len(voice), frames * self.model.hop_length)
            bias = self.model.render(noise, self.spectrogram(noise), voice)
            self.denoiser, self._denoised = BiasDenoiser(bias, self.model.hop_length), voices
        return self.denoiser


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
    mel: Tensor | Iterable[Tensor], chunk_frames: int, receptive_field: tuple[int, int], grid: int,
    render: Callable[[Tensor, int, int, int], Tensor],
) -> Iterator[Tensor]:
    """Render a mel chunk by chunk: each one as soon as the frames it depends on are there.

    Args:
        mel: (batch, n_mels, frames), or pieces of it in time order, of any lengths, as they arrive.
        chunk_frames: frames per chunk; the last one may be shorter.
        receptive_field: frames of context, before and after.
        grid: windows begin at multiples of so many frames.
        render: takes a window of the mel, the number of its first frame, and which frames of the window to return: from,
            to; returns (batch, (to - from) * hop) samples.

    Yields:
        (batch, chunk_frames * hop) samples; together as many as rendering the whole gives, and the same.
    """
    if chunk_frames < 1:
        raise ValueError(f"chunk_frames is {chunk_frames}; a chunk has at least 1 frame")
    before, after = receptive_field
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
