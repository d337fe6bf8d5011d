"""What the pages of this package share: a template filled in, with one style and one player, and tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

import torch
from torch import Tensor

FRAMES = 900
"""Columns of a spectrogram, at most."""


def fill(template: str, parts: Mapping[str, str]) -> str:
    """A page: the template of that name with ``<!--NAME-->`` replaced by the part so named; STYLE and SCRIPT are there."""
    folder = files("flowavenet.evaluation")
    texts = {name: folder.joinpath(name).read_text("utf-8") for name in (template, "page.css", "page.js")}
    shared = {"STYLE": f"<style>\n{texts['page.css']}</style>", "SCRIPT": f"<script>\n{texts['page.js']}</script>"}
    return re.sub(r"<!--([A-Z]+)-->", lambda match: (shared | parts)[match[1]], texts[template])


def table(heads: Sequence[str], lines: Sequence[tuple[str, str, list[str]]]) -> str:
    """A table whose lines are a title, a remark, and cells (HTML); no heads: no line for them."""
    rows = [f"<tr><th></th><th></th>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"] if heads else []
    rows += [f"<tr><th>{escape(title)}</th><td>{remark}</td>{''.join(cells)}</tr>" for title, remark, cells in lines]
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def spectrogram_levels(wave: Tensor, length: int = 0) -> Tensor:
    """A spectrogram in dB, (257, columns), of the wave, filled up with silence to a length in samples."""
    wave = torch.nn.functional.pad(wave, (0, max(length - len(wave), 0)))
    hop = max(128, -(-len(wave) // FRAMES))
    magnitude = torch.stft(wave, 512, hop, window=torch.hann_window(512), pad_mode="constant", return_complex=True).abs()
    return 20 * magnitude.clamp(min=1e-7).log10()
