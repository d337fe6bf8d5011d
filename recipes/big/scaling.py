"""Measure how vocoding scales with processors: plain, and by actors of Ray; start-up apart from throughput.

    python recipes/big/scaling.py

For each number of processors that is asked for, and to which all is then bound, the same clips are vocoded by one process of
as many threads, and by as many actors of one thread. When each result was written tells how long what took:

    start       from the command to the first result
    throughput  seconds of audio that are made per second, between the first result and the last
    end         from the last result to the end of the process

and the model of a run on n processors is then, with the throughput of one actor on one processor,

    seconds = start + end + audio / (n * throughput * efficiency)

with the efficiency of the most actors that were tried; what it says of other numbers is arithmetic, and not measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch

from flowavenet import Vocoder, load_audio

RECORDINGS = sorted((Path(__file__).parents[2] / "tests" / "data").glob("*.flac"))
SECONDS = 2.0, 6.0
"""Of a clip: all lengths are equally likely."""
CONVENTION = "hifigan"
BIG = [(10_000, 8), (1_000_000, 8), (1_000_000, 64)]
"""Clips and processors for which the model is asked."""


class Run(NamedTuple):
    """How a run went, in seconds."""

    start: float
    work: float
    """Between the first result and the last."""
    end: float
    whole: float


def make_clips(folder: Path, count: int, vocoder: Vocoder) -> float:
    """Cut mels from the recordings, laid end to end and repeated, at random; how many seconds all of them have."""
    mels = [vocoder.mel(load_audio(file, vocoder.sample_rate))[0] for file in RECORDINGS]
    whole, random = torch.cat([*mels, *mels], dim=1).numpy(), np.random.default_rng(0)
    rate, total = vocoder.sample_rate / vocoder.settings.hop_length, 0
    for number in range(count):
        frames = round(random.uniform(*SECONDS) * rate)
        start = random.integers(0, whole.shape[1] // 2)
        clip = whole[:, start : start + frames]
        np.save(folder / f"{number:06}.npy", clip)
        total += clip.shape[1]
    return total / rate


def vocode(folder: Path, out: Path, engine: str, processors: list[int], checkpoint: str) -> Run:
    """One run of the command line on some processors of this machine."""
    out.mkdir()
    words = ["vocode", str(folder), "-o", str(out), "--mel-convention", CONVENTION, "--engine", engine, "--batch", "1"]
    words += ["--actors", str(len(processors))] if engine == "ray" else []
    words += ["--checkpoint", checkpoint] if checkpoint else []
    environment = os.environ | {"OMP_NUM_THREADS": str(len(processors))} if engine == "plain" else None
    begun = time.time()
    subprocess.run(
        [sys.executable, "-m", "flowavenet.cli", *words], check=True, stdout=subprocess.DEVNULL, env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
    )
    ended = time.time()
    written = sorted(file.stat().st_mtime for file in out.iterdir())
    return Run(written[0] - begun, written[-1] - written[0], ended - written[-1], ended - begun)


def rounds(options: argparse.Namespace, folder: Path, work: Path) -> Iterator[tuple[str, int, Run]]:
    """All runs, kind by kind and then again, so that what else the machine does meets all kinds."""
    processors = sorted(os.sched_getaffinity(0))
    for again in range(options.repeats):
        for count in options.processors:
            for engine in ("plain", "ray"):
                out = work / f"{engine}-{count}-{again}"
                yield engine, count, vocode(folder, out, engine, processors[:count], options.checkpoint)
                print(f"{engine} on {count}: done, the machine's load is {os.getloadavg()[0]:.1f}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--processors", type=int, nargs="+", default=[1, 2], help="numbers of processors to be tried")
    parser.add_argument("--repeats", type=int, default=2, help="times that all is measured; medians are told")
    parser.add_argument("--checkpoint", default="", help="the shipped default if left out")
    options = parser.parse_args()
    most = len(os.sched_getaffinity(0))
    if max(options.processors) > most:
        parser.error(f"--processors {max(options.processors)}: this machine has {most}; ask for at most that many")

    runs: dict[tuple[str, int], list[Run]] = {}
    with TemporaryDirectory() as work:
        folder, vocoder = Path(work) / "mels", Vocoder.from_pretrained(options.checkpoint or None)
        folder.mkdir()
        audio = make_clips(folder, options.clips, vocoder)
        for engine, count, run in rounds(options, folder, Path(work)):
            runs.setdefault((engine, count), []).append(run)
        alike = [*Path(work).glob("ray-*"), *Path(work).glob("plain-1-*")]  # of one thread
        made = [{file.name: file.read_bytes() for file in out.iterdir()} for out in alike]
        same = all(one == made[0] for one in made)

    print(f"{options.clips} clips, {audio:.0f} s of audio; medians of {options.repeats} runs")
    print(f"torch {torch.__version__}, {date.today()}\n")
    print("| engine | processors | start, s | throughput, s of audio per s | end, s | all, s |\n|---|---|---|---|---|---|")
    for (engine, count), some in sorted(runs.items()):
        middle = Run(*map(median, zip(*some, strict=True)))
        speed = audio / middle.work
        print(f"| {engine} | {count} | {middle.start:.1f} | {speed:.0f} | {middle.end:.1f} | {middle.whole:.1f} |")
    print(f"\nresults of one thread, plain and by actors: {'equal' if same else 'NOT EQUAL'}, byte for byte")
    _extrapolate(runs, audio, options)


def _extrapolate(runs: dict[tuple[str, int], list[Run]], audio: float, options: argparse.Namespace) -> None:
    few, many = min(options.processors), max(options.processors)
    speed = {count: audio / median(run.work for run in runs["ray", count]) for count in (few, many)}
    fixed = median(run.start + run.end for run in runs["ray", many])
    efficiency = speed[many] / many / (speed[few] / few)
    rate = speed[few] / few
    print(f"\nseconds = {fixed:.1f} + audio / (n * {rate:.0f} * {efficiency:.2f})")
    print("which would be, by arithmetic, not measured:")
    for clips, count in BIG:
        seconds = fixed + clips * audio / options.clips / (count * rate * efficiency)
        print(f"  {clips} such clips on {count} processors: {seconds / 3600:.2f} h")


if __name__ == "__main__":
    main()
