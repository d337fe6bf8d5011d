"""Invertible maps between audio and noise: see :mod:`flowavenet.transforms.base` for what they all promise."""

from flowavenet.transforms.actnorm import ActNorm
from flowavenet.transforms.base import Chain, Inverse, Reach, Transform
from flowavenet.transforms.coupling import AdditiveCoupling, AffineCoupling
from flowavenet.transforms.mixing import Mixing
from flowavenet.transforms.views import Folded, Kept, Lapped, Swapped, fold, pool, unfold

__all__ = [
    "ActNorm", "AdditiveCoupling", "AffineCoupling", "Chain", "Folded", "Inverse", "Kept", "Lapped", "Mixing",
    "Reach", "Swapped", "Transform", "fold", "pool", "unfold",
]
