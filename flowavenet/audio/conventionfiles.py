"""Mel conventions from files: a vocoder or a front-end that nobody here knows is described in a few lines of YAML.

    like: parallel_wavegan        # where to start from: a convention's name, or another file; hifigan's if left out
    sample_rate: 16000            # then the fields of MelSettings that differ
    f_max: 8000
    statistics: stats.npy         # optional: the means and standard deviations of the bands

A file of one convention is named by its path, `mel: mine.yaml`. Several, each under its name, live in `conventions.yaml` in
the user's configuration folder, and are then known by these names.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flowavenet.audio.settings import MelSettings
from flowavenet.files import parse_npy, read_yaml, short

FIELDS = tuple(field.name for field in dataclasses.fields(MelSettings))
SUFFIXES = (".yaml", ".yml")
MOST = 2**16
"""Bands that statistics are read of."""


def user_file() -> Path:
    """The user's own conventions: $XDG_CONFIG_HOME/flowavenet/conventions.yaml, or under ~/.config where that is not set."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "flowavenet" / "conventions.yaml"


def user_conventions() -> dict[str, Any]:
    """What the user's file says, by name; nothing if there is no such file."""
    return read_mapping(user_file()) if user_file().is_file() else {}


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises FileNotFoundError or ValueError, in one line that names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds {short(content)}, not a mapping; write one line 'field: value' for each field")
    return content


def settings_from(fields: Any, where: str, folder: Path, look_up: Callable[[str], MelSettings]) -> MelSettings:
    """Mel settings from the fields that differ from those of another convention.

    Args:
        fields: of MelSettings; and `like`, `statistics`.
        where: what errors begin with.
        folder: that files are named relative to.
        look_up: finds the convention that `like` names.

    Raises ValueError or FileNotFoundError, in one line that says where.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: is {short(fields)}, not a mapping of mel settings; write 'field: value' for each")
    fields = dict(fields)
    like, statistics = fields.pop("like", None), fields.pop("statistics", None)
    for name, value in (("like", like), ("statistics", statistics)):
        if not isinstance(value, str | None):
            raise ValueError(f"{where}: {name} is {short(value)}, must be a name")
    for name in fields:
        if name not in FIELDS:
            raise ValueError(f"{where}: no field is called {short(name)}; there are like, statistics, {', '.join(FIELDS)}")
    try:
        if like is None:
            base = MelSettings()
        else:
            base = look_up(os.path.normpath(folder / like) if str(like).endswith(SUFFIXES) else str(like))
        settings = dataclasses.replace(base, **fields)
        return settings if statistics is None else standardised(settings, *read_statistics(folder / statistics))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def standardised(settings: MelSettings, mean: np.ndarray, deviation: np.ndarray) -> MelSettings:
    """The same convention, and then (value - mean) / deviation for each band.

    (log + offset) * scale, shifted and scaled so, is (log + offset - mean / scale) * (scale / deviation).

    Raises ValueError for other numbers than one per band, and where values are clipped first.
    """
    if settings.clip is not None:
        raise ValueError(f"values are clipped to {settings.clip} and have statistics; set clip to null, or leave one out")
    for name, values in (("means", mean), ("deviations", deviation)):
        if values.shape != (settings.n_mels,):
            raise ValueError(f"statistics have {name} of shape {values.shape}, not one for each of n_mels {settings.n_mels}")
    if not (deviation > 0).all():
        raise ValueError(f"statistics have a standard deviation of {deviation.min()}, must be above 0")
    scale = np.broadcast_to(settings.scale, mean.shape)
    offset = np.broadcast_to(settings.offset, mean.shape) - mean / scale
    return dataclasses.replace(settings, offset=tuple(offset.tolist()), scale=tuple((scale / deviation).tolist()))


def read_statistics(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of the bands, (n_mels,) each, as ParallelWaveGAN writes them.

    Args:
        path: .npy, with two rows, means and deviations; or .h5 (needs h5py), with data sets `mean` and `scale`.

    Raises ValueError or FileNotFoundError, in one line that names the file. Nothing in a file is executed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".h5":
        return _read_h5(path)
    if path.suffix != ".npy":
        raise ValueError(f"{path}: statistics are .npy or .h5; write np.stack([means, deviations]) with np.save")
    try:
        rows = parse_npy(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}; write np.stack([means, deviations]) with np.save") from error
    if rows.ndim != 2 or len(rows) != 2:
        raise ValueError(f"{path}: has shape {rows.shape}, must be (2, n_mels): means and standard deviations")
    return rows[0].astype(float), rows[1].astype(float)


def _read_h5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError(f"{path}: reading .h5 needs h5py: pip install h5py; or write the statistics as .npy") from None
    try:
        with h5py.File(path, "r") as file:
            sets = file["mean"], file["scale"]
            if any(one.size > MOST for one in sets):                   # a few bytes can stand for any number of values
                raise ValueError(f"they are of more than {MOST} values")
            return sets[0][:].astype(float), sets[1][:].astype(float)
    except Exception as error:                                         # links, groups, words, whatever they may be
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: no .h5 file with data sets mean and scale ({reason})") from error
