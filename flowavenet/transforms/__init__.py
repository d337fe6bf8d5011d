"""Invertible maps between audio and noise: see :mod:`flowavenet.transforms.base` for what they all promise."""

from flowavenet.transforms.actnorm import ActNorm
from flowavenet.transforms.autoregressive import Autoregressive, Generation
from flowavenet.transforms.base import Chain, Inverse, Reach, Scaled, Transform
from flowavenet.transforms.coupling import AdditiveCoupling, AffineCoupling, ConditionalScale
from flowavenet.transforms.heads import Affine, Gaussian, Head, LogisticNoise
from flowavenet.transforms.lapped import Lapped
from flowavenet.transforms.logistics import LogisticMixture
from flowavenet.transforms.mixing import Mixing
from flowavenet.transforms.mulaw import MuLaw
from flowavenet.transforms.reversible import in_constant_memory
from flowavenet.transforms.rows import Reversed, RowAutoregressive
from flowavenet.transforms.views import Folded, Interleaved, Kept, Swapped, fold, pool, unfold

__all__ = [
    "ActNorm", "AdditiveCoupling", "Affine", "AffineCoupling", "Autoregressive", "Chain", "ConditionalScale", "Folded",
    "Gaussian", "Generation", "Head", "Interleaved", "Inverse", "Kept", "Lapped", "LogisticMixture", "LogisticNoise",
    "Mixing", "MuLaw", "Reach", "Reversed", "RowAutoregressive", "Scaled", "Swapped", "Transform", "fold",
    "in_constant_memory", "pool", "unfold",
]
