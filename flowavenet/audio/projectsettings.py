"""Read mel settings from the configuration of the project that made the mels: config.json, YAML, or a hparams file.

Projects name the same things differently; `NAMES` has the words that are understood. Nothing in a file is executed: of a
Python file, lines `name = value` or `name=value,` are read whose value is a plain number, text, True, False or None.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowavenet.audio.settings import MelSettings
from flowavenet.files import read_text, read_yaml, short

NAMES: dict[str, tuple[str, ...]] = {
    "sample_rate": ("sampling_rate", "sample_rate", "samplerate", "target_sample_rate", "audio_sample_rate", "sr", "fs"),
    "hop_length": ("hop_size", "hop_length", "hop_len", "hop_samples", "n_window_stride", "hop", "hop_sz"),
    "win_length": ("win_size", "win_length", "win_len", "window_length", "window_size", "n_window_size", "win"),
    "n_fft": ("n_fft", "fft_size", "filter_length", "fft_length", "nfft", "fft"),
    "n_mels": (
        "num_mels", "n_mels", "n_mel_channels", "num_mel_bins", "audio_num_mel_bins", "mel_bins", "n_mel", "n_mel_bins",
        "nfilt", "mel_channels", "num_mel",
    ),
    "f_min": ("fmin", "mel_fmin", "f_min", "lowfreq", "mel_f_min"),
    "f_max": ("fmax", "mel_fmax", "f_max", "highfreq", "mel_f_max"),
    "preemphasis": ("preemphasis", "preemph", "pre_emphasis"),
}
"""Words that projects use, by our own; the first that a file has counts."""
MOST = 2**20
"""Bytes of a file that are read."""
LOGS: dict[str, dict[str, Any]] = {
    "ln": dict(log="ln", floor=1e-5),
    "log10": dict(log="log10", floor=1e-10, eps=1e-24),
    "db": dict(log="db", floor=1e-5),
    "linear": dict(log="linear", floor=1e-10, eps=1e-24),
}
"""What `--mel-log` may say; with `-power` after it, of powers instead of magnitudes."""


def read_project_settings(path: Path, **known: Any) -> MelSettings:
    """Read mel settings from a project's own configuration.

    Where the file does not say how values are written, decibels are taken if it has their range (`min_level_db`), the
    logarithm to base 10 if it is one of ParallelWaveGAN's, and the natural one otherwise.

    Args:
        path: .json, .yaml, .yml, or .py or .txt of lines `name = value`.
        known: fields of MelSettings that count instead of what the file says.

    Raises ValueError or FileNotFoundError, in one line that names the file and what it lacks.
    """
    found = dict(_flat(_content(path)))
    values: dict[str, Any] = {}
    for field, words in NAMES.items():
        word = next((word for word in words if word in found), None)
        if word is not None and isinstance(found[word], int | float) and not isinstance(found[word], bool):
            values[field] = found[word]
    seconds = {"hop_length": "frame_shift_ms", "win_length": "frame_length_ms"}
    for field, word in seconds.items():
        if field not in values and isinstance(found.get(word), int | float) and "sample_rate" in values:
            values[field] = int(found[word] / 1000 * values["sample_rate"])
    if "n_fft" not in values and isinstance(found.get("num_freq"), int):
        values["n_fft"] = 2 * (found["num_freq"] - 1)
    if found.get("preemphasize") is False:
        values.pop("preemphasis", None)
    values |= {field: value for field, value in known.items() if value is not None}
    if missing := [field for field in ("sample_rate", "hop_length", "n_mels") if field not in values]:
        words = ", ".join(f"{field} ({' or '.join(NAMES[field][:3])})" for field in missing)
        raise ValueError(f"{path}: does not say {words}; add it, or give --mel-rate and --mel-hop")
    for field in ("sample_rate", "hop_length", "win_length", "n_fft", "n_mels"):
        if field in values and float(values[field]).is_integer():
            values[field] = int(values[field])
    values.setdefault("win_length", values.get("n_fft", 4 * values["hop_length"]))
    values.setdefault("n_fft", max(values["win_length"], 1))
    values.setdefault("f_max", values["sample_rate"] / 2)
    if "log" not in values:
        values = _values(found) | values
    try:
        return MelSettings(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def stated_settings(
    wanted: MelSettings, convention: MelSettings | None = None, config: Path | None = None,
    rate: int | None = None, hop: int | None = None, log: str | None = None,
) -> MelSettings | None:
    """Return what a user says that mels are: a convention or a project's file, and what differs from it; None: nothing.

    Args:
        wanted: where to start from, if neither a convention nor a file is named: the vocoder's settings.
        convention: a named one.
        config: a project's file, see :func:`read_project_settings`.
        rate, hop: sample rate, Hz, and samples from frame to frame.
        log: one of LOGS, with `-power` after it for powers.

    Raises ValueError in one line for what makes no sense.
    """
    if convention is not None and config is not None:
        raise ValueError(f"--mel-convention and --mel-config {config} both say what the mels are; give one of them")
    written: dict[str, Any] = {}
    if log is not None:
        base = log.removesuffix("-power")
        if base not in LOGS:
            raise ValueError(f"--mel-log is {short(log)}, must be one of {', '.join(LOGS)}, maybe with -power after it")
        written = LOGS[base] | dict(power=2.0 if log.endswith("-power") else 1.0)
    if config is not None:
        return read_project_settings(config, sample_rate=rate, hop_length=hop, **written)
    if convention is None and rate is hop is log is None:
        return None
    start = convention or wanted
    if log is not None:
        written |= dict(offset=0.0, scale=1.0, clip=None)
    changed = {name: value for name, value in (("sample_rate", rate), ("hop_length", hop)) if value is not None}
    if rate is not None and start.f_max > rate / 2:
        changed["f_max"] = rate / 2
    if hop is not None and hop > start.win_length:
        changed |= dict(win_length=4 * hop, n_fft=max(start.n_fft, 4 * hop))
    return replace(start, **changed, **written)


def _content(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size > MOST:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, a configuration has at most {MOST}; name the right file")
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return read_yaml(path)
    text = read_text(path)
    if suffix == ".json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not JSON ({' '.join(str(error).split())[:120]}); write it again") from None
    if suffix not in (".py", ".txt", ".cfg", ".ini", ".conf"):
        raise ValueError(f"{path}: {suffix or 'no suffix'} is not one of .json, .yaml, .yml, .py, .txt; save it as one")
    found: dict[str, Any] = {}
    for name, value in re.findall(r"""["']?\b(\w+)["']?[ \t]*[=:][ \t]*([^,#\n]{1,200})""", text):
        try:
            found.setdefault(name, ast.literal_eval(value.strip().rstrip(")")))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return found


def _flat(content: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield names and values of nested mappings, in lower case; of a name that occurs twice, the outermost last."""
    if not isinstance(content, dict) or depth > 20:
        return
    for value in content.values():
        yield from _flat(value, depth + 1)
    for name, value in content.items():
        if not isinstance(value, dict | list):
            yield str(name).lower().replace("-", "_"), value


def _values(found: dict[str, Any]) -> dict[str, Any]:
    """Tell from what a file says how values are written."""

    def number(*names: str, default: float) -> float:
        value = next((found[name] for name in names if name in found), default)
        return float(value) if isinstance(value, int | float) else default

    if "log_zero_guard_value" in found or "log_zero_guard_type" in found:
        power = number("mag_power", default=2.0)
        mode = "max" if found.get("log_zero_guard_type") == "clamp" else "add"
        return dict(LOGS["ln"], floor=number("log_zero_guard_value", default=2**-24), floor_mode=mode, power=power)
    if "min_level_db" in found:
        lowest, reference = number("min_level_db", default=-100.0), number("ref_level_db", default=20.0)
        floor = 10 ** (lowest / 20)
        plain = dict(log="db", floor=floor, frame_centre="start")
        if found.get("signal_normalization", found.get("signal_norm", True)) is False:
            return plain | dict(offset=-reference)
        most = number("max_abs_value", "max_norm", default=1.0)
        symmetric = bool(found.get("symmetric_mels", found.get("symmetric_norm", found.get("symmetric_specs", most > 1))))
        scale = (2 if symmetric else 1) * most / -lowest
        return plain | dict(
            offset=-reference - lowest - (most / scale if symmetric else 0.0), scale=scale, clip=(-most * symmetric, most)
        )
    if "global_gain_scale" in found:
        base = found.get("log_base", 10.0)
        floor = number("eps", default=1e-10)
        return LOGS["ln" if base is None else "log10"] | dict(floor=floor, eps=1e-24, frame_centre="start")
    if str(found.get("mel_base", "")) == "10":
        return LOGS["log10"] | dict(floor=1e-5)
    return dict(LOGS["ln"], floor=number("mel_floor", "clip_val", default=1e-5))
