"""What a survey found, as lines on the way, and as a page with a picture and all figures beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flowavenet.files import write_atomically
from flowavenet.plots import figure_class, save_curves

Record = dict[str, Any]
Column = tuple[str, str]

WHERE: list[Column] = [("device", "{device}"), ("precision", "{precision}")]
MEMORY: list[Column] = [("peak MB", "{peak_mb:.0f}"), ("work MB", "{work_mb:.0f}")]
SPEED: list[Column] = [("GFLOP/s", "{gflops:.0f}"), ("share", "{share:.0%}")]
TABLES: dict[str, list[Column]] = {
    "ceiling": [
        *WHERE, ("matrix product, GFLOP/s", "{matrix_gflops:.0f}"),
        ("convolution, GFLOP/s", "{convolution_gflops:.0f}"),
    ],
    "synthesis": [
        *WHERE, ("batch", "{batch}"), ("seconds", "{seconds:.1f}"), ("match", "{match}"), ("RTF", "{rtf:.3g}"),
        ("min-max", "{rtf_min:.3g}-{rtf_max:.3g}"), ("kHz", "{khz:.0f}"), ("flow RTF", "{flow_rtf:.3g}"),
        ("GMAC/s", "{gmac_per_second:.2f}"), *SPEED, *MEMORY,
    ],
    "stream": [
        *WHERE, ("match", "{match}"), ("frames", "{chunk_frames}"), ("chunk ms", "{chunk_ms:.0f}"),
        ("look-ahead ms", "{look_ahead_ms:.0f}"), ("first audio ms", "{first_ms:.1f}"),
        ("live delay ms", "{delay_ms:.0f}"), ("RTF", "{rtf:.3g}"), ("overhead", "{overhead:.2f}"), *MEMORY,
    ],
    "training": [
        *WHERE, ("batch", "{batch}"), ("seconds", "{seconds:.2f}"), ("constant memory", "{constant_memory}"),
        ("s per step", "{step_seconds:.3g}"), ("kHz", "{khz:.0f}"), *SPEED, ("kept MB", "{kept_mb:.0f}"), *MEMORY,
    ],
}
SWEEPS = [("seconds", "batch"), ("batch", "seconds")]
WORDS = {
    "ceiling": """## What the machine can do

The best of many runs, in the same survey: a matrix product, and a convolution of 256 to 512 channels with three taps
over 4,000 columns (64 times as many on a GPU) in the better of two layouts. Shares below are of the convolution.""",
    "synthesis": """## Synthesis

`vocoder(mel)`, with the rounds of mel matching that a checkpoint is used with. RTF: seconds of work per second of audio,
lower is better, the median; min-max: the fastest and the slowest run; kHz: thousand samples made per second. Flow RTF,
GMAC/s, GFLOP/s and share are of the flow alone, without matching: its RTF (plain: by the readable nets, in float32, that
it must equal); the thousand million multiplications that it needs per second of audio, on any machine; the operations per
second that it reaches, two per multiplication; and how much that is of what the machine can do. Peak: memory of a process
that does this and nothing else; work: how much of it came on top of the loaded model. Lengths are measured with the first
batch size, batch sizes with the first length.""",
    "stream": """## Streams

`vocoder.stream(mel, chunk_frames)`: the same samples, chunk by chunk. First audio: the work from the call to the first
chunk. Look-ahead: mel that a chunk needs beyond its own. Live delay: chunk, look-ahead and first audio together, which is
when sound comes if the mel itself comes in real time. RTF: of a chunk in the midst of a stream, which computes all its
context again; overhead: that over the RTF of a mel done as a whole. A stream keeps up where its RTF is below 1.""",
    "training": """## Training

One step by likelihood on crops of the length given: forward, backward, clipping, AdamW. GFLOP/s and share count three
forward passes per step, with constant memory as well, although that computes activations again. Kept: weights, gradients
and the averages of the optimizer; work: the peak on top of the process and of what is kept.""",
}


class Report:
    """Collects records as they come, and says them.

    Args:
        machine: what was measured on, see :func:`~flowavenet.benchmark.machine`.
        command: what was asked for.
        page: a Markdown file to write at the end; beside it, with the same name, all figures (.json) and a picture (.png).
        figures: a JSON file to write at the end.
    """

    def __init__(
        self, machine: Record, command: str = "", page: str | Path | None = None, figures: str | Path | None = None
    ):
        self.machine = machine
        self.command = command
        self.page, self.figures = page and Path(page), figures and Path(figures)
        self.records: list[Record] = []
        if self.page and self.page.suffix != ".md":
            raise ValueError(f"{page}: a report is a Markdown file; call it {self.page.with_suffix('.md')}")
        for file in (self.page, self.figures):                         # now, not after minutes of work
            if file and not file.parent.is_dir():
                raise FileNotFoundError(f"{file.parent}: no such folder; create it first")
        if self.page:
            figure_class()

    def head(self) -> str:
        """What was measured on, in a line."""
        m = self.machine
        cores = f"{m['threads']} threads of {m['cores']} cores, load {m['load']} before"
        places = [f"{m['cpu']} ({m['instructions']})", cores, m["gpu"]]
        rest = [f"torch {m['torch']}", f"Python {m['python']}", m["system"], f"malloc {m['malloc']}", m["date"]]
        return ", ".join(part for part in [*places, *rest] if part)

    def add(self, record: Record) -> list[str]:
        """Take a record; the lines to print: its row, after a head if it begins a table."""
        kind, columns = record["kind"], TABLES[record["kind"]]
        widths = [15 if title == "min-max" else max(6, len(title)) for title, _ in columns]
        lines = []
        if all(kind != other["kind"] for other in self.records):
            heads = [f"{title:>{width}}" for width, (title, _) in zip(widths, columns, strict=True)]
            lines += [f"# {kind}", "  ".join([*heads, "model"] if "model" in record else heads)]
        self.records.append(record)
        if "left_out" in record:
            return [*lines, f"left out: {_left_out(record)}"]
        cells = [f"{template.format(**record):>{width}}" for width, (_, template) in zip(widths, columns, strict=True)]
        return [*lines, "  ".join([*cells, record["model"]] if "model" in record else cells)]

    def of(self, kind: str) -> list[Record]:
        """The records of a kind that were measured, not left out."""
        return [record for record in self.records if record["kind"] == kind and "left_out" not in record]

    def curves(self, over: str, fixed: str) -> dict[str, list[tuple[float, float]]]:
        """RTF against ``seconds`` or ``batch``, the other one ``fixed``, for each model: points with rising x."""
        groups: dict[str, dict[float, list[tuple[float, float]]]] = {}
        for record in self.of("synthesis"):
            lines = groups.setdefault(f"{record['model']}, {record['device']}, {record['precision']}", {})
            lines.setdefault(round(record[fixed], 6), []).append((record[over], record["rtf"]))
        longest = {name: sorted(max(lines.values(), key=len)) for name, lines in groups.items()}
        return {name: points for name, points in longest.items() if len(points) > 1}

    def growth(self) -> list[str]:
        """How the work per second of audio depends on the length, and on the batch; 1 is a cost in proportion."""
        lines = []
        for over, fixed in SWEEPS:
            for name, points in self.curves(over, fixed).items():
                (x, first), (more, last) = points[0], points[-1]
                ratio = f"{last / first:.2f} times the work per second of audio"
                lines.append(f"- {name}: {over} {x:.2g} to {more:.2g}: {ratio}")
        return lines

    def markdown(self, figures: str = "", picture: str = "") -> str:
        """The page, which refers to a file of figures and one with a picture beside it."""
        parts = [f"# Benchmark\n\n{self.head()}.", f"```sh\n{self.command}\n```"]
        if figures:
            parts.append(f"All figures: [{figures}]({figures}).")
        for kind, columns in TABLES.items():
            rows, same = self.of(kind), [record for record in self.records if record["kind"] == kind]
            left_out = [f"- {_left_out(record)}" for record in same if "left_out" in record]
            if not rows and not left_out:
                continue
            named = columns if kind == "ceiling" else [("model", "{model}"), *columns]
            table = [[title for title, _ in named], ["---"] + ["---:"] * (len(named) - 1)]
            table += [[template.format(**row) for _, template in named] for row in rows]
            parts += [WORDS[kind], "\n".join(f"| {' | '.join(row)} |" for row in table)]
            if left_out:
                parts.append("\n".join(["Left out:\n", *left_out]))
            if kind == "synthesis" and (growth := self.growth()):
                parts.append("\n".join(["In proportion to the length, or to the batch, would be 1:\n", *growth]))
            if kind == "synthesis" and picture:
                parts.append(f"![RTF against length, and against batch]({picture})")
        return "\n\n".join(parts) + "\n"

    def write(self) -> None:
        """Write what was asked for, each file whole or not at all."""
        if self.page:
            figures, picture = self.page.with_suffix(".json"), self.page.with_suffix(".png")
            panels = [(over, curves) for over, fixed in SWEEPS if (curves := self.curves(over, fixed))]
            if panels:
                save_curves(picture, panels, "RTF: seconds of work per second of audio")
            self._write_figures(figures)
            with write_atomically(self.page) as temporary:
                temporary.write_text(self.markdown(figures.name, picture.name if panels else ""))
        if self.figures:
            self._write_figures(self.figures)

    def _write_figures(self, path: Path) -> None:
        content = {"machine": self.machine, "command": self.command, "records": self.records}
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")


def _left_out(record: Record) -> str:
    what = {key: value for key, value in record.items() if key not in ("kind", "left_out", "match", "repeats")}
    return ", ".join(f"{key} {value}" for key, value in what.items()) + f": {record['left_out']}"
