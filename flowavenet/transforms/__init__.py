"""Invertible maps between audio and noise: see :mod:`flowavenet.transforms.base` for what they all promise."""

from flowavenet.transforms.actnorm import ActNorm
from flowavenet.transforms.base import Chain, Inverse, Reach, Transform
from flowavenet.transforms.coupling import AdditiveCoupling, AffineCoupling, ConditionalScale
from flowavenet.transforms.mixing import Mixing
from flowavenet.transforms.reversible import in_constant_memory
from flowavenet.transforms.rows import Reversed, RowAutoregressive
from flowavenet.transforms.views import Folded, Interleaved, Kept, Lapped, Swapped, fold, pool, unfold

__all__ = [
    "ActNorm", "AdditiveCoupling", "AffineCoupling", "Chain", "ConditionalScale", "Folded", "Interleaved", "Inverse",
    "Kept", "Lapped", "Mixing", "Reach", "Reversed", "RowAutoregressive", "Swapped", "Transform", "fold",
    "in_constant_memory", "pool", "unfold",
]
