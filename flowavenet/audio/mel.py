"""The mel spectrogram: how loud each band of hearing is, frame by frame.

One module covers the published conventions (conventions.py); they differ only in the values of `MelSettings`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowavenet.audio.filterbank import mel_filter_bank
from flowavenet.audio.settings import MelSettings

LOGS: dict[str, Callable[[Tensor], Tensor]] = {
    "ln": torch.log,
    "log10": torch.log10,
    "db": lambda x: 20.0 * torch.log10(x),
    "linear": lambda x: x,
}
EXPS: dict[str, Callable[[Tensor], Tensor]] = {
    "ln": torch.exp,
    "log10": lambda x: 10.0**x,
    "db": lambda x: 10.0 ** (x / 20.0),
    "linear": lambda x: x,
}
_ADDED = 1e-4
"""Energy, as a part of a floor that is added to it, below which the sum does not tell it."""


class MelSpectrogram(nn.Module):
    """Turn a waveform into its mel spectrogram: one column of n_mels values per hop.

    Frame t looks at n_fft samples centred on the middle of hop t, or on its first sample (`frame_centre`). To this
    end the wave is filled up with zeros at its end to whole hops, and then gets n_fft - hop_length samples more
    (`MelSettings.context`), mirrored or zero. `forward(wave)` is `from_padded(pad(wave))`; training crops between
    the two, so that a crop's mel is a crop of the mel. Pre-emphasis comes after that, and so covers what was added.

    Shape:
        wave (batch, samples), floats in [-1, 1] -> mel (batch, n_mels, frames),
        where frames = ceil(samples / hop_length).
        float32, whatever wave and autocast say, as fewer bits spoil quiet bands; float64 after `.double()`.

    >>> MelSpectrogram(MelSettings())(torch.zeros(1, 1000)).shape
    torch.Size([1, 80, 4])
    """

    window: Tensor
    filter_bank: Tensor

    def __init__(self, settings: MelSettings) -> None:
        super().__init__()
        self.settings = settings
        # Not persistent: they follow from the settings, so they do not belong into a checkpoint.
        self.register_buffer("window", _hann(settings.win_length).float(), persistent=False)
        self.register_buffer("filter_bank", mel_filter_bank(settings), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Analyse wave (batch, samples) into mel (batch, n_mels, frames)."""
        return self.from_padded(self.pad(wave))

    def pad(self, wave: Tensor) -> Tensor:
        """Add what the end frames look at: (batch, samples) -> (batch, frames * hop + n_fft - hop)."""
        _check_wave(wave)
        settings = self.settings
        wave = F.pad(wave, (0, -wave.shape[1] % settings.hop_length))
        left, right = settings.context
        if settings.pad_mode == "constant":
            return F.pad(wave, (left, right))
        before = _mirrored(torch.arange(-left, 0, device=wave.device), wave.shape[1])
        after = _mirrored(torch.arange(right, device=wave.device) + wave.shape[1], wave.shape[1])
        return torch.cat([wave[:, before], wave, wave[:, after]], dim=1)

    def from_padded(self, padded: Tensor) -> Tensor:
        """Analyse what `pad` returned, or a crop of it: (batch, frames * hop + n_fft - hop) -> mel."""
        _check_wave(padded)
        settings = self.settings
        if padded.shape[1] < settings.n_fft:
            length = padded.shape[1]
            raise ValueError(f"{length} samples are fewer than n_fft {settings.n_fft}; call pad first")
        with torch.autocast(padded.device.type, enabled=False):
            spectrum = torch.stft(
                self.emphasise(padded.to(self.window.dtype)),
                settings.n_fft,
                settings.hop_length,
                settings.win_length,
                self.window,
                center=False,
                return_complex=True,
            )  # (batch, n_fft / 2 + 1, frames)
            squared = spectrum.real.square() + spectrum.imag.square()
            bands = squared if settings.power == 2 else (squared + settings.eps) ** (settings.power / 2)
            return self.from_energies(self.filter_bank @ bands)

    def emphasise(self, padded: Tensor) -> Tensor:
        """Pre-emphasis: x[n] - preemphasis * x[n - 1]. The first sample has none before it, but no window hears it."""
        factor = self.settings.preemphasis
        if factor == 0:
            return padded
        return torch.cat([padded[:, :1], padded[:, 1:] - factor * padded[:, :-1]], dim=1)

    def from_energies(self, energies: Tensor) -> Tensor:
        """The mel, (batch, n_mels, frames), of what each band gathered, ``filter_bank @ magnitude ** power``."""
        settings = self.settings
        adds = settings.floor_mode == "add"
        mel = LOGS[settings.log](energies + settings.floor if adds else energies.clamp(min=settings.floor))
        mel = (mel + _column(settings.offset, mel)) * _column(settings.scale, mel)
        return mel if settings.clip is None else mel.clamp(*settings.clip)

    def energies(self, mel: Tensor) -> Tensor:
        """Undo :meth:`from_energies`: what each band gathered, at least the lower bound; exact but for what was clipped."""
        settings = self.settings
        mel = mel.to(torch.promote_types(mel.dtype, torch.float32))
        level = mel / _column(settings.scale, mel) - _column(settings.offset, mel)
        energies = EXPS[settings.log](level)
        if settings.floor_mode == "add":
            return (energies - settings.floor).clamp(min=_ADDED * settings.floor)
        return energies.clamp(min=settings.floor)

    def bounds(self) -> tuple[float | Tensor, float | Tensor]:
        """The energies between which a mel tells them apart: floor and infinity; or `clip` as energies, (n_mels,) each."""
        settings = self.settings
        if settings.clip is None:
            return settings.floor * (_ADDED if settings.floor_mode == "add" else 1), float("inf")
        ends = self.energies(self.window.new_tensor(settings.clip).expand(settings.n_mels, 2))
        return ends.amin(dim=1), ends.amax(dim=1)

    def range(self) -> tuple[float, float]:
        """The value of digital silence, and one that no wave in [-1, 1] exceeds.

        Speech, even loud, stays well below the second, which lets all of a window fall into each bin of a band.
        """
        settings = self.settings
        loudest = self.window.double().sum() * (1 + settings.preemphasis)
        bands = self.filter_bank.double().sum(dim=1) * (loudest.square() + settings.eps) ** (settings.power / 2)
        silent = 0.0 if settings.power == 2 else settings.eps ** (settings.power / 2)
        ends = self.from_energies(torch.stack([silent * self.filter_bank.double().sum(dim=1), bands], dim=1))
        return ends.min().item(), ends.max().item()

    def normalise(self, wave: Tensor, peak: Tensor | None = None) -> Tensor:
        """Scale each row of wave (batch, samples) to the convention's peak, if it has one; silence stays.

        Args:
            peak: (batch, 1), the largest magnitudes of the whole rows, if this is a part of them.
        """
        _check_wave(wave)
        if self.settings.peak is None:
            return wave
        peak = wave.abs().amax(dim=1, keepdim=True) if peak is None else peak
        return wave / torch.where(peak > 0, peak, 1.0) * self.settings.peak

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MelSpectrogram:
        # The tables follow the module to its device, but are never just cast: 16 bits (`model.half()`) would
        # shift the mel away from what the model was trained on, and float64 made of float32 is no float64.
        before = self.window.dtype
        super()._apply(fn, recurse)
        if self.window.dtype != before:
            device = self.window.device
            dtype = torch.promote_types(self.window.dtype, torch.float32)
            self.window = _hann(self.settings.win_length).to(device, dtype)
            self.filter_bank = mel_filter_bank(self.settings).to(device, dtype)
        return self

    def extra_repr(self) -> str:
        return repr(self.settings)


def _hann(length: int) -> Tensor:
    return torch.hann_window(length, dtype=torch.float64)


def _column(values: float | tuple[float, ...], like: Tensor) -> float | Tensor:
    """One number as it is; one per band as a column (n_mels, 1)."""
    return values if isinstance(values, float) else like.new_tensor(values)[:, None]


def _mirrored(index: Tensor, length: int) -> Tensor:
    """Fold any index back into 0 ... length - 1 as between two mirrors that stand on the end samples."""
    period = max(2 * (length - 1), 1)
    return torch.minimum(index % period, period - index % period)


def _check_wave(wave: Any) -> None:
    shape = tuple(wave.shape)
    if wave.dim() != 2:
        cure = "pass wave[None]" if wave.dim() == 1 else "pass wave.squeeze(1) if it has one channel"
        raise ValueError(f"wave has shape {shape}, must be (batch, samples); {cure}")
    if 0 in shape:
        raise ValueError(f"wave has shape {shape}: there is nothing to analyse, give at least 1 sample")
    if not wave.is_floating_point():
        raise ValueError(f"wave is {wave.dtype}, must be floats in [-1, 1]; for 16 bits pass wave / 32768")
