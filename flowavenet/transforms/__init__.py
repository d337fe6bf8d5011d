"""Invertible maps between audio and noise: see :mod:`flowavenet.transforms.base` for what they all promise."""

from flowavenet.transforms.autoregressive import Autoregressive, RowAutoregressive
from flowavenet.transforms.base import Chain, Inverse, ReceptiveField, Scaled, State, Transform
from flowavenet.transforms.coupling import ActNorm, AdditiveCoupling, AffineCoupling, ConditionalScale, InvertibleConv1x1
from flowavenet.transforms.heads import Affine, Gaussian, Head, LogisticMixture, LogisticNoise, MuLaw
from flowavenet.transforms.mdct import MDCT
from flowavenet.transforms.octaves import ConditionalAffine, Octaves
from flowavenet.transforms.pitch import PitchPrediction
from flowavenet.transforms.radial import RadialStretch
from flowavenet.transforms.subbands import Subbands
from flowavenet.transforms.views import (
    FactorOut,
    Interleave,
    ReverseGroups,
    Squeeze,
    SwapHalves,
    pool_cond,
    squeeze,
    squeeze_cond,
    unsqueeze,
)

__all__ = [
    "MDCT", "ActNorm", "AdditiveCoupling", "Affine", "AffineCoupling", "Autoregressive", "Chain", "ConditionalAffine",
    "ConditionalScale", "FactorOut", "Gaussian", "Head", "Interleave", "Inverse", "InvertibleConv1x1",
    "LogisticMixture", "LogisticNoise", "MuLaw", "Octaves", "PitchPrediction", "RadialStretch", "ReceptiveField",
    "ReverseGroups", "RowAutoregressive", "Scaled", "Squeeze", "State", "Subbands", "SwapHalves", "Transform",
    "pool_cond", "squeeze", "squeeze_cond", "unsqueeze",
]
