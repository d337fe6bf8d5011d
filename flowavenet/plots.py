"""Draw pictures: mel spectrograms, curves of cost and of training."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowavenet.audio import MelSettings
from flowavenet.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = dict[str, list[tuple[float, float]]]


def spectrogram_figure(panels: Sequence[tuple[str, Tensor]], settings: MelSettings) -> Figure:
    """Mel spectrograms one above the other, on one colour scale: a matplotlib Figure.

    Args:
        panels: (title, mel of shape (n_mels, frames)).
        settings: give the time axis in seconds.
    """
    figure = figure_class()(figsize=(10, 1 + 2.4 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    low = min(float(mel.min()) for _, mel in panels)
    high = max(float(mel.max()) for _, mel in panels)
    for axis, (title, mel) in zip(axes, panels, strict=True):
        seconds = mel.shape[-1] * settings.hop_length / settings.sample_rate
        picture = axis.imshow(
            mel.detach().float().cpu(), origin="lower", aspect="auto", vmin=low, vmax=high, cmap="magma",
            extent=(0, seconds, 0, settings.n_mels), interpolation="nearest",
        )
        axis.set(title=title, ylabel="mel band")
    axes[-1].set_xlabel("seconds")
    unit = {"ln": "natural log", "log10": "log10", "db": "dB", "linear": "energy"}[settings.log]
    figure.colorbar(picture, ax=list(axes), label=f"magnitude ({unit})" if settings.scale == 1 else "normalised level")
    return figure


def save_spectrograms(
    path: str | os.PathLike, panels: Sequence[tuple[str, Tensor]], settings: MelSettings
) -> None:
    """Write :func:`spectrogram_figure` to a picture file, whole or not at all."""
    figure = spectrogram_figure(panels, settings)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=100)


def save_curve_over(
    path: str | os.PathLike, title: str, mel: Tensor, settings: MelSettings, curve: tuple[str, Tensor, Tensor]
) -> None:
    """Write a mel spectrogram with a curve over it to a picture file, whole or not at all.

    Args:
        mel: (n_mels, frames).
        curve: the label of its axis, on the right; seconds (values + 1,) at which each value begins and the last ends;
            values.
    """
    figure = spectrogram_figure([(title, mel)], settings)
    label, seconds, values = curve
    beside = figure.axes[0].twinx()
    beside.stairs(values.cpu(), seconds.cpu(), baseline=None, color="#5ef2e0", linewidth=1.2)
    beside.set_ylabel(label)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=100)


def save_curves(path: str | os.PathLike, panels: Sequence[tuple[str, Curves]], what: str) -> None:
    """Write curves to a picture file, whole or not at all: panels side by side, both axes logarithmic, one legend.

    Args:
        panels: (label of the horizontal axis, curves by name, each some points (x, y)).
        what: label of the vertical axis, which the panels share.
    """
    figure = figure_class()(figsize=(5 * len(panels), 4.8), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(name for _, curves in panels for name in curves))
    for axis, (label, curves) in zip(axes, panels, strict=True):
        for name, points in curves.items():
            axis.plot(*zip(*points, strict=True), marker="o", label=name, color=f"C{names.index(name) % 10}")
        xs = sorted({x for points in curves.values() for x, _ in points})
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.set_xticks(xs, [f"{x:.2g}" for x in xs], minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(what)
    shown = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=2, frameon=False)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=100)


def save_image(path: str | os.PathLike, levels: Tensor, low: float, high: float) -> None:
    """Write a table of levels (rows from the bottom, columns) as a picture without axes, a pixel each, from low to high."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(image_png(levels, low, high))


def image_png(levels: Tensor, low: float, high: float) -> bytes:
    """Return such a picture as the bytes of a PNG file."""
    figure_class()                                                     # is there a matplotlib?
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, levels.detach().float().cpu().numpy(), vmin=low, vmax=high, cmap="magma", origin="lower", format="png")
    return file.getvalue()


def figure_class() -> type[Figure]:
    """Matplotlib's Figure; where there is none, an error that says what to install."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError("pictures need matplotlib: pip install 'flowavenet[plot]'") from None
    return Figure


def panel_svg(title: str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """Draw curves (x, y) over steps as SVG to stand in a page, whose ``--soft`` gives the colour of text and axes.

    The vertical axis leaves out values far from the middle half of all, which would flatten the rest.
    """
    soft = "#010203"                                                   # which matplotlib cannot take from the page itself
    figure = figure_class()(figsize=(5.4, 3.1), layout="constrained")
    import matplotlib

    axis = figure.subplots()
    colours = matplotlib.colormaps["viridis"]([0.2 + 0.7 * i / len(curves) for i in range(len(curves))])
    for (label, (x, y)), colour in zip(curves.items(), colours, strict=True):
        axis.plot(x, y, linewidth=1.6, marker="." if len(x) < 60 else None, color=colour, label=label)
    axis.set_title(title, loc="left", fontsize=11, color=soft)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(soft)
    axis.tick_params(which="both", colors=soft, labelsize=9)
    axis.grid(alpha=0.2, color=soft)
    axis.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:g}k" if step >= 1000 else f"{step:g}")
    values = torch.as_tensor([value for _, y in curves.values() for value in y], dtype=torch.float64)
    low, high = values.nanquantile(0.25).item(), values.nanquantile(0.75).item()
    bottom, top = axis.get_ylim()
    axis.set_ylim(max(bottom, low - 10 * (high - low) - 1e-9), min(top, high + 10 * (high - low) + 1e-9))
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) > 1:
        few = slice(None, None, len(labels) - 1 if len(labels) > 8 else 1)  # of many, the first and the last
        axis.legend(handles[few], labels[few], fontsize=8, frameon=False, labelcolor=soft)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": title}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub("<!--.*?-->", "", text.getvalue())
    return svg[svg.index("<svg") :].replace(soft, "var(--soft)")
