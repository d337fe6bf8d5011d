"""Detect the convention of a mel spectrogram, and how loud it is; bring it to the one that a vocoder wants."""

from flowavenet.meldetect.detect import Detection, detect
from flowavenet.meldetect.level import Offset, estimate_offset, with_offset
from flowavenet.meldetect.source import MelSource, detect_together, identify

__all__ = ["Detection", "MelSource", "Offset", "detect", "detect_together", "estimate_offset", "identify", "with_offset"]
