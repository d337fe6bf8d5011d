"""flowavenet: exact-likelihood flow vocoders. Mel spectrogram in, waveform out, in one parallel pass; and back."""

from flowavenet.audio import MelSpectrogram, load_audio, save_audio
from flowavenet.vocoder import Vocoder

__version__ = "0.1.0"

__all__ = ["MelSpectrogram", "Vocoder", "__version__", "load_audio", "save_audio"]
