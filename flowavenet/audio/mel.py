"""The mel spectrogram: how loud each band of hearing is, frame by frame.

One module covers the published conventions (conventions.py); they differ only in the values of `MelSettings`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOGS: dict[str, Callable[[Tensor], Tensor]] = {
    "ln": torch.log,
    "log10": torch.log10,
    "db": lambda x: 20.0 * torch.log10(x),
}
EXPS: dict[str, Callable[[Tensor], Tensor]] = {
    "ln": torch.exp,
    "log10": lambda x: 10.0**x,
    "db": lambda x: 10.0 ** (x / 20.0),
}
# Added to the squared magnitude before the root, so that the gradient at digital silence is 0 and not NaN.
# Small enough that a magnitude just above the usual floors is still right to 1e-6.
TINY = 1e-14


@dataclass(frozen=True)
class MelSettings:
    """All that must agree between the mel a vocoder was trained on and the mel it is given.

    mel = clip((log(max(filter_bank @ magnitude ** power, floor)) + offset) * scale)

    The defaults are HiFi-GAN's. All values are plain, so `dataclasses.asdict` writes them to YAML and
    `MelSettings(**values)` reads them back.

    >>> MelSettings().frames(22050)
    87
    """

    sample_rate: int = 22050
    """Hz."""
    n_fft: int = 1024
    """Length of the Fourier transform, samples."""
    win_length: int = 1024
    """Length of the Hann window, samples, at most n_fft."""
    hop_length: int = 256
    """Samples from one frame to the next."""
    n_mels: int = 80
    """Bands."""
    f_min: float = 0.0
    """Lower edge of the lowest band, Hz."""
    f_max: float = 8000.0
    """Upper edge of the highest band, Hz."""
    power: float = 1.0
    """Exponent of the magnitude: 1 magnitude, 2 power."""
    log: Literal["ln", "log10", "db"] = "ln"
    """Logarithm: natural, to base 10, or decibels (20 log10)."""
    floor: float = 1e-5
    """Smallest value that reaches the logarithm."""
    offset: float = 0.0
    """Added after the logarithm."""
    scale: float = 1.0
    """Multiplied after the offset."""
    clip: tuple[float, float] | None = None
    """Range of the final value."""
    pad_mode: Literal["reflect", "constant"] = "reflect"
    """What the first and the last frames see beyond the ends: the signal mirrored, or zeros."""
    peak: float | None = None
    """Level that `MelSpectrogram.normalise` brings each utterance to; None: as recorded."""

    def __post_init__(self) -> None:
        # YAML readers hand over lists for tuples, and 1e-5 (without a dot) as text.
        for name in ("f_min", "f_max", "power", "floor", "offset", "scale"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.clip is not None:
            low, high = self.clip
            object.__setattr__(self, "clip", (float(low), float(high)))
        for name in ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels"):
            value = getattr(self, name)
            _check(isinstance(value, int) and value > 0, f"{name} is {value!r}, must be a whole number > 0")
        for name in ("power", "floor"):
            _check(getattr(self, name) > 0, f"{name} is {getattr(self, name)}, must be above 0")
        rate, win = self.sample_rate, self.win_length
        _check(win <= self.n_fft, f"win_length {win} is longer than n_fft {self.n_fft}; raise n_fft")
        _check(self.hop_length <= win, f"hop_length {self.hop_length} skips samples between windows of {win}")
        _check(
            0 <= self.f_min < self.f_max <= rate / 2,
            f"bands from f_min {self.f_min:g} to f_max {self.f_max:g} Hz do not fit 0 to {rate / 2:g} Hz, "
            f"half of sample_rate {rate}",
        )
        _check(self.log in LOGS, f"log is {self.log!r}, must be one of {', '.join(LOGS)}")
        _check(math.isfinite(self.offset), f"offset is {self.offset}, must be finite")
        _check(0 < abs(self.scale) < math.inf, f"scale is {self.scale}, must be finite and not 0")
        _check(self.clip is None or self.clip[0] < self.clip[1], f"clip {self.clip} must have low < high")
        _check(
            self.pad_mode in ("reflect", "constant"),
            f"pad_mode is {self.pad_mode!r}, must be reflect or constant",
        )
        _check(self.peak is None or 0 < self.peak <= 1, f"peak is {self.peak}, must be in (0, 1], or None")

    @property
    def context(self) -> tuple[int, int]:
        """Samples beyond the two ends of a recording that its end frames look at: before and after."""
        extra = self.n_fft - self.hop_length
        return extra // 2, extra - extra // 2

    def frames(self, samples: int) -> int:
        """The number of mel frames for this many samples: samples / hop_length, rounded up."""
        return -(-samples // self.hop_length)


class MelSpectrogram(nn.Module):
    """Turn a waveform into its mel spectrogram: one column of n_mels values per hop.

    Frame t looks at n_fft samples centred on the middle of hop t. To this end the wave is filled up with
    zeros at its end to whole hops, and then gets (n_fft - hop_length) / 2 samples at either side, mirrored or
    zero. `forward(wave)` is `from_padded(pad(wave))`; training crops between the two, so that a crop's mel is
    a crop of the mel.

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
                padded.to(self.window.dtype),
                settings.n_fft,
                settings.hop_length,
                settings.win_length,
                self.window,
                center=False,
                return_complex=True,
            )  # (batch, n_fft / 2 + 1, frames)
            squared = spectrum.real.square() + spectrum.imag.square()
            bands = squared if settings.power == 2 else (squared + TINY) ** (settings.power / 2)
            mel = LOGS[settings.log]((self.filter_bank @ bands).clamp(min=settings.floor))
            mel = (mel + settings.offset) * settings.scale
            return mel if settings.clip is None else mel.clamp(*settings.clip)

    def energies(self, mel: Tensor) -> Tensor:
        """Undo the logarithm: what each band gathered, ``filter_bank @ magnitude ** power``, at least `floor`."""
        settings = self.settings
        mel = mel.to(torch.promote_types(mel.dtype, torch.float32))
        return EXPS[settings.log](mel / settings.scale - settings.offset).clamp(min=settings.floor)

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


def mel_filter_bank(settings: MelSettings) -> Tensor:
    """Triangles that gather the bins of a Fourier transform into bands as wide as the ear's.

    Band m rises from edge m to edge m + 1, falls to edge m + 2, and has unit area over Hz. The edges are
    evenly spaced on Slaney's mel scale: linear up to 1000 Hz, 15 mel; then 27 mel for each factor of 6.4.

    Returns:
        (n_mels, n_fft / 2 + 1), float32, equal to `librosa.filters.mel`.

    Slaney, "Auditory Toolbox", version 2, 1998, Interval Research Corporation 1998-010.
    """

    def hz_to_mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)

    mels = torch.linspace(
        hz_to_mel(settings.f_min), hz_to_mel(settings.f_max), settings.n_mels + 2, dtype=torch.float64
    )
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))[:, None]  # Hz
    bins = torch.arange(settings.n_fft // 2 + 1, dtype=torch.float64)  # of the Fourier transform
    bins = bins * settings.sample_rate / settings.n_fft  # Hz
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (high - low)).float()


def _hann(length: int) -> Tensor:
    return torch.hann_window(length, dtype=torch.float64)


def _mirrored(index: Tensor, length: int) -> Tensor:
    """Fold any index back into 0 ... length - 1 as between two mirrors that stand on the end samples."""
    period = max(2 * (length - 1), 1)
    return torch.minimum(index % period, period - index % period)


def _check(ok: bool, message: str) -> None:
    if not ok:
        raise ValueError(f"mel settings: {message}")


def _check_wave(wave: Any) -> None:
    shape = tuple(wave.shape)
    if wave.dim() != 2:
        cure = "pass wave[None]" if wave.dim() == 1 else "pass wave.squeeze(1) if it has one channel"
        raise ValueError(f"wave has shape {shape}, must be (batch, samples); {cure}")
    if 0 in shape:
        raise ValueError(f"wave has shape {shape}: there is nothing to analyse, give at least 1 sample")
    if not wave.is_floating_point():
        raise ValueError(f"wave is {wave.dtype}, must be floats in [-1, 1]; for 16 bits pass wave / 32768")
