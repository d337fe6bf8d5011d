"""What predicts shifts and scales, and what brings the mel to the time grid. Nets know nothing of transforms."""

from flowavenet.nets.dynamic import DynamicFilterNet
from flowavenet.nets.framenet import FrameNet, MelEncoder
from flowavenet.nets.glownet import GlowNet, SeparableNet
from flowavenet.nets.rownet import RowNet
from flowavenet.nets.upsample import MelUpsampler
from flowavenet.nets.wavenet import CondHalf, WaveNet

__all__ = [
    "CondHalf", "DynamicFilterNet", "FrameNet", "GlowNet", "MelEncoder", "MelUpsampler", "RowNet", "SeparableNet",
    "WaveNet",
]
