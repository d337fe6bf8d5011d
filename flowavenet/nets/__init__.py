"""What predicts shifts and scales, and what brings the mel to the time grid. Nets know nothing of transforms."""

from flowavenet.nets.base import CondHalf, CondWhole, Net
from flowavenet.nets.conv import TimeConv
from flowavenet.nets.dynamic import DynamicFilterNet
from flowavenet.nets.framenet import FrameNet, MelEncoder
from flowavenet.nets.glownet import GlowNet, SeparableNet
from flowavenet.nets.rownet import RowNet
from flowavenet.nets.steps import WaveNetSteps
from flowavenet.nets.upsample import MelUpsampler
from flowavenet.nets.wavenet import WaveNet
from flowavenet.nets.weightnorm import load_weights, matched, remove_weight_norm

__all__ = [
    "CondHalf", "CondWhole", "DynamicFilterNet", "FrameNet", "GlowNet", "MelEncoder", "MelUpsampler", "Net", "RowNet",
    "SeparableNet", "TimeConv", "WaveNet", "WaveNetSteps", "load_weights", "matched", "remove_weight_norm",
]
