"""Many cases, one after the other, each in a process of its own, so that its memory is that of nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from flowavenet.audio import mel_settings
from flowavenet.benchmark.measures import benchmark, ceiling, stream, train
from flowavenet.files import end_with_parent, read_yaml
from flowavenet.models import MODELS, build
from flowavenet.streaming import PRECISIONS
from flowavenet.vocoder import Vocoder

Record = dict[str, Any]
RTFS = ("rtf", "flow_rtf")
KINDS: dict[str, Callable[..., Record]] = {"synthesis": benchmark, "stream": stream, "training": train}


def load(name: str, precision: str = "float32") -> Vocoder:
    """What a name stands for: a checkpoint, or a model with random weights, which is just as fast.

    Args:
        name: of a model in ``MODELS``, with its published sizes; or a recipe (YAML), with the sizes it says; or a shipped
            checkpoint, or a checkpoint folder.
        precision: of the nets.
    """
    if name not in MODELS and not name.endswith((".yaml", ".yml")):
        return Vocoder.from_pretrained(name, precision=precision)
    try:
        section = {"name": name} if name in MODELS else read_yaml(Path(name))["model"]
        mel = mel_settings(section.get("mel", "hifigan"))
        model = build(section["name"], section.get("config") or {}, mel.n_mels, mel.hop_length)
    except KeyError as error:
        raise ValueError(f"{name}: no {error.args[0]} in it; give a recipe, such as those in recipes/") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: not a recipe for a model ({_line(error)})") from None
    return Vocoder(model, mel, precision=precision)


def measure(kind: str, device: str, precision: str, model: str = "", **options: Any) -> Record:
    """One case, in this process: a record of what it was and what came out."""
    case = {"kind": kind, "device": device, "precision": precision}
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:                    # torch's ways to say that it is not there
        have = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise ValueError(f"device {device!r} cannot be used here ({_line(error)}); choose one of: {have}") from None
    if kind == "ceiling":
        return case | ceiling(device, precision)
    return case | {"model": model} | KINDS[kind](load(model, precision).to(device), **options)


def apart(**case: Any) -> Record:
    """:func:`measure` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        return pool.submit(measure, **case).result()


def survey(
    names: Sequence[str], devices: Sequence[str] = ("cpu",), precisions: Sequence[str] = ("float32",),
    seconds: Sequence[float] = (5.0,), batches: Sequence[int] = (1,), chunks: Sequence[int] = (),
    training: Sequence[int] = (), match: int | None = None, repeats: int = 5, limit: float = 60.0,
    run: Callable[..., Record] = apart,
) -> Iterator[Record]:
    """Measure everything asked for; a record for each case, as soon as it is there.

    Args:
        names: see :func:`load`.
        devices, precisions: each name is measured on each of them in each.
        seconds, batches: lengths, with the first batch size, and batch sizes, with the first length.
        chunks: frames per chunk, of streams.
        training: batch sizes of training steps, each with and without constant memory.
        match, repeats: as for :func:`benchmark`.
        limit: seconds of work per case; one that would take longer, to judge by a smaller one, is left out.
        run: what does the work, of one case.

    Yields:
        Records of ``kind`` ``ceiling``, ``synthesis``, ``stream``, ``training``, in this order; a case that is left out has
        only ``left_out``, why.
    """
    for name in names:                                                 # to fail now, not after minutes of work
        load(name)
    if unknown := [precision for precision in precisions if precision not in PRECISIONS]:
        raise ValueError(f"precision {unknown[0]!r} is not known; choose one of: {', '.join(PRECISIONS)}")
    peak: dict[tuple[str, str], float] = {}

    def attempt(expected: float, **case: Any) -> Record:
        if expected > limit:
            return case | {"left_out": f"would take about {expected:.0f} s, the limit is {limit:g} s"}
        try:
            record = run(**case)
        except BrokenProcessPool:                                      # killed, which is how Linux says it
            return case | {"left_out": "its process was killed, most likely for want of memory"}
        except RuntimeError as error:                                  # how torch says it
            return case | {"left_out": _line(error)}
        if "gflops" in record:
            record["share"] = record["gflops"] / peak[case["device"], case["precision"]]
        return record

    for device, precision in product(devices, precisions):
        record = run(kind="ceiling", device=device, precision=precision)
        peak[device, precision] = record["convolution_gflops"]
        yield record
    subjects = [{"model": name, "device": device, "precision": p} for name, device, p in product(names, devices, precisions)]
    known: list[Record] = [{} for _ in subjects]                       # of each, its largest synthesis so far
    sizes = {(length, batches[0]) for length in seconds} | {(seconds[0], batch) for batch in batches}
    for i, subject in enumerate(subjects):
        for length, batch in sorted(sizes, key=lambda size: (size[0] * size[1], size)):
            # two runs to warm up, and two of each thing to measure
            rtf = 2 * known[i].get("rtf_min", 0.0) + 2 * sum(known[i].get(key, 0.0) for key in RTFS)
            expected = rtf * length * batch
            options = {"seconds": length, "batch": batch, "match": match, "repeats": repeats}
            record = attempt(expected, kind="synthesis", **subject, **options)
            known[i] = record if "rtf" in record else known[i]
            yield record
    for subject, whole in zip(subjects, known, strict=True):
        # without matching as well: its rounds want frames far ahead
        for chunk_frames, rounds in product(chunks, dict.fromkeys((whole.get("match", match), 0))):
            options = {"chunk_frames": chunk_frames, "seconds": seconds[0], "match": rounds, "repeats": repeats}
            yield attempt(_stream_work(whole, rounds, chunk_frames, seconds[0]), kind="stream", **subject, **options)
    for subject in subjects:
        per_item = 0.0
        for batch, constant_memory in product(sorted(training), (False, True)):
            options = {"batch": batch, "constant_memory": constant_memory, "repeats": repeats}
            record = attempt(3 * per_item * batch, kind="training", **subject, **options)
            per_item = record.get("step_seconds", per_item * batch) / batch
            yield record


def _stream_work(whole: Record, match: int | None, chunk_frames: int, seconds: float) -> float:
    """Seconds that :func:`stream` will take, at least, from what a synthesis took."""
    if not whole:
        return 0.0
    before, after = whole["context_frames" if match else "flow_context_frames"]
    steady = (before // chunk_frames + 4) * (before + chunk_frames + after)
    frames = steady + 3 * (chunk_frames + after)
    return whole["rtf_min"] * (frames * whole["hop_length"] / whole["sample_rate"] + 3 * seconds)


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
