"""Weight norm in and out of nets: w = g v / |v|, with one length g for each output channel.

Training with it converges better; synthesis wants the product. A state dict may hold either form.

Salimans, Kingma, "Weight normalization", NIPS 2016, arXiv:1602.07868.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from flowavenet.nets.base import wide
from flowavenet.nets.conv import channels_last

LENGTH, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"


@torch.no_grad()
def remove_weight_norm(module: nn.Module) -> None:
    """Replace every weight-normed weight inside ``module`` by the product, a plain parameter, in place.

    Copies of the module keep their weight norms. (torch makes a class for each module with one, which ``deepcopy`` shares,
    and its ``remove_parametrizations`` takes the weight away from that class. Here a module gets its first class back.)
    """
    for part in module.modules():
        if is_parametrized(part, "weight") and hasattr(part.parametrizations.weight, "original1"):
            weight, trained = part.weight.clone(), part.parametrizations.weight.original1.requires_grad
            part.__class__ = type(part).__bases__[0]
            del part.parametrizations
            if isinstance(part, nn.Conv1d | nn.Conv2d):
                weight = channels_last(weight)
            part.weight = nn.Parameter(weight, requires_grad=trained)


def load_weights(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict whose weights have weight norm or not, whichever ``module`` has: see :func:`matched`.

    Raises RuntimeError, as ``load_state_dict`` does, if anything is missing, left over or of another shape.
    """
    module.load_state_dict(matched(module, state))


@torch.no_grad()
def matched(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` with weight norms multiplied out where ``module`` has none, and introduced where it has some.

    Everything else stays as it is, so that what does not fit can still be told.
    """
    result = dict(state)
    for key in sorted(module.state_dict().keys() - state.keys()):
        for end in (DIRECTION, "weight"):
            if key.endswith(end):
                home = key.removesuffix(end)
                break
        else:
            continue
        if end == "weight" and {home + LENGTH, home + DIRECTION} <= result.keys():
            length, direction = wide(result.pop(home + LENGTH)), wide(result.pop(home + DIRECTION))
            result[key] = direction * (length / torch.norm_except_dim(direction, 2, 0))
        elif end == DIRECTION and home + "weight" in result:
            result[key] = result.pop(home + "weight")
            result[home + LENGTH] = torch.norm_except_dim(wide(result[key]), 2, 0)
    return result
