"""Train variants of a vocoder for equal processor time on the same speech, and put what they reach side by side.

    python recipes/lab/lab.py CORPUS -o runs/lab --minutes 4

Stopped and started again, it goes on with the first variant that has no result yet. For each one it prints and keeps, in
OUT/results.json: nats per sample and scores on validation clips, of the flow's own sample and after mel matching; weights,
multiplications per second of audio, real-time factor, steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import yaml

from flowavenet import Vocoder, load_audio
from flowavenet.benchmark import benchmark
from flowavenet.data.corpus import read_corpus
from flowavenet.evaluation.metrics import score
from flowavenet.files import write_atomically
from flowavenet.training.fit import fit

HERE = Path(__file__).parent
RECIPE = HERE.parent / "speech_folder" / "lapflow.yaml"
TEMPERATURE, SEED = 0.8, 0


def train(changes: dict[str, Any], corpus: str, run: Path, minutes: float) -> None:
    """Train one variant for so many minutes of processor time; its vocoder is left in ``run/vocoder``."""
    arguments = ["--config", str(RECIPE), "--data.corpus", corpus, "--trainer.default_root_dir", str(run)]
    for name, value in changes.items():
        arguments += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    timer = {"class_path": "flowavenet.training.callbacks.ProcessorTimer", "init_args": {"seconds": 60 * minutes}}
    fit([
        *arguments, "--trainer.max_time", "null", "--trainer.callbacks", json.dumps([timer]),
        *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--showcase.clips", "0"),
        *("--trainer.val_check_interval", "1000000", "--trainer.num_sanity_val_steps", "0"),
    ])


def judge(vocoder: Vocoder, clips: list[Path], seconds: float = 6.0) -> dict[str, Any]:
    """Mean scores of copy synthesis, of the sample itself and after 8 rounds of matching; cost and speed."""
    scores: dict[int, list[dict[str, float]]] = {0: [], 8: []}
    for clip in clips:
        wave = vocoder.spectrogram.normalise(load_audio(clip, vocoder.sample_rate))
        wave = wave[:, : round(seconds * vocoder.sample_rate)]
        mel = vocoder.mel(wave)
        for match in scores:
            scores[match].append(score(wave[0], vocoder(mel, TEMPERATURE, SEED, match)[0], vocoder.sample_rate))
    means = {
        match: {name: statistics.fmean(row[name] for row in rows) for name in rows[0]} for match, rows in scores.items()
    }
    speed = benchmark(vocoder, seconds=5, repeats=5, match=0)
    kept = {name: speed[name] for name in ("rtf", "gmac_per_second", "weights_m", "threads")}
    return kept | {"sample": means[0], "matched": means[8]}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Results as Markdown, best likelihood first."""
    head = ["variant", "nats", "PESQ", "STOI", "log-magnitude", "matched: PESQ", "STOI", "log-magnitude"]
    head += ["M weights", "GMAC/s", "RTF", "steps"]
    names = ("pesq_wb", "stoi", "mr_stft_log_magnitude")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in sorted(results.items(), key=lambda item: -item[1]["nats"]):
        cells = [name, f"{row['nats']:.3f}"] + [f"{row[kind][m]:.3f}" for kind in ("sample", "matched") for m in names]
        cells += [f"{row['weights_m']:.1f}", f"{row['gmac_per_second']:.2f}", f"{row['rtf']:.4f}", f"{row['steps']}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train and judge what has no result yet; print the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", help="what flowavenet fit takes")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/lab"))
    parser.add_argument("--minutes", type=float, default=4.0, help="of processor time to train each")
    parser.add_argument("--clips", type=int, default=6, help="validation clips to synthesise")
    parser.add_argument("--variants", type=Path, default=HERE / "variants.yaml")
    parser.add_argument("--only", nargs="+", help="names of variants")
    options = parser.parse_args()
    variants = yaml.safe_load(options.variants.read_text())
    clips = [clip.path for clip in read_corpus(options.corpus, seed=1111) if clip.split == "valid"]
    clips = clips[:: -(-len(clips) // options.clips)]
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in options.only or variants:
        if name in results:
            continue
        run = options.out / "".join(letter if letter.isalnum() else "-" for letter in name)
        train(variants[name], options.corpus, run, options.minutes)
        vocoder = Vocoder.from_pretrained(run / "vocoder")
        facts = {"nats": vocoder.facts["valid_nats_per_sample"], "steps": vocoder.facts["steps"], "minutes": options.minutes}
        results[name] = facts | judge(vocoder, clips)
        with write_atomically(file) as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n")
        print(table(results), flush=True)


if __name__ == "__main__":
    main()
