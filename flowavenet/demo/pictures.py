"""Pictures for the page: spectrograms on one time axis, with curves over them, drawn in a tenth of a second each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flowavenet.files import write_atomically
from flowavenet.plots import figure_class

RANGE_DB = 80.0
"""From the loudest that is shown to the softest."""
FLOOR = 1e-9


@dataclass(frozen=True)
class Curve:
    """A line over a panel, with an axis of its own on the right."""

    label: str
    times: Tensor
    """Seconds at which each value begins, and the end of the last: (values + 1,)."""
    values: Tensor


@dataclass(frozen=True)
class Panel:
    """A spectrogram: title, levels (bands, frames), what the bands are, and the height of the picture in that unit."""

    title: str
    levels: Tensor
    unit: str
    top: float
    loudest: float
    range: float = RANGE_DB
    curve: Curve | None = None


def spectrogram(title: str, wave: Tensor, sample_rate: int, curve: Curve | None = None, loudest: float = 0.0) -> Panel:
    """The spectrogram of a wave (1, samples), in dB below its loudest, or below ``loudest`` if that is more.

    >>> spectrogram("hum", torch.sin(torch.arange(8192) / 3)[None], 22050).levels.shape
    torch.Size([513, 33])
    """
    spectrum = torch.stft(wave[0].cpu(), 1024, 256, window=torch.hann_window(1024), pad_mode="constant", return_complex=True)
    levels = 20 * torch.log10(spectrum.abs().clamp(min=FLOOR))
    return Panel(title, levels, "kHz", sample_rate / 2000, max(levels.max().item(), loudest), curve=curve)


def mel_panel(title: str, mel: Tensor, curve: Curve | None = None) -> Panel:
    """A mel (1, n_mels, frames) as it is."""
    mel = mel[0].cpu()
    return Panel(title, mel, "mel band", len(mel), mel.max().item(), (mel.max() - mel.min()).item() or 1.0, curve)


def draw(path: Path, panels: Sequence[Panel], seconds: float, span: tuple[float, float] | None = None) -> Path:
    """Write panels, one above the other, to a picture file; a span of time, if given, is marked in all of them."""
    height = 2.1 * len(panels) + 0.45
    figure = figure_class()(figsize=(9.6, height))
    # by hand, as matplotlib's own layouts take longer than all the rest
    right = 0.93 if any(panel.curve for panel in panels) else 0.985
    figure.subplots_adjust(left=0.06, right=right, top=1 - 0.3 / height, bottom=0.45 / height, hspace=0.28)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        axis.imshow(
            panel.levels, origin="lower", aspect="auto", cmap="magma", vmin=panel.loudest - panel.range, vmax=panel.loudest,
            extent=(0, seconds, 0, panel.top), interpolation="nearest",
        )
        axis.set_title(panel.title, loc="left", fontsize=10)
        axis.set_ylabel(panel.unit)
        if panel.curve is not None:
            beside = axis.twinx()
            beside.stairs(panel.curve.values.cpu(), panel.curve.times, baseline=None, color="#5ef2e0", linewidth=1.4)
            beside.set_ylabel(panel.curve.label)
        for time in span or ():
            axis.axvline(time, color="#5ef2e0", linewidth=1.2, linestyle="--")
    axes[-1].set(xlabel="seconds", xlim=(0, seconds))
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=100, pil_kwargs={"compress_level": 1})
    return path
