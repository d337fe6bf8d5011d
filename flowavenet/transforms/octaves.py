"""Groups of channels one after the other: each is transformed given the signals of the channels before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowavenet.transforms.base import ReceptiveField, State, Transform, wide
from flowavenet.transforms.views import squeeze


class Octaves(Transform):
    """Transform groups of channels one after the other; each hears the signals of all channels before it.

        z_k = t_k(x_k; cond, x_0 ... x_(k-1))

    The Jacobian is block triangular, so the log-dets add. Forward, all groups are there at once. The inverse goes from the
    first group to the last: with :class:`~flowavenet.transforms.Subbands` around it, octave by octave.

    What group k hears reaches it as conditioning: ``hop`` samples of each channel below, channel-major, side by side with
    the features of their frame (batch, frames, cond channels + hop * channels below).

    Args:
        transforms: one for each group; the first gets the conditioning as it is.
        sizes: channels of each group.
        hop: samples of ``x`` in a frame, that is, in a column of the conditioning.
        context: frames before and after a frame whose signals below are heard, for each transform.

    Shape: (batch, sum(sizes), frames * hop).
    Related: Wavelet Flow, Yu, Derpanis, Brubaker, 2020, arXiv:2010.13821, which goes from coarse to fine images.
    """

    def __init__(self, transforms: Sequence[Transform], sizes: Sequence[int], hop: int, context: Sequence[tuple[int, int]]):
        field, forward_field = ReceptiveField(0, 0), ReceptiveField(0, 0)
        for transform, frames in zip(transforms, context, strict=True):
            heard = ReceptiveField(*(side * hop for side in frames))
            # on the way back, what is heard depends on the noise below; on the way there it is given
            field = _widest(field + heard, transform.receptive_field)
            forward_field = _widest(forward_field, _widest(heard, transform.forward_receptive_field))
        super().__init__(field, forward_field)
        self.transforms = nn.ModuleList(transforms)
        self.sizes = tuple(sizes)
        self.hop = hop

    def forward(self, x: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        parts, total, below = [], 0, 0
        for transform, size in zip(self.transforms, self.sizes, strict=True):
            z, log_det = transform(x[:, below : below + size], self.hearing(x[:, :below], cond))
            parts.append(z)
            total, below = total + log_det, below + size
        return torch.cat(parts, dim=1), total

    def inverse(self, z: Tensor, cond: Tensor, state: State | None = None) -> tuple[Tensor, Tensor]:
        x, total, below = z[:, :0], 0, 0
        for transform, size in zip(self.transforms, self.sizes, strict=True):
            part, log_det = transform.inverse(z[:, below : below + size], self.hearing(x, cond), state)
            x = torch.cat([x, part], dim=1)
            total, below = total + log_det, below + size
        return x, total

    def hearing(self, below: Tensor, cond: Tensor) -> Tensor:
        """Return the conditioning of a group: that of its frames, then the samples of the channels below."""
        if below.shape[1] == 0:
            return cond
        frames = below.shape[-1] // self.hop
        return torch.cat([wide(cond[:, :frames]), wide(squeeze(below, self.hop)).transpose(1, 2)], dim=-1)


class ConditionalAffine(Transform):
    """Shift and scale every sample by parameters read off the conditioning alone.

        z = (x - shift(cond)) * exp(-log_scale(cond));   log_det = -sum(log_scale)

    Inside :class:`Octaves` the conditioning holds the waveforms below: this is the affine coupling of an octave, whose
    unchanged part is all that was drawn before it.

    Args:
        net: maps ``cond``, on a coarser grid, to shifts, then log-scales: (batch, time or longer, 2 * channels).
        limit: softly keeps every log-scale within +-limit.

    Dinh et al., "Density estimation using Real NVP", 2017, arXiv:1605.08803.
    """

    def __init__(self, net: nn.Module, limit: float = 2.0):
        super().__init__()
        self.net = net
        self.limit = limit

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.shift_and_log_scale(x, cond)
        return ((x - shift) * torch.exp(-log_scale)).to(x.dtype), -log_scale.sum(dim=1)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.shift_and_log_scale(z, cond)
        return (z * torch.exp(log_scale) + shift).to(z.dtype), log_scale.sum(dim=1)

    def shift_and_log_scale(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (batch, channels, time) each, float32 or wider."""
        shift, log_scale = wide(self.net(cond))[:, : x.shape[-1]].transpose(1, 2).chunk(2, dim=1)
        return shift, self.limit * torch.tanh(log_scale / self.limit)


def _widest(one: tuple[int, int], other: tuple[int, int]) -> ReceptiveField:
    return ReceptiveField(max(one[0], other[0]), max(one[1], other[1]))
