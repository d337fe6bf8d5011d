"""The base class of the nets: time tiles, constant-memory training and number formats, at one place."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

TILE = 4000
"""Time steps, over the batch, that a net computes at a time on a CPU: 512 channels of them are 8 MB, which fits a cache."""
CHECKPOINT_TILE = 2048
"""Time steps, over the batch, whose activations are held at a time in training with ``checkpointed`` nets."""


class Net(nn.Module):
    """Predict something about every time step from its neighbours and from the conditioning.

    Long signals are computed tile by tile: each tile with as much signal around it as the receptive field says, so that the
    result does not depend on the tiles. Subclasses implement :meth:`tile`.

    Args:
        receptive_field: time steps before and after a step that its result depends on, ``(left, right)``.
        width: numbers per step that count as one for the length of a tile; above 1 for pictures.

    Attributes:
        checkpointed: keep no activations for the gradient but compute them again, tile by tile (False). The memory of a
            training step then hardly depends on the number of nets or on the length of the signal; it takes longer by one
            forward pass. See ``torch.utils.checkpoint``.
        tiled: compute long signals tile by tile (True).

    Shapes: x (batch, time, in_channels), any strides; cond (batch, time or more, cond_channels) ->
    (batch, time, out_channels), contiguous, float32 or wider. ``x`` and ``cond`` may be wider than the weights.
    """

    checkpointed = False
    tiled = True

    def __init__(self, receptive_field: tuple[int, int], width: int = 1):
        super().__init__()
        self.receptive_field = receptive_field
        self._width = width

    @abstractmethod
    def tile(self, x: Tensor, cond: Tensor) -> Tensor:
        """Return the result for all of ``x``, zeros beyond its ends, in any float format."""

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        time, (left, right) = x.shape[1], self.receptive_field
        again = self.checkpointed and torch.is_grad_enabled()
        # a graph that is exported takes any length
        tiled = self.tiled and (again or x.device.type == "cpu") and not torch.compiler.is_compiling()
        most = CHECKPOINT_TILE if again else TILE
        # where the context, computed again for each tile, would be most of the work, a tile may outgrow the cache
        step = max(most // (len(x) * self._width), 4 * (left + right), 1) if tiled else time
        if not tiled or step >= time:
            return wide(self._run(x, cond[:, :time], again)).contiguous()
        tiles = []
        for start in range(0, time, step):
            begin, end = max(0, start - left), min(time, start + step + right)
            tile = self._run(x[:, begin:end], cond[:, begin:end], again)
            tiles.append(tile[:, start - begin : start - begin + step])
        return wide(torch.cat(tiles, dim=1))

    def _run(self, x: Tensor, cond: Tensor, again: bool) -> Tensor:
        if again:
            return checkpoint(self.tile, x, cond, use_reentrant=False, preserve_rng_state=False)
        return self.tile(x, cond)


class CondHalf(nn.Module):
    """Let a net see only one half of the conditioning: with a mel, the lower or the upper bands.

    Args:
        net: called with ``(x, cond[:, half])``.
        half: 0 or 1.

    Shapes: x as for the net; cond (batch, 2, time, cond_channels).
    """

    def __init__(self, net: Net, half: int):
        super().__init__()
        self.net = net
        self.half = half
        self.receptive_field = net.receptive_field

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return self.net(x, cond[:, self.half])


class CondWhole(nn.Module):
    """Let a net see both halves of the conditioning, the channels of the second after those of the first.

    Args:
        net: called with ``(x, both halves side by side)``.

    Shapes: x as for the net; cond (batch, 2, time, cond_channels).
    """

    def __init__(self, net: Net):
        super().__init__()
        self.net = net
        self.receptive_field = net.receptive_field

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return self.net(x, torch.cat([cond[:, 0], cond[:, 1]], dim=-1))


def wide(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or in its own format where that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
