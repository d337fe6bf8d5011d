"""The twin of a model that synthesises faster, with the same weights and the same numbers up to rounding."""

from __future__ import annotations

import math
from copy import copy, deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from flowavenet.models.base import FlowVocoder
from flowavenet.nets import GlowNet, WaveNet
from flowavenet.nets.fast import rows
from flowavenet.transforms import Folded, fold
from flowavenet.transforms.base import weight_state


@torch.no_grad()
def for_synthesis(model: FlowVocoder, dtype: torch.dtype) -> FlowVocoder:
    """A model that renders the same, without gradients: nets are replaced by their fast twins, the rest is shared.

    The nets' weights are copied as they are now; after further training, take a new twin. A model that decodes sample by
    sample is its own twin: how it steps is fast already.

    Args:
        model: any.
        dtype: of the work in the nets.
    """
    return model if model.sequential == "decode" else _twin(model, dtype, [])


def weights_state(model: nn.Module) -> tuple:
    """Changes when any weight changes: see :func:`~flowavenet.transforms.base.weight_state`."""
    return tuple(weight_state(weight) for weight in model.parameters())


def _twin(module: nn.Module, dtype: torch.dtype, folds: list[int]) -> nn.Module:
    """``folds``: how the conditioning would have been folded on its way to this module."""
    if is_parametrized(module):
        return module
    if isinstance(module, WaveNet):
        return module.fast(dtype, _order(module.conditioning[0].in_channels, folds))
    if isinstance(module, GlowNet):
        return module.fast(dtype, _order(module.conditioning.in_channels, folds))
    if hasattr(module, "fast"):
        return module.fast(dtype)
    if isinstance(module, nn.Conv1d):
        return deepcopy(module).to(dtype)                              # else autocast would round it at every call
    if type(module) is Folded and module.bring is fold:
        return _SignalFolded(module.n, _twin(module.inner, dtype, [*folds, module.n]))
    twin = copy(module)
    twin._modules = {name: _twin(child, dtype, folds) for name, child in module._modules.items()}
    return twin


class _SignalFolded(Folded):
    """A fold of the signal alone. To fold the conditioning as well is to read its columns in groups, which costs nothing if
    the channels of a column lie side by side in memory and the nets know the order: see :func:`_order`."""

    def _bring(self, cond: Tensor | None, time: int, whole: int) -> Tensor | None:
        return None if cond is None else rows(cond).transpose(1, 2)


def _order(channels: int, folds: list[int]) -> Tensor:
    """Where the channels of a folded signal lie in groups of its columns, one column after the other: (channels,).

    >>> _order(8, [2, 2])
    tensor([0, 4, 2, 6, 1, 5, 3, 7])
    """
    columns = math.prod(folds)
    place = torch.arange(channels).reshape(1, columns, -1).transpose(1, 2)     # of each channel at each time
    for n in folds:
        place = fold(place, n)
    return place.flatten()
