"""Pair each recording with the mel that a front-end predicted for it: what a vocoder is fine-tuned on.

A text-to-speech front-end's mels are smoother than those of recordings that a vocoder was trained on. If the front-end is
led along a recording as it predicts (teacher forcing; such mels are called ground truth aligned, GTA), frame t of its mel is
of the same moment as hop t of the recording, and the vocoder can learn what to make of the mels that it will really be
given. That holds only if both are the same utterance, frame by frame, in the vocoder's convention: here this is checked.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from flowavenet.audio import (
    MEL_SUFFIXES,
    Conversion,
    MelSettings,
    MelSpectrogram,
    convert,
    load_audio,
    load_mel,
    save_mel,
)
from flowavenet.audio.files import list_files
from flowavenet.meldetect import detect

SPARE = 8
"""Frames that a mel may have more or fewer than its recording, at the end: one where frames sit on the first sample of each
hop, up to 4 for a reduction factor, a few where rounding or trimming differs."""
SEARCH = 24
"""Frames, either way, among which the recording is looked for in its mel."""
PART = 64
"""Frames, at least, of the parts of a mel that are looked for by themselves."""
LEAST_CORRELATION = 0.6
"""Of a mel with that of its recording. The smooth mels of recipes/finetune have 0.93 to 0.97 with their own recordings, and
at most 0.45 with others (200 clips of five voices, 2,000 wrong pairs, 2026-11-21)."""
FARTHEST = 2
"""Frames by which a mel may be early or late: what a vocoder can still learn to put right, if all its mels are."""


class Place(NamedTuple):
    """Say where in a recording a part of a mel was found."""

    lag: int
    """Frames; positive: what the mel says comes so much later in the recording."""
    correlation: float
    """Of the two there, -1 to 1."""


class Pairs:
    """Find the predicted mels of a corpus, fit them to the vocoder's convention and the recordings' frames.

    Args:
        folder: of mels, named as their recordings: by relative path, or by file name alone if no other has it.
        settings: the vocoder's convention.
        given: the convention that the mels are in, if another; of the same sample rate and hop length.

    Raises ValueError or FileNotFoundError: no such folder, no mels in it, another sample rate or hop length.
    """

    def __init__(self, folder: str | Path, settings: MelSettings, given: MelSettings | None = None):
        self.folder, self.settings, self.given = Path(folder), settings, given or settings
        self.spectrogram = MelSpectrogram(settings)
        self.delay = self.given.delay(settings)
        """Samples that a recording is to begin later, so that its hops lie under the frames of the mels."""
        self.conversions: list[Conversion] = []
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of mels")
        self.files: dict[str, list[Path]] = defaultdict(list)
        for path in list_files(self.folder, MEL_SUFFIXES):
            name = path.relative_to(self.folder).with_suffix("").as_posix()
            for known in {name, path.stem}:
                self.files[known].append(path)
        if not self.files:
            raise ValueError(f"{folder}: no mels there; give a folder of {', '.join(MEL_SUFFIXES)}")

    def find(self, name: str) -> Path:
        """Return the mel file of a recording, by its path relative to the corpus, without suffix."""
        stem = name.rpartition("/")[2]
        found = self.files.get(name) or self.files.get(stem, [])
        if not found:
            raise ValueError(f"has no mel: no {stem}{'|'.join(MEL_SUFFIXES)} in {self.folder}; name it after the recording")
        if len(found) > 1:
            raise ValueError(f"has two mels, {found[0]} and {found[1]}; name one {name}{found[0].suffix} in {self.folder}")
        return found[0]

    def delayed(self, wave: Tensor) -> Tensor:
        """Return the recording (1, samples) with its hops under the frames of the mels.

        It gets silence before it, or loses its first samples.
        """
        return F.pad(wave, (self.delay, 0))

    def cost(self) -> str:
        """Say what bringing the mels to the vocoder's convention cost."""
        done = self.conversions
        loss, hidden = (fmean(getattr(one, name) for one in done) for name in ("loss_db", "hidden"))
        reasons = "; ".join(dict.fromkeys(reason for c in done for reason in c.reasons if "%" not in reason))
        moved = f"; recordings begin {self.delay} samples later, as frames sit elsewhere" if self.delay else ""
        return f"{loss:.2f} dB lost in the mean, {hidden:.1%} hidden: {reasons}{moved}"

    def save(self, name: str, wave: Tensor, target: Path) -> list[str]:
        """Write the mel of a recording (1, samples) to ``target``, (n_mels, frames); return what is doubtful about it.

        Raises ValueError: there is no mel, or it is not one of this recording.
        """
        path = self.find(name)
        given = load_mel(path, self.given.n_mels)
        mel = given
        if self.given != self.settings:
            mel, conversion = convert(given, self.given, self.settings)
            self.conversions.append(conversion)
        own = self.spectrogram(self.spectrogram.normalise(wave))
        try:
            mel = fitted(mel, own)
            doubtful = doubts(mel, own)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        save_mel(target, mel)
        return doubtful


def check_pair(path: Path, recording: Path, spectrogram: MelSpectrogram) -> None:
    """Refuse, with a ValueError, a prepared mel that is not of its recording, frame by frame, in the convention wanted."""
    settings = spectrogram.settings
    mel = load_mel(path, settings.n_mels)
    own = spectrogram(spectrogram.normalise(load_audio(recording, settings.sample_rate)))
    if mel.shape != own.shape:
        raise ValueError(
            f"{path}: has {mel.shape[2]} frames, {recording} {own.shape[2]}; pair them by flowavenet prepare CORPUS OUT "
            f"--mels FOLDER"
        )
    try:
        doubts(mel, own)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def fitted(mel: Tensor, own: Tensor) -> Tensor:
    """Return the mel (1, n_mels, frames) at the length of the recording's own: cut at the end, or its last frame repeated.

    Raises ValueError if that would be more than SPARE frames.
    """
    frames, wanted = mel.shape[2], own.shape[2]
    if abs(frames - wanted) > SPARE:
        raise ValueError(
            f"has {frames} frames, the recording {wanted}, more than {SPARE} apart; predict it by teacher forcing, and "
            f"trim both alike"
        )
    return F.pad(mel, (0, max(0, wanted - frames)), mode="replicate")[..., :wanted]


def doubts(mel: Tensor, own: Tensor) -> list[str]:
    """List what is doubtful about a mel as a prediction of the recording's own, both (1, n_mels, frames).

    Raises ValueError if it is none: other values, another utterance, or not frame by frame.
    """
    (mean, spread), (own_mean, own_spread) = ((one.mean().item(), one.std().item()) for one in (mel, own))
    if abs(mean - own_mean) > own_spread or not 0.5 < spread / max(own_spread, 1e-9) < 2:
        found = detect(mel)
        hint = f", it looks like {found.names[0]} ({found.verdict})" if found.names else ""
        raise ValueError(
            f"has mean {mean:.2f} and standard deviation {spread:.2f}, the recording's own mel {own_mean:.2f} and "
            f"{own_spread:.2f}: another convention{hint}; name it by --mels-in"
        )
    whole = places(mel, own, 1)[0]
    if whole.correlation < LEAST_CORRELATION:
        raise ValueError(
            f"is not of this utterance: it correlates by {whole.correlation:.2f} with the recording's own mel, less than "
            f"{LEAST_CORRELATION}; check the names"
        )
    parts = [place.lag for place in places(mel, own, 3) if place.correlation >= LEAST_CORRELATION]
    worst = max([whole.lag, *parts], key=abs)
    if abs(worst) > FARTHEST:
        raise ValueError(
            f"does not keep time: parts of it lie {', '.join(map(str, parts or [worst]))} frames early, more than "
            f"{FARTHEST}; predict it by teacher forcing, and trim both alike"
        )
    doubtful = []
    if whole.lag:
        side = "early" if whole.lag > 0 else "late"
        doubtful.append(f"its mel is {abs(whole.lag)} frames {side}, correlation {whole.correlation:.2f}")
    if abs(mean - own_mean) > own_spread / 4:
        doubtful.append(f"its mel has mean {mean:.2f}, the recording's own {own_mean:.2f}: of a recording at another level?")
    return doubtful


def places(mel: Tensor, own: Tensor, parts: int) -> list[Place]:
    """Look for each of equal parts of a mel, both (1, n_mels, frames), in the recording's own; fewer parts of a short one.

    correlation(lag) = sum_t mel[t] . own[t + lag] / sqrt(sum_t |mel[t]|^2 sum_t |own[t + lag]|^2),  each band less its mean
    """
    frames = min(mel.shape[2], own.shape[2])
    mel, own = (one[..., :frames] - one[..., :frames].mean(2, keepdim=True) for one in (mel, own))
    around = F.pad(own, (SEARCH, SEARCH))
    parts = max(1, min(parts, frames // PART))
    found = []
    for number in range(parts):
        start, stop = number * frames // parts, (number + 1) * frames // parts
        part, area = mel[..., start:stop], around[..., start : stop + 2 * SEARCH]
        products = F.conv1d(area, part)[0, 0]                          # (2 * SEARCH + 1)
        energy = F.conv1d(area.square().sum(1, keepdim=True), torch.ones(1, 1, stop - start))[0, 0]
        correlation = products / (part.square().sum() * energy).sqrt().clamp(min=1e-9)
        best = int(correlation.argmax())
        found.append(Place(best - SEARCH, correlation[best].item()))
    return found
