"""Training in constant memory: activations are not kept for the gradient but computed again, from the noise backwards.

Because every transform can be inverted, its input need not be remembered: on the way back it is found from its output. What
is held at a time are the activations of one coupling, whatever the number of couplings.

Gomez, Ren, Urtasun, Grosse, "The reversible residual network: backpropagation without storing activations", NIPS 2017,
arXiv:1707.04585.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flowavenet.transforms.base import Transform


def in_constant_memory(transform: Transform, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``transform(x, cond)``, with the same gradients for less memory and about half as much time again.

    Gradients pass through inverses, so they are as exact as the round trip is; second derivatives are not supported.
    """
    weights = [weight for weight in transform.parameters() if weight.requires_grad]
    return _Rewound.apply(transform, x, cond, *weights)


class _Rewound(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, transform: Transform, x: Tensor, cond: Tensor | None, *weights: nn.Parameter
    ) -> tuple[Tensor, Tensor]:
        z, log_det = transform(x, cond)
        ctx.transform, ctx.weights = transform, weights
        ctx.autocast = {
            "device_type": x.device.type, "enabled": torch.is_autocast_enabled(x.device.type),
            "dtype": torch.get_autocast_dtype(x.device.type),
        }
        ctx.save_for_backward(z, cond)
        return z, log_det

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple:
        z, cond = ctx.saved_tensors
        grads: dict[nn.Parameter, Tensor] = {}
        with torch.autocast(**ctx.autocast):
            _, grad_x, grad_cond = ctx.transform.rewind(z, cond, grad_z, grad_log_det, grads)
        return None, grad_x, grad_cond, *(grads.get(weight) for weight in ctx.weights)
