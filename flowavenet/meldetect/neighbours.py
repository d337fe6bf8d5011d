"""Vary settings, so that a convention that nobody listed can be told from the listed one that it is most like."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from flowavenet.audio.settings import MelSettings

_RATES = 16000, 22050, 24000, 44100, 48000
_BANDS = (0.0, 8000.0), (80.0, 7600.0), (55.0, 7600.0), (125.0, 7600.0), (0.0, None), (40.0, None)
_WINDOWS = 0.5, 0.78, 1.28, 2.0
_HOPS = 0.5, 0.625, 0.8, 1.25, 1.6, 2.0
_RANGES = (-100.0, 20.0), (-100.0, 0.0), (-80.0, 20.0), (-80.0, 0.0), (-115.0, 20.0), (-120.0, 20.0)
_ENDS = (0.0, 1.0), (-1.0, 1.0), (0.0, 4.0), (-4.0, 4.0)


@lru_cache(maxsize=64)
def neighbours(settings: MelSettings) -> tuple[MelSettings, ...]:
    """Return settings of as many bands that differ in rate, window, hop, range of bands or mel scale.

    How their values are written is left open: natural logarithms of magnitudes, or of powers if the settings have those.
    """
    low, high = settings.band_edges
    plain = replace(
        settings, log="ln", offset=0.0, scale=1.0, clip=None, band_rate=None, peak=None, frame_centre="hop",
        f_min=low, f_max=high,
    )
    grids = [plain]
    for rate in _RATES:
        if rate != settings.sample_rate:
            part = rate / settings.sample_rate                         # windows of as many samples, and of as many seconds
            win, n_fft = (2 * round(size * part / 2) for size in (settings.win_length, settings.n_fft))
            hop = round(settings.hop_length * part)
            grids += [
                replace(plain, sample_rate=rate, f_min=0.0, f_max=rate / 2),
                replace(plain, sample_rate=rate, f_min=0.0, f_max=rate / 2, n_fft=n_fft, win_length=win, hop_length=hop),
            ]
    found = [replace(grid, f_min=low, f_max=high) for grid in grids[1:] if high <= grid.sample_rate / 2]
    for grid in grids:
        for f_min, f_max in _BANDS:
            f_max = f_max or grid.sample_rate / 2
            if f_max <= grid.sample_rate / 2:
                found.append(replace(grid, f_min=f_min, f_max=f_max))
    for part in _WINDOWS:
        win = 2 * round(settings.win_length * part / 2)
        n_fft = max(win, settings.n_fft if settings.n_fft > settings.win_length else win)
        found.append(replace(plain, n_fft=n_fft, win_length=win, hop_length=min(win, round(settings.hop_length * part))))
    longer = settings.win_length if settings.n_fft > settings.win_length else 2 * settings.n_fft
    turned = dict(mel_scale="htk", norm=None) if settings.mel_scale == "slaney" else dict(mel_scale="slaney", norm="slaney")
    found += [replace(plain, n_fft=longer), replace(plain, **turned)]
    return tuple(one for one in dict.fromkeys(found) if one != plain)


def other_emphasis(settings: MelSettings) -> MelSettings:
    """Return the settings with pre-emphasis if they have none, without it if they have some."""
    return replace(settings, preemphasis=0.0 if settings.preemphasis else 0.97)


def other_hops(settings: MelSettings) -> tuple[MelSettings, ...]:
    """Return the settings with other hops."""
    hops = sorted({round(settings.hop_length * part) for part in _HOPS})
    return tuple(replace(settings, hop_length=hop, frame_centre="hop") for hop in hops if hop <= settings.win_length)


def other_values(settings: MelSettings) -> tuple[MelSettings, ...]:
    """Return the settings with their values written otherwise: other logarithms, or decibels of other ranges.

    Those of a linear mel are powers for magnitudes, or magnitudes for powers.
    """
    if settings.log == "linear":
        return (replace(settings, power=3 - settings.power),)
    plain = replace(settings, offset=0.0, scale=1.0, clip=None, floor=1e-12, peak=None)
    found = [replace(plain, log=log, power=power) for log in ("ln", "log10", "db") for power in (1.0, 2.0)]
    for lowest, reference in _RANGES:
        for start, end in _ENDS:
            scale = (end - start) / -lowest
            offset = start / scale - lowest - reference
            found.append(replace(plain, log="db", power=1.0, offset=offset, scale=scale, clip=(start, end)))

    def value(one: MelSettings) -> tuple[float, float]:
        nat = {"ln": 1.0, "log10": 0.434, "db": 8.686}[one.log] * one.power * float(one.scale)
        return round(nat, 3), one.clip

    same = None if isinstance(settings.scale, tuple) else value(settings)
    return tuple(one for one in found if value(one) != same or (one.clip and abs(one.offset - settings.offset) > 5))
