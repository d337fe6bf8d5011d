"""How precisely losses are computed, whatever the precision of the net."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """``x`` in float32 if it is half precision, else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
