"""Audio files in and out, and the mel spectrogram in each published convention."""

from .conventions import CONVENTIONS, convention, mel_settings
from .files import audio_seconds, list_audio, load_audio, save_audio, write_atomically
from .melfiles import MEL_SUFFIXES, load_mel
from .mel import MelSettings, MelSpectrogram, mel_filter_bank

__all__ = [
    "CONVENTIONS",
    "MEL_SUFFIXES",
    "MelSettings",
    "MelSpectrogram",
    "audio_seconds",
    "convention",
    "list_audio",
    "load_audio",
    "load_mel",
    "mel_filter_bank",
    "mel_settings",
    "save_audio",
    "write_atomically",
]
