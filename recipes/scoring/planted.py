"""Plant faults among good recordings, and count how many of them `flowavenet score --rank` brings to the top.

    python recipes/scoring/planted.py CORPUS

Of each speaker, folders of 52 recordings as they are are drawn, and one recording with each fault is added. A fault is found
if it is among as many worst as there are faults; flagged, if a reason is given for it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from flowavenet import Vocoder, load_audio
from flowavenet.audio.files import resampled
from flowavenet.data.corpus import Clip, read_corpus
from flowavenet.evaluation.outliers import Measured, measure, rank
from flowavenet.evaluation.scoring import score

GOOD, PLANTED, FOLDER, DRAWS = 60, 20, 52, 100
RATE = 22050
Fault = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def at_rate(wave: np.ndarray, rate: float, wanted: float) -> np.ndarray:
    return np.concatenate(list(resampled([wave.astype(np.float32)], round(rate), round(wanted))))


def mixed(wave: np.ndarray, other: np.ndarray, db: float) -> np.ndarray:
    return wave + other * wave.std() / other.std() * 10 ** (db / 20)


def hum(samples: int) -> np.ndarray:
    return sum(np.sin(2 * math.pi * 50 * k * np.arange(samples) / RATE + k) / k for k in range(1, 6))


def mulaw(wave: np.ndarray, _: np.random.Generator) -> np.ndarray:
    steps = np.round(127 * np.sign(wave) * np.log1p(255 * np.abs(wave)) / math.log(256)) / 127
    return np.sign(steps) * (256 ** np.abs(steps) - 1) / 255


def dropouts(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    wave = wave.copy()
    for _ in range(max(3, 2 * len(wave) // RATE)):
        start = rng.integers(len(wave) - RATE // 16)
        wave[start : start + rng.integers(RATE // 50, RATE // 16)] = 0
    return wave


def music(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    notes = 220 * 2 ** (rng.integers(0, 24, 1 + 3 * len(wave) // RATE) / 12)
    time = np.arange(len(wave)) / RATE
    note, phase = np.divmod(time, 1 / 3)
    tones = sum(np.sin(2 * math.pi * k * notes[note.astype(int)] * phase) / k for k in range(1, 5)) * np.exp(-3 * phase)
    return tones / tones.std() * wave.std()


FAULTS: dict[str, Fault] = {
    "clipped at 20 % of its peak": lambda wave, _: 5 * wave.clip(-0.2 * abs(wave).max(), 0.2 * abs(wave).max()),
    "white noise, 15 dB SNR": lambda wave, rng: mixed(wave, rng.standard_normal(len(wave)), -15),
    "50 Hz hum, 15 dB SNR": lambda wave, _: mixed(wave, hum(len(wave)), -15),
    "was 8 kHz audio": lambda wave, _: at_rate(at_rate(wave, RATE, 8000), 8000, RATE)[: len(wave)],
    "8-bit mu-law": mulaw,
    "dropouts of 20 to 60 ms, 2 per second": dropouts,
    "music": music,
    "nothing but white noise": lambda wave, rng: wave.std() * rng.standard_normal(len(wave)),
    "20 dB too quiet": lambda wave, _: wave / 10,
    "wrong rate, 1.3 times as fast": lambda wave, _: at_rate(wave, 1.3 * RATE, RATE),
    "cut off at 60 %": lambda wave, _: wave[: len(wave) * 6 // 10],
}
SWAPPED = "another speaker"


def recordings(vocoder: Vocoder, clips: list[Clip], speaker: str) -> Iterator[tuple[str, Measured]]:
    """What is measured of good recordings of a speaker ("") and of spoilt ones, by fault."""
    rng = np.random.default_rng(0)
    own = [clip.path for clip in clips if clip.speaker == speaker]
    others = [clip.path for clip in clips if clip.speaker != speaker]
    own = [own[i] for i in rng.permutation(len(own))[: GOOD + PLANTED]]

    def measured(wave: np.ndarray) -> Measured:
        as_16_bits = np.round(32767 * wave.clip(-1, 1)).astype(np.float32) / 32768
        wave = torch.from_numpy(as_16_bits)
        return measure(wave, RATE, score(vocoder, wave[None]).surprise_db)

    def read(path: Path) -> np.ndarray:
        return load_audio(path, RATE)[0].double().numpy()

    for path in own[:GOOD]:
        yield "", measured(read(path))
    for name, fault in FAULTS.items():
        for path in own[GOOD:]:
            yield name, measured(fault(read(path), rng))
    for i in rng.permutation(len(others))[: 2 * PLANTED]:
        yield SWAPPED, measured(read(others[i]))


def count(found: list[tuple[str, Measured]], totals: dict[str, np.ndarray]) -> None:
    """Add to the totals of each fault: found, found by the surprise alone, flagged, all; and of good recordings ("")."""
    rng = np.random.default_rng(0)
    names = [*FAULTS, SWAPPED]
    by_fault = {name: [one for fault, one in found if fault == name] for name in ["", *names]}
    for _ in range(DRAWS):
        good = [by_fault[""][i] for i in rng.permutation(GOOD)[:FOLDER]]
        spoilt = [by_fault[name][rng.integers(len(by_fault[name]))] for name in names]
        standings = rank(good + spoilt)
        for column, key in enumerate((lambda one: one.deviation, lambda one: one.values["surprise"])):
            for i in sorted(range(len(standings)), key=lambda i: -key(standings[i]))[: len(names)]:
                totals[names[i - FOLDER] if i >= FOLDER else ""][column] += 1
        for i, one in enumerate(standings):
            totals[names[i - FOLDER] if i >= FOLDER else ""][2:] += [bool(one.reasons), 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", help="with speakers, at 22,050 Hz")
    clips = read_corpus(parser.parse_args().corpus)
    vocoder = Vocoder.from_pretrained()
    speakers = sorted({clip.speaker for clip in clips})
    totals = {name: {speaker: np.zeros(4) for speaker in speakers} for name in [*FAULTS, SWAPPED, ""]}
    for speaker in speakers:
        count(list(recordings(vocoder, clips, speaker)), {name: each[speaker] for name, each in totals.items()})
    print("| fault | found, % | by the surprise alone | flagged, % | found, of each voice: " + ", ".join(speakers) + " |")
    print("|---|---|---|---|---|")
    for name, each in totals.items():
        total = sum(each.values())
        share = " | ".join(f"{100 * part / total[3]:.0f}" for part in total[:3])
        voices = ", ".join(f"{100 * one[0] / one[3]:.0f}" for one in each.values())
        print(f"| {name or 'none: good recordings'} | {share} | {voices} |")


if __name__ == "__main__":
    main()
