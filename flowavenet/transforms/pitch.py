"""Pitch prediction: subtract from a signal what its own past, a pitch period ago, says of it.

Voiced speech repeats from one period to the next. The long-term predictor of the speech coders removes the repetition, so
that only what is new is left to be drawn at random. In a flow it is exact and costs no nats: each sample is changed by
samples before it alone, so the map is unit lower triangular.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet.transforms.base import State, Transform, exact, zero_log_det

Recurrence = Callable[[Tensor, Tensor, Tensor], Tensor]


class PitchPrediction(Transform):
    """Subtract from each sample a weighted sum of the samples before it; the conditioning gives the weights.

        e_t = x_t - sum_l w_l(t) x_(t - l),  l = 1 ... taps;   log_det = 0

    The net gives weights once a frame. At the boundary of two frames the weights are their mean, and within a frame they
    go linearly from one boundary to the next. Zeros come before the first sample.

    Forward, all samples are changed at once. The inverse is a linear recurrence, see :func:`solve`. Its :class:`State`
    is the last ``taps`` samples of each channel, and those of the window that are final: a stream goes on exactly where it
    was.

    Args:
        net: maps ``cond`` (batch, frames or longer, cond channels) to weights (batch, frames, channels, taps), lag 1 first.
            The recurrence is stable if the weights of a frame have a gain below 1 at every frequency.
        hop: samples of ``x`` in a frame.
        taps: samples of the past that are read.

    Attributes:
        recurrence: :func:`by_frames` or :func:`by_scan`; None: the first on a CPU, the second elsewhere.

    Shape: (batch, channels, frames * hop); cond has one column a frame.
    Atal, Schroeder, "Adaptive predictive coding of speech signals", Bell System Technical Journal, 1970; Ramachandran,
    Kabal, "Pitch prediction filters in speech coding", IEEE Transactions on Acoustics, Speech and Signal Processing, 1989.
    """

    recurrence: Recurrence | None = None

    def __init__(self, net: nn.Module, hop: int, taps: int):
        # a frame's weights are mixed with those of its neighbours; the inverse has its past from the state
        super().__init__((hop, hop), (hop + taps, hop))
        self.net = net
        self.hop = hop
        self.taps = taps

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with exact(x):
            return x - predict(x, self.weights(x, cond), self.hop), zero_log_det(x)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        weights = between(self.weights(z, cond), self.hop)
        start, past, first = -self.taps, z.new_zeros(*z.shape[:2], self.taps), 0
        if state is not None:
            first = state.first
            start, past = state.memory.get(self, (first - self.taps, past))
        known = past[..., first - start :]                             # what earlier windows have drawn of this one
        done = known.shape[-1]
        recurrence = self.recurrence or (by_frames if z.device.type == "cpu" else by_scan)
        with exact(z):
            drawn = solve(z[..., done:], weights[:, :, done // self.hop :], past[..., -self.taps :], recurrence)
        if state is not None:
            whole = state.final // self.hop * self.hop                 # the next window begins with whole frames
            final = torch.cat([past, drawn[..., : max(0, whole - done)]], dim=-1)
            state.memory[self] = first - self.taps, final[..., first - self.taps - start :]
        return torch.cat([known, drawn], dim=-1), zero_log_det(z)

    def weights(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """Return the weights of all frames, in the number format of ``x``: (batch, channels, frames, taps)."""
        frames, rest = divmod(x.shape[-1], self.hop)
        if rest:
            raise ValueError(f"{x.shape[-1]} samples are no whole number of frames of {self.hop}: put a view around this")
        return self.net(cond)[:, :frames].transpose(1, 2).to(x.dtype)


def boundaries(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights at the beginning and at the end of each frame: two of (..., frames, taps)."""
    before = torch.cat([weights[..., :1, :], weights[..., :-1, :]], dim=-2)
    after = torch.cat([weights[..., 1:, :], weights[..., -1:, :]], dim=-2)
    return (weights + before) / 2, (weights + after) / 2


def positions(hop: int, like: Tensor) -> Tensor:
    """Return where in its frame each sample lies, from 0 to 1: (hop,)."""
    return (torch.arange(hop, device=like.device, dtype=like.dtype) + 0.5) / hop


def between(weights: Tensor, hop: int) -> Tensor:
    """Return the weights of every sample: (..., frames, taps) to (..., frames, hop, taps)."""
    begin, end = boundaries(weights)
    return torch.lerp(begin.unsqueeze(-2), end.unsqueeze(-2), positions(hop, weights)[:, None])


def predict(x: Tensor, weights: Tensor, hop: int) -> Tensor:
    """Return what the past says of each sample, sum_l w_l(t) x_(t - l), for x (batch, channels, frames * hop).

    A frame and the past that it reads are shorter than 100 samples, so the quickest way is through their discrete Fourier
    transforms, as plain matrix products: a frame filtered by the weights of its beginning, and by those of its end, is a
    product of two spectra each; the way back fades from the one to the other. A transform as long as frame and past together
    suffices, since what wraps around falls on the past.
    """
    taps, channels_frames = weights.shape[-1], x.unflatten(-1, (-1, hop)).shape
    blocks = -(-taps // hop)
    padded = F.pad(x, (blocks * hop, 0)).unflatten(-1, (-1, hop))      # (batch, channels, blocks + frames, hop)
    frames = channels_frames[2]
    read = torch.cat([padded[:, :, i : i + frames] for i in range(blocks + 1)], dim=-1)[..., blocks * hop - taps :]
    to_spectrum, weights_to_spectrum, back = (table.to(x) for table in _spectra(taps, hop))
    real, imag = (read @ to_spectrum).chunk(2, dim=-1)
    products = []
    for side in boundaries(weights @ weights_to_spectrum):
        side_real, side_imag = side.chunk(2, dim=-1)
        products += [real * side_real - imag * side_imag, real * side_imag + imag * side_real]
    return (torch.cat(products, dim=-1) @ back).flatten(-2)


@lru_cache
def _spectra(taps: int, hop: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the transforms of (past, frame), of the weights, and back to the frame, real parts before imaginary ones."""
    length = taps + hop + (taps + hop) % 2
    frequency = 2 * math.pi / length * torch.arange(length // 2 + 1, dtype=torch.float64, device="cpu")

    def onward(time: Tensor) -> Tensor:
        angle = time[:, None] * frequency
        return torch.cat([torch.cos(angle), -torch.sin(angle)], dim=1)

    time = torch.arange(taps + hop, dtype=torch.float64, device="cpu")
    # each frequency between 0 and Nyquist stands for two
    twice = torch.full((len(frequency),), 2.0, dtype=torch.float64, device="cpu")
    twice[0] = twice[-1] = 1
    back = torch.cat([twice, twice])[:, None] * onward(time[taps:]).T / length
    end = positions(hop, back)
    return onward(time), onward(1 + time[:taps]), torch.cat([back * (1 - end), back * end])


def solve(e: Tensor, weights: Tensor, before: Tensor, recurrence: Recurrence) -> Tensor:
    """Return the x whose prediction leaves e: x_t = e_t + sum_l w_l(t) x_(t - l).

    In frame f this reads (I - A_f) x_f = e_f + B_f p_f with A_f strictly lower triangular and p_f the samples before the
    frame. All frames' triangular systems are solved in one batch; x_f = g_f + G_f p_f is left for ``recurrence`` to resolve.

    Args:
        e: (batch, channels, frames * hop).
        weights: of each sample, (batch, channels, frames, hop, taps).
        before: the samples before the first one, (batch, channels, taps).
        recurrence: :func:`by_frames` or :func:`by_scan`.
    """
    batch, channels, frames, hop, taps = weights.shape
    if frames == 0:
        return e
    # Row i of the matrix (B_f, A_f) is the weights from the longest lag to the shortest, from column i on. Rows that are
    # one longer than the matrix is wide, read on without a break, move on by one column each.
    rows = F.pad(weights.flatten(0, 1).flip(-1), (0, hop + 1)).flatten(-2)
    matrix = rows[..., : hop * (taps + hop)].unflatten(-1, (hop, taps + hop))
    right = torch.cat([matrix[..., :taps], e.reshape(-1, frames, hop, 1)], dim=-1)
    unit = torch.eye(hop, dtype=e.dtype, device=e.device)
    gains = torch.linalg.solve_triangular(unit - matrix[..., taps:], right, upper=False, unitriangular=True)
    return recurrence(gains[..., :taps], gains[..., taps], before.flatten(0, 1)).reshape(e.shape)


def by_frames(gain: Tensor, own: Tensor, before: Tensor) -> Tensor:
    """Resolve x_f = own_f + gain_f p_f frame by frame; p_f is what the frames before f end with.

    Args:
        gain: (signals, frames, hop, taps).
        own: (signals, frames, hop).
        before: what comes before the first frame, (signals, taps).

    Returns: x, (signals, frames, hop).
    """
    (signals, frames, hop), taps = own.shape, before.shape[-1]
    if torch.is_grad_enabled():
        past, drawn = before.unsqueeze(-1), []
        for one, part in zip(gain.unbind(1), own.unsqueeze(-1).unbind(1), strict=True):
            drawn.append(torch.baddbmm(part, one, past))
            past = torch.cat([past, drawn[-1]], dim=1)[:, -taps:]
        return torch.stack(drawn, dim=1).squeeze(-1)
    # one operation a frame, which reads and writes the signal in its place
    x = torch.cat([before, own.new_empty(signals, frames * hop)], dim=1).unsqueeze(-1)
    pasts = x.unfold(1, taps, hop).transpose(2, 3).unbind(1)
    places = x[:, taps:].unflatten(1, (frames, hop)).unbind(1)
    for past, one, part, place in zip(pasts, gain.unbind(1), own.unsqueeze(-1).unbind(1), places, strict=False):
        torch.baddbmm(part, one, past, out=place)
    return x[:, taps:, 0].unflatten(1, (frames, hop))


def by_scan(gain: Tensor, own: Tensor, before: Tensor) -> Tensor:
    """Resolve the same by a prefix scan, in log2(frames) rounds of products of matrices.

    The map from the past of one frame to that of the next is affine, p -> M_f p + m_f. Round k composes each map with the
    one 2^k frames before, so that after all rounds each map goes from ``before`` to the past of its frame.

    Args and result as in :func:`by_frames`. More work in fewer steps: for devices where starting a step is dear.
    Blelloch, "Prefix sums and their applications", 1990; Hillis, Steele, "Data parallel algorithms", 1986.
    """
    (signals, frames, hop), taps = own.shape, before.shape[-1]
    shift = torch.eye(taps, dtype=own.dtype, device=own.device)[hop:] if hop < taps else own.new_zeros(0, taps)
    last = min(hop, taps)
    matrix = torch.cat([shift.expand(signals, frames, -1, -1), gain[:, :, hop - last :]], dim=2)
    vector = torch.cat([own.new_zeros(signals, frames, taps - last), own[:, :, hop - last :]], dim=2)
    reach = 1
    while reach < frames:
        later, earlier = matrix[:, reach:], matrix[:, :-reach]
        moved = vector[:, reach:] + (later @ vector[:, :-reach, :, None]).squeeze(-1)
        vector = torch.cat([vector[:, :reach], moved], dim=1)
        matrix = torch.cat([matrix[:, :reach], later @ earlier], dim=1)
        reach *= 2
    pasts = vector + (matrix @ before[:, None, :, None]).squeeze(-1)   # after each frame
    pasts = torch.cat([before[:, None], pasts[:, :-1]], dim=1)
    return own + (gain @ pasts.unsqueeze(-1)).squeeze(-1)
