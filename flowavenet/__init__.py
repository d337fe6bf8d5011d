"""flowavenet: exact-likelihood flow vocoders. Mel spectrogram in, waveform out, in one parallel pass; and back."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowavenet.audio import MelSpectrogram, load_audio, load_mel, save_audio
    from flowavenet.vocoder import Vocoder

__version__ = "0.1.0"

__all__ = ["MelSpectrogram", "Vocoder", "__version__", "load_audio", "load_mel", "save_audio"]

_HOMES = {"Vocoder": "vocoder", "MelSpectrogram": "audio", "load_audio": "audio", "load_mel": "audio", "save_audio": "audio"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that ``flowavenet --help`` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'flowavenet' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"flowavenet.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
