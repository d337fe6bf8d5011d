"""Bring a mel spectrogram from one convention to another.

Between conventions that gather the same bands of the same spectrum, a mel is only written otherwise: the energies are read
from one and written in the other, which is exact but for what a floor or a clip hides. Between others there is no such map.
Then the least-committal spectrum is sought that has the given mel, and the other convention's bands are gathered from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowavenet.audio.filterbank import mel_filter_bank
from flowavenet.audio.mel import MelSpectrogram
from flowavenet.audio.settings import MelSettings

_NO_MATTER = dict(
    log="ln", floor=1e-5, floor_mode="max", offset=0.0, scale=1.0, clip=None, pad_mode="reflect", peak=None, eps=1e-14
)
_ROUNDS = 50
LOUDEST = 1e18
"""Energy: beyond any sound, by far, and below what sums of them in float32 can hold."""
_BEYOND = 1.1  # so much of the frequency where its bands end is a little


@dataclass(frozen=True)
class Conversion:
    """How a mel was brought to another convention, and what that cost."""

    exact: bool
    """The way back gives the mel that was given, but for rounding."""
    loss_db: float
    """Mean distance, in dB of magnitude, of the way back from the mel that was given, without what is hidden."""
    hidden: float
    """The part of the mel's values above its floor of which the other convention tells nothing, 0 to 1: those below its
    floor, above its clip, and in bands that it has not."""
    reasons: tuple[str, ...]
    """What was done and what was lost, in short sentences."""


class Converter:
    """Brings mels of one convention to another: (batch, n_mels, frames), whole or in pieces as they arrive.

    Where hops or sample rates differ, frames are interpolated, each where its middle is in time. Half a hop between
    conventions of one hop (`frame_centre`) is left as it is: see :meth:`MelSettings.delay`.

    >>> from flowavenet.audio.conventions import convention
    >>> converter = Converter(convention("rayhane_275"), convention("hifigan"))
    >>> converter(torch.zeros(1, 80, 256)).shape, converter.frames(256)
    (torch.Size([1, 80, 275]), 275)
    """

    def __init__(self, source: MelSettings, target: MelSettings):
        self.source, self.target = source, target
        self.same_bands = same_bands(source, target)
        self.reader, self.writer = MelSpectrogram(source), MelSpectrogram(target)

    def frames(self, frames: int) -> int:
        """How many frames so many become; what a mel shows stays as long as it is, to half a frame."""
        return max(1, round(frames / self._step))

    def __call__(self, mel: Tensor, frames: int | None = None) -> Tensor:
        """Convert a whole mel, to so many frames if they are given. Raises ValueError for another number of bands."""
        return torch.cat(list(self.stream([mel], frames)), dim=2)

    def stream(self, pieces: Iterable[Tensor], frames: int | None = None) -> Iterator[Tensor]:
        """Convert pieces of a mel, in time order, of any lengths; together what the whole becomes.

        Yields, for each piece, what can be told so far: all of it, but where frames are interpolated, which takes the next.
        """
        if self._step == 1:
            yield from map(self._written, pieces)
            return
        held, first, given, done = None, 0, 0, 0                       # frames, the number of the first; how many came, went
        for piece in pieces:
            piece = self._written(piece)
            given += piece.shape[2]
            held = piece if held is None else torch.cat([held, piece], dim=2)
            sure = max(done, int((given - 1.5) / self._step + 0.5))    # those between frames that are there
            if sure > done:
                yield self._interpolated(held, first, done, sure)
                done = sure
                keep = min(max(0, int(self._where(done)) - first), held.shape[2] - 1)
                held, first = held[..., keep:], first + keep
        frames = frames or self.frames(given)
        if held is not None and frames > done:
            yield self._interpolated(held, first, done, frames)

    @property
    def _step(self) -> float:
        """Frames of the source from one frame of the target to the next."""
        source, target = self.source, self.target
        return target.hop_length * source.sample_rate / (source.hop_length * target.sample_rate)

    def _where(self, frame: float) -> float:
        """Where between the frames of the source a frame of the target lies: the middles of both are compared."""
        return (frame + 0.5) * self._step - 0.5

    def _interpolated(self, held: Tensor, first: int, start: int, stop: int) -> Tensor:
        """Frames start ... stop - 1, of the source's frames from the first one on."""
        where = self._where(torch.arange(start, stop, dtype=torch.float64, device=held.device)) - first
        where = where.clamp(0, held.shape[2] - 1)
        left = where.long().clamp(max=max(0, held.shape[2] - 2))
        right = (left + 1).clamp(max=held.shape[2] - 1)
        return torch.lerp(held[..., left], held[..., right], (where - left).to(held))

    def _written(self, mel: Tensor) -> Tensor:
        """Frame by frame, in the other convention's bands and values."""
        if mel.dim() != 3 or mel.shape[1] != self.source.n_mels:
            raise ValueError(
                f"mel has shape {tuple(mel.shape)}, must be (batch, {self.source.n_mels}, frames) as its settings say"
            )
        source, target = self.source, self.target
        reader, writer = self.reader.to(mel.device), self.writer.to(mel.device)
        energies = reader.energies(mel).clamp(max=LOUDEST)
        if self.same_bands:
            return writer.from_energies(energies)
        # Nobody knows how far below the floor is what lies at it, and how far beyond the clip what lies there; half and
        # twice are nearer than the bounds themselves.
        low, high = (_column(bound, energies) for bound in reader.bounds())
        energies = torch.where(energies <= 1.001 * low, energies * 0.5**source.power, energies)
        energies = torch.where(energies >= 0.999 * high, energies * 2.0**source.power, energies)
        magnitudes = _spectrum(energies, source) ** (1 / source.power) # (batch, bins, frames)
        magnitudes = _other_bins(magnitudes, source, target)
        return writer.from_energies(writer.filter_bank.to(magnitudes) @ magnitudes**target.power)


def convert(mel: Tensor, source: MelSettings, target: MelSettings) -> tuple[Tensor, Conversion]:
    """Bring mel (batch, n_mels, frames) of ``source`` to ``target``, and say what that costs; see :class:`Converter`.

    >>> from flowavenet.audio.conventions import convention
    >>> mel, report = convert(torch.full((1, 80, 9), -5.0), convention("hifigan"), convention("matcha"))
    >>> report.exact, round(mel[0, 0, 0].item(), 3)
    (True, 0.254)
    """
    there = Converter(source, target)(mel)
    spectrogram = MelSpectrogram(source).to(mel.device)
    given = spectrogram.energies(mel)
    back = spectrogram.energies(Converter(target, source)(there, mel.shape[2]))
    heard = given > 1.001 * _column(spectrogram.bounds()[0], given)
    told = heard & _told(given, source, target)
    off = (20 / source.power * (back / given).log10().abs())[told]
    loss_db = off.mean().item() if told.any() else 0.0
    hidden = 1 - (told.sum() / heard.sum().clamp(min=1)).item() if heard.any() else 0.0
    exact = same_bands(source, target) and hidden == 0
    return there, Conversion(exact, loss_db, hidden, tuple(_reasons(source, target, hidden)))


def same_bands(source: MelSettings, target: MelSettings) -> bool:
    """Whether two conventions gather the same bands of the same spectrum, and so differ only in how they write them."""
    source, target = (replace(settings, **_NO_MATTER, frame_centre="hop") for settings in (source, target))
    return source == target


def _spectrum(energies: Tensor, settings: MelSettings) -> Tensor:
    """The spectrum (batch, bins, frames), not negative, that has these energies: near to even within each band.

    Multiplicative updates for the least Kullback-Leibler divergence, from the energies spread over their bands.
    Lee, Seung, "Algorithms for non-negative matrix factorization", 2001.
    """
    bank = MelSpectrogram(settings).filter_bank.to(energies)
    weight = bank.sum(0)[:, None].clamp(min=1e-12)                     # (bins, 1)
    spectrum = bank.T @ (energies / bank.sum(1)[:, None].clamp(min=1e-12)) / weight
    for _ in range(_ROUNDS):
        spectrum = spectrum * (bank.T @ (energies / (bank @ spectrum).clamp(min=1e-20))) / weight
    return spectrum


def _other_bins(magnitudes: Tensor, source: MelSettings, target: MelSettings) -> Tensor:
    """Magnitudes over the bins of ``source`` -> over those of ``target``, as its window and pre-emphasis make them."""
    hz = torch.arange(target.n_fft // 2 + 1, device=magnitudes.device) * (target.sample_rate / target.n_fft)
    # A little beyond its bands the spectrum goes on as it ends in them; further away, nothing is known.
    ends = mel_filter_bank(source).sum(0).nonzero()[[0, -1], 0].tolist()
    position = (hz * source.n_fft / source.sample_rate).clamp(*ends)
    below = position.floor().long().clamp(max=magnitudes.shape[1] - 2)
    magnitudes = torch.lerp(
        magnitudes[:, below], magnitudes[:, below + 1], (position - below).clamp(max=1)[:, None].to(magnitudes)
    )
    lowest, highest = source.band_edges
    magnitudes = magnitudes * ((hz >= lowest / _BEYOND) & (hz <= highest * _BEYOND))[:, None]
    gain = _gain(target, hz) / _gain(source, hz)
    return magnitudes * gain[:, None].to(magnitudes)


def _gain(settings: MelSettings, hz: Tensor) -> Tensor:
    """What window and pre-emphasis make of noise of 1 per root Hz. Of a tone, a longer window makes more."""
    power = settings.sample_rate * torch.hann_window(settings.win_length).square().sum().item()
    turn = torch.cos(2 * torch.pi * hz / settings.sample_rate)
    return (power * (1 + settings.preemphasis**2 - 2 * settings.preemphasis * turn)).sqrt()


def _told(energies: Tensor, source: MelSettings, target: MelSettings) -> Tensor:
    """Which energies (batch, n_mels, frames) of ``source`` are of bands, and between bounds, that ``target`` can tell."""
    there = MelSpectrogram(target)
    bounds = there.bounds()
    if same_bands(source, target):
        low, high = (_column(bound, energies) for bound in bounds)
        return (energies >= low) & (energies <= high)
    # What is not above a mel that is all floor there could as well be floor.
    floor = torch.full((1, target.n_mels, 1), target.floor).maximum(torch.as_tensor(bounds[0]).reshape(-1, 1))
    lowest = Converter(target, source)(there.from_energies(floor), 1)
    low = MelSpectrogram(source).energies(lowest).to(energies)
    bank = mel_filter_bank(source)
    hz = torch.arange(bank.shape[1]) * (source.sample_rate / source.n_fft)
    centre = (bank @ hz / bank.sum(1).clamp(min=1e-12)).to(energies)
    lowest, highest = target.band_edges
    reached = (centre >= lowest) & (centre <= highest)
    return (energies > 1.5 * low) & reached[:, None]


def _column(bound: float | Tensor, like: Tensor) -> float | Tensor:
    """A bound of energies, of all bands as it is, of each as (n_mels, 1)."""
    return bound[:, None].to(like) if isinstance(bound, Tensor) else bound


def _reasons(source: MelSettings, target: MelSettings, hidden: float) -> list[str]:
    said = []
    if hidden:
        said.append(f"{hidden:.1%} of what it tells, the other convention does not: see its floor, clip and bands")
    if same_bands(source, target):
        return ["the same bands, written otherwise", *said]
    said.insert(0, "bands gathered anew from a spectrum that has this mel")
    if source.power != target.power:
        said.append("a sum of magnitudes does not tell that of powers: even bands are assumed")
    (lowest, highest), (wanted_lowest, wanted_highest) = source.band_edges, target.band_edges
    if wanted_highest > highest:
        said.append(f"nothing is known above {highest:g} Hz, which goes on a little and then becomes the floor")
    if wanted_lowest < lowest:
        said.append(f"nothing is known below {lowest:g} Hz, which becomes the floor")
    if source.hop_length * target.sample_rate != target.hop_length * source.sample_rate:
        said.append("frames interpolated to the other hop")
    if source.sample_rate != target.sample_rate:
        said.append(f"speech made of it has {target.sample_rate} Hz, not {source.sample_rate} Hz")
    if (target.win_length * source.sample_rate) != (source.win_length * target.sample_rate):
        said.append("the level is right for noise; of tones, other windows make more or less")
    return said
