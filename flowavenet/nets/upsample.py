"""From mel frames to one conditioning vector per sample."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from flowavenet.nets.base import wide


class MelUpsampler(nn.Module):
    """Stretch a mel spectrogram in time by learned interpolation, until it has one column per sample.

    One transposed 2-D convolution per factor, three bands high and two steps wide, each followed by a leaky ReLU. It starts
    as linear interpolation, so that the mel arrives from the first step on; published, it starts at random.

    Args:
        hop_length: samples per frame. Its two factors closest to each other become the strides (256: 16 and 16).

    Attributes:
        receptive_field: frames before and after its own that one sample can depend on: one step of each layer's input.

    Shape: mel (batch, n_mels, frames) -> (batch, frames * hop_length, n_mels).
    Kim et al., "FloWaveNet: a generative flow for raw audio", 2019, arXiv:1811.02155, section 3.5.
    """

    def __init__(self, hop_length: int):
        super().__init__()
        self.strides = balanced_factors(hop_length)
        self.receptive_field = len(self.strides), len(self.strides)
        self.layers = nn.ModuleList(
            weight_norm(
                nn.ConvTranspose2d(
                    1, 1,
                    # an odd stride needs an odd kernel for exactly `stride` times the length
                    kernel_size=(3, 2 * stride - stride % 2), stride=(1, stride), padding=(1, stride // 2),
                )
            )
            for stride in self.strides
        )
        with torch.no_grad():
            for layer, stride in zip(self.layers, self.strides, strict=True):
                kernel = torch.zeros(1, 1, 3, 2 * stride - stride % 2)
                kernel[0, 0, 1] = triangle(stride)
                layer.weight = kernel
                layer.bias.zero_()

    def forward(self, mel: Tensor) -> Tensor:
        cond = mel.unsqueeze(1).to(self.layers[0].bias.dtype)          # (batch, 1, n_mels, frames)
        for layer in self.layers:
            cond = F.leaky_relu(layer(cond), 0.4, inplace=True)
        # strides along the last dimension are the fast ones; to turn the result costs less than strides along another
        return wide(cond.squeeze(1).transpose(1, 2)).contiguous()


def triangle(stride: int) -> Tensor:
    """Weights that interpolate linearly between two steps, ``stride`` samples apart: those of a sample add up to 1.

    >>> triangle(2)
    tensor([0.2500, 0.7500, 0.7500, 0.2500])
    """
    centre = stride - 0.5 - stride % 2 / 2
    taps = torch.arange(2 * stride - stride % 2)
    return 1 - (taps - centre).abs() / stride


def balanced_factors(n: int) -> list[int]:
    """Two factors of ``n`` as close to each other as can be, the larger first; ``[n]`` if it is prime.

    >>> balanced_factors(256), balanced_factors(300), balanced_factors(257)
    ([16, 16], [20, 15], [257])
    """
    small = next(k for k in range(math.isqrt(n), 0, -1) if n % k == 0)
    return [n // small, small] if small > 1 else [n]
