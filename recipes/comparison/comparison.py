"""Train every system of the field small, for equal processor time on the same speech, and put them side by side.

    python recipes/comparison/comparison.py CORPUS -o runs/comparison --minutes 8
    python recipes/comparison/comparison.py CORPUS -o runs/comparison --speed        # when nothing else runs

The first trains and judges, the second measures speed, at these sizes and, with random weights, at the published ones; then
both print all there is. Stopped and started again, each goes on with the first system that has no result yet; OUT keeps a
folder for each. Students come last: the teacher of each is another of the systems.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from flowavenet import Vocoder, load_audio
from flowavenet.audio import MelSettings
from flowavenet.data.corpus import read_corpus
from flowavenet.evaluation.metrics import score
from flowavenet.files import write_atomically
from flowavenet.losses import bits_per_sample, dequantise
from flowavenet.models import WaveNet, build
from flowavenet.models.cost import forward_flops
from flowavenet.nets import load_weights
from flowavenet.training.fit import distil, fit

HERE = Path(__file__).parent
TEMPERATURE, SEED, MATCH = 0.8, 0, 12
LIKELIHOOD_SECONDS, JUDGED_SECONDS = 0.5, 3.0
"""Of each clip: autoregressive models take seconds for every one."""
SPEED_SECONDS = 1.0
"""What a run must take for its speed to be told by it."""


def run_of(out: Path, name: str) -> Path:
    """The folder of a system."""
    return out / name.replace(" ", "-")


def train(system: dict[str, Any], corpus: str, out: Path, run: Path, minutes: float) -> None:
    """Train for so many minutes of processor time; the vocoder is left in ``run/vocoder``."""
    arguments = ["--config", str(HERE / "common.yaml"), "--data.corpus", corpus, "--trainer.default_root_dir", str(run)]
    for name, value in system["small"].items():
        arguments += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    timer = {"class_path": "flowavenet.training.callbacks.ProcessorTimer", "init_args": {"seconds": 60 * minutes}}
    arguments += [
        *("--trainer.max_time", "null", "--trainer.callbacks", json.dumps([timer])),
        *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
        *("--trainer.val_check_interval", "1000000", "--trainer.num_sanity_val_steps", "0"),
    ]
    if "teacher" in system:
        teacher = run_of(out, system["teacher"]) / "vocoder"
        distil([*arguments, "--model.teacher", str(teacher)])
    else:
        fit(arguments)


@torch.no_grad()
def likelihood(vocoder: Vocoder, waves: list[torch.Tensor]) -> float:
    """Nats per sample of the middle of each clip, level as recorded, uniform dequantisation of one 16-bit step."""
    length = round(LIKELIHOOD_SECONDS * vocoder.sample_rate) // 256 * 256
    crops = torch.cat([wave[:, (wave.shape[1] - length) // 2 :][:, :length] for wave in waves])
    mel = vocoder.mel(crops)
    crops = dequantise(crops, generator=torch.Generator().manual_seed(SEED))
    return vocoder.log_prob(crops, mel).mean().item() / length


def copies(vocoder: Vocoder, waves: list[torch.Tensor]) -> dict[str, dict[str, float]]:
    """Mean scores of copy synthesis: of the sample itself, and after mel matching."""
    length = min(round(JUDGED_SECONDS * vocoder.sample_rate), *(wave.shape[1] for wave in waves))
    recorded = torch.cat([wave[:, :length] for wave in waves])         # one batch: a WaveNet takes as long for one
    mel = vocoder.mel(recorded)
    sample = vocoder(mel, TEMPERATURE, SEED, match=0)
    made = {"sample": sample, "matched": vocoder.synthesiser.matching(sample, mel, MATCH)}
    scores = {
        kind: [score(*pair, vocoder.sample_rate) for pair in zip(recorded, waves_made, strict=True)]
        for kind, waves_made in made.items()
    }
    return {kind: {key: statistics.fmean(row[key] for row in rows) for key in rows[0]} for kind, rows in scores.items()}


def judge(system: dict[str, Any], run: Path, clips: list[Path]) -> dict[str, Any]:
    """Likelihood, scores and sizes of a trained system; of a student also the scores it had before it learned."""
    vocoder = Vocoder.from_pretrained(run / "vocoder")
    waves = [load_audio(clip, vocoder.sample_rate) for clip in clips]
    start = {}
    if "teacher" in system:
        model = build(system["small"]["model.name"], system["small"]["model.config"], 80, 256)
        load_weights(model.upsampler, vocoder.model.upsampler.state_dict())
        start = {"start": copies(Vocoder(model, vocoder.settings), waves)["sample"]}
    return {"nats": likelihood(vocoder, waves), "steps": vocoder.facts["steps"], **copies(vocoder, waves), **start}


def samples_per_second(vocoder: Vocoder) -> float:
    """Of one utterance at a time; the median of three runs, of as much audio as takes a few seconds at most."""
    hop, frames = vocoder.settings.hop_length, 1
    while True:
        mel = torch.randn(1, vocoder.settings.n_mels, frames) - 5
        taken = []
        for _ in range(4):
            start = time.perf_counter()
            vocoder(mel, seed=0, match=0)
            taken.append(time.perf_counter() - start)
        if statistics.median(taken[1:]) > SPEED_SECONDS or frames >= 430:
            return frames * hop / statistics.median(taken[1:])
        frames = min(430, 4 * frames)                                  # 430: 5 s


@torch.no_grad()
def naive_samples_per_second(model: WaveNet, steps: int = 10) -> float:
    """Of autoregressive sampling that computes the whole receptive field again for every sample."""
    net = model.flow.inner.net
    field = net.receptive_field[0] + 1
    x = torch.randn(1, field, net.front.conv.in_channels)
    cond = torch.randn(1, field, net.conditioning[0].in_channels)
    taken = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        net(x, cond)
        taken.append(time.perf_counter() - start)
    return 1 / statistics.median(taken[1:])


def speed(system: dict[str, Any], run: Path, name: str) -> dict[str, dict[str, float]]:
    """Samples per second, work and weights, of the small system and at the published size."""
    published, found = system["published"], {}
    model = build(published.get("name", name), published.get("config", {}), 80, 256)
    for kind, vocoder in (("small", Vocoder.from_pretrained(run / "vocoder")), ("published", Vocoder(model, MelSettings()))):
        found[kind] = {
            "samples_per_second": samples_per_second(vocoder),
            "gmac_per_second": forward_flops(vocoder.model) * vocoder.sample_rate / 2e9,
            "weights_m": sum(weight.numel() for weight in vocoder.model.parameters()) / 1e6,
        }
        if isinstance(vocoder.model, WaveNet):
            found[kind]["naive_samples_per_second"] = naive_samples_per_second(vocoder.model)
    return found


def once(file: Path, make: Callable[[], dict[str, Any]]) -> None:
    """Write what ``make`` returns, unless the file is there already."""
    if not file.exists():
        result = make()
        with write_atomically(file) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")


def quality_table(results: dict[str, dict[str, Any]], minutes: float) -> str:
    """What equal compute gives, best likelihood first."""
    names = ("pesq_wb", "stoi", "mr_stft_log_magnitude")
    head = ["system", "nats", "bits", "PESQ", "STOI", "log-magnitude", "matched: PESQ", "STOI", "log-magnitude"]
    lines = ["| " + " | ".join([*head, "steps per s"]) + " |", "|" + "---|" * (len(head) + 1)]
    for name, row in sorted(results.items(), key=lambda item: -item[1]["nats"]):
        cells = [name, f"{row['nats']:.3f}", f"{bits_per_sample(row['nats']):.2f}"]
        cells += [f"{row[kind][key]:.3f}" for kind in ("sample", "matched") for key in names]
        lines.append("| " + " | ".join([*cells, f"{row['steps'] / 60 / minutes:.2f}"]) + " |")
    return "\n".join(lines)


def speed_table(results: dict[str, dict[str, Any]]) -> str:
    """Samples per second of each system, and how many times those of naive sampling from the Gaussian WaveNet."""
    columns = "M weights | GMAC/s | samples/s | times naive |"
    lines = [f"| system | {columns} published: {columns}", "|" + "---|" * 9]
    first = results.get("wavenet gaussian", {})
    for name, row in results.items():
        cells = [name]
        for kind in ("small", "published"):
            fast, naive = row[kind]["samples_per_second"], first.get(kind, {}).get("naive_samples_per_second", float("nan"))
            cells += [f"{row[kind]['weights_m']:.2f}", f"{row[kind]['gmac_per_second']:.2f}", f"{fast:,.0f}"]
            cells.append(f"{fast / naive:,.0f}")
        lines.append("| " + " | ".join(cells) + " |")
        if "naive_samples_per_second" in row["small"]:
            slow = [row[kind]["naive_samples_per_second"] for kind in ("small", "published")]
            lines.append(f"| {name}, naive | | | {slow[0]:,.0f} | | | | {slow[1]:,.0f} | |")
    return "\n".join(lines)


def main() -> None:
    """Do what has no result yet; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", help="what flowavenet fit takes")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--minutes", type=float, default=8.0, help="of processor time to train each")
    parser.add_argument("--clips", type=int, default=6, help="validation clips to judge by")
    parser.add_argument("--systems", type=Path, default=HERE / "models.yaml")
    parser.add_argument("--only", nargs="+", help="names of systems")
    parser.add_argument("--speed", action="store_true", help="measure speed instead of training")
    options = parser.parse_args()
    systems = yaml.safe_load(options.systems.read_text())
    clips = [clip.path for clip in read_corpus(options.corpus, seed=1111) if clip.split == "valid"]
    clips = clips[:: -(-len(clips) // options.clips)]
    for name in sorted(options.only or systems, key=lambda name: "teacher" in systems[name]):
        system, run = systems[name], run_of(options.out, name)
        trained = (run / "result.json").exists()
        if options.speed and trained:
            once(run / "speed.json", lambda system=system, run=run, name=name: speed(system, run, name))
        elif not options.speed and not trained:
            if not (run / "trained").exists():
                train(system, options.corpus, options.out, run, options.minutes)
                (run / "trained").touch()
            once(run / "result.json", lambda system=system, run=run: judge(system, run, clips))
    for file, table in (("result.json", lambda rows: quality_table(rows, options.minutes)), ("speed.json", speed_table)):
        found = {name: run_of(options.out, name) / file for name in systems}
        rows = {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}
        if rows:
            print(table(rows) + "\n", flush=True)


if __name__ == "__main__":
    main()
