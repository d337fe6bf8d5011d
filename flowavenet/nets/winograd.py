"""Three-tap convolutions in half the multiplications: Winograd's F(4, 3), where a processor has no faster way.

Four neighbouring outputs of a filter of three taps need twelve products; as a product of polynomials, evaluated at
0, 1, -1, 2, -2 and infinity, they need six:

y = A^T [(G w) * (B^T x)]

With channels, each of the six is a matrix product over all groups of four outputs. The transforms are sums of a few rows.
Rounding errors are those of the plain convolution, within a factor of two.

Winograd, "Arithmetic complexity of computations", 1980; Lavin, Gray, "Fast algorithms for convolutional neural networks",
CVPR 2016, arXiv:1509.09308.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

G = [[1 / 4, 0, 0], [-1 / 6] * 3, [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
LONG, BROAD = 1000, 64
"""Time steps, and channels, from which it pays."""
TILE = 256
"""Groups of rows at a time (with dilation 1): with 256 channels, six times 256 KB in and 512 KB out."""
AVX2 = torch.backends.cpu.get_cpu_capability() == "AVX2"
"""Whether this is a processor of the kind on which it was found to pay. With AVX-512, oneDNN's convolutions are far faster
than matrix products."""


def pays(x: Tensor, weight: Tensor) -> bool:
    """Say whether to convolve rows or a picture ``x`` this way: long float32 signals on a CPU, without gradients."""
    return (
        AVX2 and weight.shape[2] == 3 and min(weight.shape[:2]) >= BROAD and x.shape[-1] >= LONG and x.is_cpu
        and x.dtype == weight.dtype == torch.float32 and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor, before: int, dilation: int) -> Tensor:
    """Convolve rows (batch, time, in) with a weight (out, in, 3), ``before`` zeros ahead: (batch, time, out)."""
    (batch, time, _), out = x.shape, len(weight)
    groups = -(-time // (4 * dilation))
    # rows that are read together are `dilation` apart: so many of them, side by side, are taken as one
    x = F.pad(x, (0, 0, before, (4 * groups + 2) * dilation - before - time)).view(batch, 4 * groups + 2, -1)
    weight = torch.matmul(weight.new_tensor(G), weight.transpose(1, 2)).transpose(0, 1).contiguous().mT   # (6, in, out)
    y = x.new_empty(batch, 4 * groups, dilation * out)
    count = -(-groups // -(-groups * dilation // TILE))                # as many in each tile
    # memory that is asked for once stays mapped
    b, m = x.new_empty(6, count, x.shape[2]), x.new_empty(6, count * dilation, out)
    for item, result in zip(x, y, strict=True):
        for start in range(0, groups, count):
            start = min(start, groups - count)                         # the last ones may be computed twice
            read = [item[4 * start + i :: 4][:count] for i in range(6)]
            written = [result[4 * start + i :: 4][:count] for i in range(4)]
            _tile(read, weight, bias, written, b, m)
    return y.view(batch, -1, out)[:, :time]


def _tile(x: list[Tensor], weight: Tensor, bias: Tensor, y: list[Tensor], b: Tensor, m: Tensor) -> None:
    """Compute four outputs ``y`` from six inputs ``x``, for some groups: (groups, dilation * channels) each.

    ``b`` and ``m`` take B^T x and the six products.
    """
    even, odd = torch.sub(x[4], x[2], alpha=4), torch.sub(x[3], x[1], alpha=4)
    torch.add(even, odd, out=b[1])
    torch.sub(even, odd, out=b[2])
    torch.sub(x[4], x[2], out=even)
    torch.sub(x[3], x[1], out=odd)
    torch.add(even, odd, alpha=2, out=b[3])
    torch.sub(even, odd, alpha=2, out=b[4])
    torch.sub(x[4], x[2], alpha=5, out=b[0]).add_(x[0], alpha=4)
    torch.sub(x[5], x[3], alpha=5, out=b[5]).add_(x[1], alpha=4)
    torch.bmm(b.view(6, -1, weight.shape[1]), weight, out=m)
    m[1] += bias                                                       # which brings it to all four
    m = m.view(6, *y[0].shape)
    near, far = m[1] + m[2], m[3] + m[4]
    torch.add(near, far, out=y[0]).add_(m[0])
    torch.add(near, far, alpha=4, out=y[2])
    near, far = m[1].sub_(m[2]), m[3].sub_(m[4])
    torch.add(near, far, alpha=2, out=y[1])
    torch.add(near, far, alpha=8, out=y[3]).add_(m[5])
