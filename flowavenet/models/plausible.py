"""Settings that may come from anywhere make a model, or are refused in one line, before they take all memory and time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any, get_args, get_type_hints

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from flowavenet.files import short

WEIGHTS = 2**30
"""Of any model; the largest published one has 2^28."""
TENSORS = 2**15
"""That these weights are in, at most; the published FloWaveNet has 2,600."""
LARGEST = 2**16
"""Of whole numbers among the settings."""
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", tuple: "a list of whole numbers"}


def check_types(name: str, config_class: type, config: dict[str, Any]) -> None:
    """Refuse settings of another type than the fields of a Config have, and numbers that make no sense anywhere."""
    for field, hint in get_type_hints(config_class).items():
        if field not in config:
            continue
        value, allowed = config[field], get_args(hint) if type(None) in get_args(hint) else (hint,)
        if value is None and type(None) in allowed:
            continue
        kind = allowed[0] if allowed[0] in KINDS else tuple
        values = value if kind is tuple and isinstance(value, list | tuple) else (value,)
        member = int if kind is tuple and isinstance(value, list | tuple) else kind
        if not all(map(lambda one: _is(one, member), values)):
            limit = f", 0 to {LARGEST}" if kind in (int, tuple) else ""
            raise ValueError(f"{name}: {field} is {short(value)}, must be {KINDS[kind]}{limit}")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return type(value) is int and 0 <= value <= LARGEST
    return type(value) is kind


@contextmanager
def at_most(weights: int) -> Iterator[None]:
    """Within, a module that gets more weights than that raises ValueError, before most of its memory is touched."""
    here, most = get_ident(), {"weights": weights, "tensors": min(weights, TENSORS)}
    there = dict.fromkeys(most, 0)

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        if parameter is None or get_ident() != here:
            return
        there["weights"] += parameter.numel()
        there["tensors"] += 1
        for what in most:
            if there[what] > most[what]:
                raise ValueError(f"its settings ask for more than {most[what]} {what}; correct them")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
