"""What each button answers: the action, its sounds as files, its figures in words, its picture."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from flowavenet.audio import save_audio
from flowavenet.demo import actions, words
from flowavenet.demo.pictures import Curve, Panel, draw, mel_panel, spectrogram
from flowavenet.evaluation.scoring import SHOWN, score
from flowavenet.losses import PCM_STEP
from flowavenet.serve.uploads import Clip, load_clip
from flowavenet.vocoder import Vocoder

TEMPERATURES = (0.0, 0.4, 0.7, 1.0)
DRAW, SCALE = "draw it anew", "scale it"
EDITS = (DRAW, SCALE)
STEPS = 256
"""Into so many steps, at most, a clip's likelihood is divided: more would be a thicket."""


@dataclass(frozen=True)
class Request:
    """A clip, how to work on it, and where the results go."""

    path: Path
    clip: Clip
    vocoder: Vocoder
    folder: Path
    temperature: float
    match: int
    seed: int
    speaker: str | None

    @classmethod
    def of(
        cls, path: str | None, vocoder: Vocoder, folder: Path, temperature: float, match: int, seed: int | None,
        speaker: str | None,
    ) -> Request:
        """Read the clip. Raises ValueError, in a sentence, for what is missing or wrong."""
        if not path:
            raise ValueError(words.NOTHING_GIVEN)
        if seed is None:
            raise ValueError(words.NO_SEED)
        return cls(Path(path), load_clip(path, vocoder), vocoder, folder, temperature, match, seed, speaker)

    @property
    def seconds(self) -> float:
        return self.clip.mel.shape[-1] * self.vocoder.settings.hop_length / self.vocoder.sample_rate

    @property
    def noise(self) -> tuple[float, int, str | None]:
        """What to draw noise with, where there is no recording to find it behind, and whose voice."""
        return self.temperature, self.seed, self.speaker

    def file(self, name: str) -> Path:
        """A new name for a result, in a folder of its own that nobody can guess."""
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir()
        return folder / f"{self.path.stem}-{name}"

    def sound(self, name: str, wave: Tensor) -> str:
        if not wave.isfinite().all():
            raise ValueError(words.NOT_FINITE)
        path = self.file(f"{name}.wav")
        save_audio(path, wave, self.vocoder.sample_rate)
        return str(path)

    def sounds(self, waves: dict[str, Tensor]) -> list[str]:
        return [self.sound(name, wave) for name, wave in waves.items()]

    def picture(self, panels: list[Panel], seconds: float | None = None, span: tuple[float, float] | None = None) -> str:
        return str(draw(self.file("spectrograms.png"), panels, seconds or self.seconds, span))

    def panel(self, title: str, wave: Tensor, loudest: float = 0.0, curve: Curve | None = None) -> Panel:
        return spectrogram(title, wave, self.vocoder.sample_rate, curve, loudest)


def vocode(request: Request) -> tuple:
    """The recording, the vocoded, figures, picture."""
    clip, vocoder = request.clip, request.vocoder
    made = actions.vocode(vocoder, clip, request.temperature, request.match, request.seed, request.speaker)
    said = [f"**RTF {made.work / request.seconds:.3f}**: {request.seconds:.1f} s of audio in {made.work:.2f} s."]
    panels = [request.panel("vocoded", made.wave)]
    if clip.wave is None:
        panels.insert(0, mel_panel("the mel asked for", clip.mel))
    else:
        curve, nats = _likelihood(request)
        panels.insert(0, request.panel("recording, and its log-likelihood", clip.wave, panels[0].loudest, curve))
        said.append(f"Log-likelihood of the recording: **{nats:.2f} nats per sample**.")
    original = None if clip.wave is None else str(request.path)
    return original, request.sound("vocoded", made.wave), " ".join(said), request.picture(panels)


def _likelihood(request: Request) -> tuple[Curve, float]:
    """Of the recording, over time and of all, in nats per sample; as 16-bit audio has no density, its steps are filled."""
    found = score(request.vocoder, request.clip.whole(request.vocoder).wave, speaker=request.speaker)
    each, seconds = found.per_sample(max(4, -(-len(found.nats) // STEPS)))
    return Curve("nats per sample", seconds, each.clamp(-SHOWN, SHOWN)), found.nats_per_sample


def round_trip(request: Request) -> tuple:
    """The recording, its noise, the recording again, figures, picture."""
    trip = actions.round_trip(request.vocoder, request.clip, *request.noise)
    said = (
        f"**Largest error of a sample: {trip.error:.1e}** of full scale, all of it {trip.exactness:.0f} dB below the sound; "
        f"a step of 16-bit audio is {PCM_STEP:.1e}. The noise has mean {trip.noise.mean():.3f} and standard deviation "
        f"{trip.noise.std():.3f}; 0 and 1 are perfect."
    )
    panels = [request.panel("recording", trip.wave), request.panel("its noise", trip.noise)]
    panels.append(request.panel("made of that noise", trip.again, panels[0].loudest))
    waves = {"recording": trip.wave, "noise": trip.noise / 10, "again": trip.again}
    return *request.sounds(waves), said, request.picture(panels)


def sweep(request: Request) -> tuple:
    """A sound for each temperature, figures, picture."""
    made = actions.sweep(request.vocoder, request.clip, TEMPERATURES, request.match, request.seed, request.speaker)
    waves = {f"temperature-{temperature:g}": wave for temperature, wave in zip(TEMPERATURES, made, strict=True)}
    last = request.panel("", made[-1])
    panels = [request.panel(name.replace("-", " "), wave, last.loudest) for name, wave in waves.items()]
    said = f"Seed {request.seed} and {request.match} rounds of mel matching in all of them."
    return *request.sounds(waves), said, request.picture(panels)


def interpolate(request: Request, second: str | None, noise: float, mel: float) -> tuple:
    """The sound between, figures, picture."""
    if not second:
        raise ValueError(words.NO_SECOND)
    vocoder, other = request.vocoder, load_clip(second, request.vocoder)
    wave = actions.interpolate(vocoder, request.clip, other, noise, mel, *request.noise)
    seconds = wave.shape[1] / vocoder.sample_rate
    panels = [request.panel(f"noise at {noise:g}, mel at {mel:g}", wave)]
    for title, clip in (("first", request.clip), ("second", other)):
        if clip.wave is not None:
            panels.append(request.panel(title, clip.wave[:, : wave.shape[1]], panels[0].loudest))
    said = f"{seconds:.1f} s, as long as the shorter one. The flow alone, without mel matching."
    return request.sound("interpolated", wave), said, request.picture(panels, seconds)


def edit(request: Request, start: float, stop: float, how: str, gain: float) -> tuple:
    """Before, after, the difference, figures, picture."""
    vocoder = request.vocoder
    edited = actions.edit_noise(vocoder, request.clip, start, stop, gain if how == SCALE else None, *request.noise)
    difference = edited.after - edited.before
    near = round(0.1 * vocoder.sample_rate)
    most, reach = difference.abs().max().item(), max(edited.receptive_field)
    away, beyond = (_db(edited.loudest(around), most) for around in (near, reach))
    said = (
        f"More than 0.1 s away from the span, the largest change of a sample is {away}; beyond the "
        f"{reach / vocoder.sample_rate:.2f} s that the flow can reach at all, {beyond}."
    )
    waves = {"before": edited.before, "after": edited.after, "difference": difference}
    before = request.panel("before", edited.before)
    panels = [before, *(request.panel(name, waves[name], before.loudest) for name in ("after", "difference"))]
    return *request.sounds(waves), said, request.picture(panels, span=(start, stop))


def _db(change: float, most: float) -> str:
    return f"{20 * math.log10(most / change):.0f} dB below that inside" if change else "there is none"
