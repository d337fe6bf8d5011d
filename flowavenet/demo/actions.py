"""What the page does with a clip: numbers in, numbers out, no page in sight.

A flow is one map between sound and noise. So noise can be looked up for any recording, changed, and made sound again; the
functions here are the experiments that this allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from flowavenet.serve.uploads import Clip
from flowavenet.streaming import Noise
from flowavenet.vocoder import Speaker, Vocoder


class Vocoded(NamedTuple):
    """What was made of a mel, and the time that took."""

    wave: Tensor
    """(1, samples)."""
    work: float
    """Seconds."""


class RoundTrip(NamedTuple):
    """A recording (or a draw, of a mel alone), its noise, and the recording made of that noise again: (1, samples) each."""

    wave: Tensor
    noise: Tensor
    again: Tensor

    @property
    def error(self) -> float:
        """The largest difference of a sample, where full scale is 1."""
        return (self.again - self.wave).abs().max().item()

    @property
    def exactness(self) -> float:
        """Signal to error, dB; infinite if all samples are equal."""
        return 10 * torch.log10(self.wave.double().square().sum() / (self.again - self.wave).double().square().sum()).item()


class Edited(NamedTuple):
    """A clip before and after its noise was changed between two times: (1, samples) each."""

    before: Tensor
    after: Tensor
    span: slice
    """Samples whose noise was changed."""
    receptive_field: tuple[int, int]
    """Samples before and after the span that can hear of it at all."""

    def loudest(self, around: int) -> float:
        """The largest change of a sample outside the span and ``around`` samples either side of it; 0 if there is none."""
        change = (self.after - self.before).abs()
        outside = change[:, : max(0, self.span.start - around)], change[:, self.span.stop + around :]
        return max(part.max().item() if part.numel() else 0.0 for part in outside)


def vocode(
    vocoder: Vocoder, clip: Clip, temperature: float, match: int, seed: int, speaker: Speaker | None = None
) -> Vocoded:
    """Make audio from the mel of a clip."""
    start = perf_counter()
    wave = vocoder(clip.mel, temperature, seed, match, speaker=speaker)
    return Vocoded(wave, perf_counter() - start)


def sweep(
    vocoder: Vocoder, clip: Clip, temperatures: Sequence[float], match: int, seed: int, speaker: Speaker | None = None
) -> list[Tensor]:
    """The same noise at several temperatures, a wave for each."""
    return [vocode(vocoder, clip, temperature, match, seed, speaker).wave for temperature in temperatures]


def find_noise(vocoder: Vocoder, clip: Clip, temperature: float, seed: int, speaker: Speaker | None = None) -> Tensor:
    """The noise behind the recording (1, samples); of a clip that is a mel alone, a new one at this temperature."""
    if clip.wave is not None:
        return vocoder.encode(clip.wave, clip.mel, speaker)
    return temperature * Noise(seed, 1, vocoder.device)(0, clip.mel.shape[-1] * vocoder.settings.hop_length)


def round_trip(
    vocoder: Vocoder, clip: Clip, temperature: float, seed: int, speaker: Speaker | None = None
) -> RoundTrip:
    """From sound to noise and back, which loses nothing."""
    clip = clip.whole(vocoder)
    wave = clip.wave
    if wave is None:
        wave = vocoder.decode(find_noise(vocoder, clip, temperature, seed, speaker), clip.mel, speaker)
    noise = vocoder.encode(wave, clip.mel, speaker)
    return RoundTrip(wave, noise, vocoder.decode(noise, clip.mel, speaker))


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Walk from one noise to another (1, samples) along the sphere that noise lives on, so that its energy stays the same.

    (sin((1 - weight) angle) a + sin(weight angle) b) / sin(angle),  angle between a and b

    Half-way on the straight line, two independent noises would have half the energy: the sound of a low temperature.

    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
    """
    cosine = torch.cosine_similarity(a.double(), b.double(), dim=-1).clamp(-1, 1)
    angle = torch.acos(cosine)[:, None]
    if angle.sin().abs().min() < 1e-6:                                 # the same direction: nothing to turn
        return torch.lerp(a, b, weight)
    return ((torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / torch.sin(angle)).to(a.dtype)


def interpolate(
    vocoder: Vocoder, first: Clip, second: Clip, noise: float, mel: float, temperature: float, seed: int,
    speaker: Speaker | None = None,
) -> Tensor:
    """A wave between two clips, as long as the shorter one.

    Args:
        noise, mel: how far from the first clip to the second, 0 to 1: the noise on the sphere, the mel on a line.
        temperature, seed: of the noise of clips that are mels alone; the second one's is another.
    """
    clips = [clip.whole(vocoder) for clip in (first, second)]
    frames = min(clip.mel.shape[-1] for clip in clips)
    first, second = (clip.beginning(frames, vocoder.settings.hop_length) for clip in clips)
    a, b = (find_noise(vocoder, clip, temperature, seed + i, speaker) for i, clip in enumerate((first, second)))
    return vocoder.decode(slerp(a, b, noise), torch.lerp(first.mel, second.mel, mel), speaker)


def edit_noise(
    vocoder: Vocoder, clip: Clip, start: float, stop: float, gain: float | None, temperature: float, seed: int,
    speaker: Speaker | None = None,
) -> Edited:
    """Change the noise of a clip between two times, and nothing else.

    Args:
        start, stop: seconds.
        gain: how many times as strong the noise becomes; None: drawn anew, at this temperature.

    Raises ValueError if start and stop are not two times of the clip, in this order.
    """
    clip, rate = clip.whole(vocoder), vocoder.sample_rate
    samples = clip.mel.shape[-1] * vocoder.settings.hop_length
    span = slice(round(start * rate), min(round(stop * rate), samples))
    if not 0 <= span.start < span.stop:
        raise ValueError(
            f"the span {start:.2f} s to {stop:.2f} s is empty in a clip of {samples / rate:.2f} s; "
            f"let it begin before it ends, within the clip"
        )
    noise = find_noise(vocoder, clip, temperature, seed, speaker)
    changed = noise.clone()
    fresh = temperature * Noise(seed + 1, 1, vocoder.device)(span.start, span.stop)
    changed[:, span] = fresh if gain is None else gain * noise[:, span]
    before, after = (vocoder.decode(one, clip.mel, speaker) for one in (noise, changed))
    # a sample hears as far ahead as noise is heard behind it
    left, right = vocoder.model.flow.receptive_field
    return Edited(before, after, span, (int(min(right, samples)), int(min(left, samples))))
