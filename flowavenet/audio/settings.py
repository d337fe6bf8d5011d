"""What must agree between the mel a vocoder was trained on and the mel it is given, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from flowavenet.files import short

CHOICES: dict[str, tuple[str | None, ...]] = {
    "log": ("ln", "log10", "db", "linear"),
    "floor_mode": ("max", "add"),
    "pad_mode": ("reflect", "constant"),
    "mel_scale": ("slaney", "htk"),
    "norm": ("slaney", None),
    "frame_centre": ("hop", "start"),
}

LARGEST_VALUE = 100_000.0
"""Of a mel. Logarithms reach some hundreds; powers that no logarithm was taken of, some ten thousands."""
LARGEST = {"sample_rate": 768_000, "n_fft": 65_536, "n_mels": 1024}
"""Beyond these, a wrong digit would take all memory."""


@dataclass(frozen=True)
class MelSettings:
    """All that must agree between the mel a vocoder was trained on and the mel it is given.

    mel = clip((log(max(filter_bank @ magnitude ** power, floor)) + offset) * scale)

    where `floor_mode` add has the sum of the two for the larger. The defaults are HiFi-GAN's. All values are plain, so
    `dataclasses.asdict` writes them to YAML and `MelSettings(**values)` reads them back. Raises ValueError, in one line, for
    what makes no sense.

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
    log: Literal["ln", "log10", "db", "linear"] = "ln"
    """Logarithm: natural, to base 10, or decibels (20 log10); linear: none is taken."""
    floor: float = 1e-5
    """Smallest value that reaches the logarithm."""
    offset: float | tuple[float, ...] = 0.0
    """Added after the logarithm; one number, or one for each band."""
    scale: float | tuple[float, ...] = 1.0
    """Multiplied after the offset; one number, or one for each band. A mel brought to mean 0 and variance 1 has
    offset -mean and scale 1 / standard deviation."""
    clip: tuple[float, float] | None = None
    """Range of the final value."""
    pad_mode: Literal["reflect", "constant"] = "reflect"
    """What the first and the last frames see beyond the ends: the signal mirrored, or zeros."""
    peak: float | None = None
    """Level that `MelSpectrogram.normalise` brings each utterance to; None: as recorded."""
    mel_scale: Literal["slaney", "htk"] = "slaney"
    """Where the bands lie: evenly on Slaney's mel scale (librosa), or on HTK's, 2595 log10(1 + Hz / 700) (torchaudio)."""
    norm: Literal["slaney"] | None = "slaney"
    """Each band has unit area over Hz, or its peak is 1 (None)."""
    preemphasis: float = 0.0
    """Analyse x[n] - preemphasis * x[n - 1] instead of the wave, which lifts the treble; 0: the wave as it is."""
    frame_centre: Literal["hop", "start"] = "hop"
    """What frame t is centred on: the middle of hop t, or its first sample, t * hop_length."""
    eps: float = 1e-14
    """Added to the squared magnitude before the root, so that its gradient at digital silence is 0 and not NaN; power 2
    has no root. The default leaves a magnitude just above HiFi-GAN's floor right to 1e-6; lower floors want a lower one."""
    floor_mode: Literal["max", "add"] = "max"
    """The logarithm is taken of the larger of energy and floor, or of their sum."""
    band_rate: int | None = None
    """Sample rate, Hz, that the bands were computed for; None: sample_rate. StyleTTS 2 computes them for 16 kHz and uses
    them at 24 kHz, so that they lie 1.5 times as high as f_min, f_max and the mel scale say."""

    def __post_init__(self) -> None:
        # YAML readers hand over lists for tuples, and 1e-5 (without a dot) as text.
        for name in ("f_min", "f_max", "power", "floor", "offset", "scale", "preemphasis", "eps", "peak", "clip"):
            value = getattr(self, name)
            if not isinstance(value, float):
                object.__setattr__(self, name, _numbers(name, value))
        if wrong := self._wrong():
            raise ValueError(f"mel settings: {wrong}")

    def _wrong(self) -> str:
        """Return what makes no sense, in one line; empty: nothing."""
        for name in ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                return f"{name} is {short(value)}, must be a whole number > 0"
            if value > LARGEST.get(name, value):
                return f"{name} is {short(value)}, must be at most {LARGEST[name]}"
        for name in ("power", "floor", "eps"):
            if not getattr(self, name) > 0:
                return f"{name} is {getattr(self, name)}, must be above 0"
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                said = " or ".join(map(str, choices)) if len(choices) == 2 else "one of " + ", ".join(map(str, choices))
                return f"{name} is {short(getattr(self, name))}, must be {said}"
        band_rate = self.band_rate
        if band_rate is not None and not (isinstance(band_rate, int) and 0 < band_rate <= LARGEST["sample_rate"]):
            return f"band_rate is {short(band_rate)}, must be a whole number > 0, or None"
        win, hop, rate = self.win_length, self.hop_length, band_rate or self.sample_rate
        if win > self.n_fft:
            return f"win_length {win} is longer than n_fft {self.n_fft}; raise n_fft"
        if hop > win:
            return f"hop_length {hop} skips samples between windows of {win}"
        if self.frame_centre == "start" and 2 * hop > self.n_fft:
            return (
                f"hop_length {hop} is more than half of n_fft {self.n_fft}, which frame_centre 'start' cannot have; "
                f"raise n_fft"
            )
        if not 0 <= self.f_min < self.f_max <= rate / 2:
            return (
                f"bands from f_min {self.f_min:g} to f_max {self.f_max:g} Hz do not fit 0 to {rate / 2:g} Hz, "
                f"half of {'sample_rate' if band_rate is None else 'band_rate'} {rate}"
            )
        for name in ("offset", "scale"):
            values = getattr(self, name)
            each = values if isinstance(values, tuple) else (values,) * self.n_mels
            if len(each) != self.n_mels:
                return f"{name} has {len(each)} numbers for n_mels {self.n_mels}; give 1, or as many"
            if not all(map(math.isfinite, each)) or (name == "scale" and 0 in each):
                bad = [value for value in each if not math.isfinite(value) or value == 0]
                return f"{name} is {bad[:1]}, must be finite{' and not 0' * (name == 'scale')}"
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            return f"clip {self.clip} must have low < high"
        if self.peak is not None and not 0 < self.peak <= 1:
            return f"peak is {self.peak}, must be in (0, 1], or None"
        return "" if 0 <= self.preemphasis < 1 else f"preemphasis is {self.preemphasis}, must be in [0, 1)"

    @property
    def band_edges(self) -> tuple[float, float]:
        """The lower edge of the lowest band and the upper edge of the highest, in Hz of the audio.

        >>> MelSettings(sample_rate=24000, band_rate=16000).band_edges
        (0.0, 12000.0)
        """
        stretch = 1.0 if self.band_rate is None else self.sample_rate / self.band_rate
        return self.f_min * stretch, self.f_max * stretch

    @property
    def context(self) -> tuple[int, int]:
        """Samples beyond the two ends of a recording that its end frames look at: before and after."""
        extra = self.n_fft - self.hop_length
        before = self.n_fft // 2 if self.frame_centre == "start" else extra // 2
        return before, extra - before

    def frames(self, samples: int) -> int:
        """The number of mel frames for this many samples: samples / hop_length, rounded up."""
        return -(-samples // self.hop_length)

    def delay(self, vocoder: MelSettings) -> int:
        """How late, in samples, speech comes that a vocoder of other settings makes of a mel of these; negative: early.

        Two conventions that differ in ``frame_centre`` are half a hop apart. Nothing need be done to the mel: half a hop
        cut from the beginning of what was made of it (or put before it, if early) is exact. Only where a mel goes together
        with a recording of its own, as in ``log_prob``, ``encode`` and scores, must they agree: analyse the recording anew.

        >>> MelSettings(frame_centre="start").delay(MelSettings())
        128

        Raises ValueError if hop_length or sample_rate differ, as then no shift makes the two agree.
        """
        for name in ("sample_rate", "hop_length"):
            ours, theirs = getattr(self, name), getattr(vocoder, name)
            if ours != theirs:
                cure = "analyse the recording anew"
                raise ValueError(f"mel settings: {name} {ours} of the mel is not the vocoder's, {theirs}; {cure}")
        return vocoder._centre - self._centre

    def alike(self, other: MelSettings) -> bool:
        """Return whether mels of both have the same values, but for where frames sit, the ends, the level, and next to the
        floor.

        >>> MelSettings().alike(MelSettings(frame_centre="start"))
        True
        """
        return self.values_key == other.values_key

    @property
    def values_key(self) -> tuple[Any, ...]:
        """The settings that show in the values of a mel."""
        unseen = "frame_centre", "eps", "pad_mode", "peak"
        return tuple([value for name, value in vars(self).items() if name not in unseen])

    @property
    def _centre(self) -> int:
        """Where frame 0 is centred, samples."""
        return self.n_fft // 2 - self.context[0]


def _numbers(name: str, value: Any) -> float | tuple[float, ...] | None:
    """Return a float, or a tuple of them where several are allowed; None stays."""
    if value is None and name in ("peak", "clip"):
        return None
    try:
        if isinstance(value, (list, tuple)) and name in ("offset", "scale", "clip"):
            numbers = tuple(float(item) for item in value)
        else:
            numbers = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"mel settings: {name} is {short(value)}, must be a number") from None
    if name == "clip" and (isinstance(numbers, float) or len(numbers) != 2):
        raise ValueError(f"mel settings: clip is {short(value)}, must be two numbers, low and high")
    return numbers
