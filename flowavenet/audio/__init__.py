"""Audio files in and out, and the mel spectrogram in each published convention."""

from flowavenet.audio.conventions import ABOUT, CONVENTIONS, convention, mel_settings
from flowavenet.audio.conversion import Conversion, convert
from flowavenet.audio.denoising import BiasDenoiser
from flowavenet.audio.files import AudioInfo, audio_blocks, audio_info, list_audio, load_audio, save_audio
from flowavenet.audio.filterbank import mel_filter_bank
from flowavenet.audio.matching import MelMatching
from flowavenet.audio.mel import MelSpectrogram
from flowavenet.audio.melfiles import MEL_SUFFIXES, MelFile, load_mel, save_mel
from flowavenet.audio.settings import MelSettings

__all__ = [
    "ABOUT",
    "AudioInfo",
    "BiasDenoiser",
    "CONVENTIONS",
    "Conversion",
    "MEL_SUFFIXES",
    "MelFile",
    "MelMatching",
    "MelSettings",
    "MelSpectrogram",
    "audio_blocks",
    "audio_info",
    "convention",
    "convert",
    "list_audio",
    "load_audio",
    "load_mel",
    "mel_filter_bank",
    "mel_settings",
    "save_audio",
    "save_mel",
]
