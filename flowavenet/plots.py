"""Pictures of mel spectrograms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from flowavenet.audio import MelSettings, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def spectrogram_figure(panels: Sequence[tuple[str, Tensor]], settings: MelSettings) -> Figure:
    """Mel spectrograms one above the other, on one colour scale: a matplotlib Figure.

    Args:
        panels: (title, mel of shape (n_mels, frames)).
        settings: give the time axis in seconds.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError("pictures need matplotlib: pip install 'flowavenet[plot]'") from None
    figure = Figure(figsize=(10, 1 + 2.4 * len(panels)), layout="constrained")
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
    unit = {"ln": "natural log", "log10": "log10", "db": "dB"}[settings.log]
    figure.colorbar(picture, ax=list(axes), label=f"magnitude ({unit})" if settings.scale == 1 else "normalised level")
    return figure


def save_spectrograms(
    path: str | os.PathLike, panels: Sequence[tuple[str, Tensor]], settings: MelSettings
) -> None:
    """Write :func:`spectrogram_figure` to a picture file, whole or not at all."""
    figure = spectrogram_figure(panels, settings)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=100)
