"""Inverse autoregressive flows: WaveNets used backwards, so that they sample all samples at once.

An autoregressive flow is parallel in one direction only. Trained by likelihood it must be parallel from audio to noise, and
is then slow to sample; used the other way round, it samples at once, but the noise behind a recording, and with it the
likelihood, comes sample by sample. So it is not trained by likelihood: it learns from a teacher, a WaveNet that says of
each sample that the student makes what it would have expected there (``flowavenet distil``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from flowavenet.models.autoregressive import AutoregressiveConfig, AutoregressiveVocoder
from flowavenet.transforms import Affine, Chain, Inverse, LogisticNoise, Scaled, Transform


@dataclass(frozen=True)
class IAFConfig(AutoregressiveConfig):
    """Hold the sizes of an inverse autoregressive flow; the defaults are ClariNet's."""

    stacks: tuple[int, ...] = (1, 1, 1, 1, 1, 1)
    """Stacks of gated layers in the net of each flow, from noise to audio; as many flows as there are numbers."""
    width: int = 64
    gate_width: int = 128
    skip_width: int = 64
    kernel_size: int = 3

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "stacks", tuple(self.stacks))         # lists come from YAML


class Drawn(NamedTuple):
    """Hold a waveform and the distribution that each of its samples was drawn from, given the noise before it."""

    wave: Tensor
    mean: Tensor
    log_scale: Tensor


class IAF(AutoregressiveVocoder):
    """Make noise a waveform by a few inverse autoregressive flows: each scales and shifts every sample by what a WaveNet
    reads off the samples before it, of the signal that the flow before made.

    x_t = z_t * exp(log_scale(z_<t, cond)) + shift(z_<t, cond), several times over

    Decoding takes one pass of each net, encoding one step per sample.

    Args:
        config: see :class:`IAFConfig`.
        n_mels: mel bands.
        hop_length: samples per mel frame, any.

    Kingma et al., "Improving variational inference with inverse autoregressive flow", 2016, arXiv:1606.04934.
    """

    Config = IAFConfig
    sequential = "encode"
    logistic = False
    """Whether the noise, and so each sample given the noise before it, is logistic; else Gaussian."""
    flow: Scaled

    def __init__(self, config: IAFConfig | None = None, n_mels: int = 80, hop_length: int = 256):
        super().__init__(config or self.Config(), n_mels, hop_length)
        config = self.config
        # in the order of a chain: from audio to noise
        steps: list[Transform] = [Inverse(self._autoregressive(Affine(), stacks)) for stacks in reversed(config.stacks)]
        if self.logistic:
            steps.append(LogisticNoise())
        self.flow = Scaled(config.gain, Chain(*steps))

    def draw(self, noise: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Drawn:
        """Decode, and tell what each sample was drawn from: mean and log-scale (batch, samples) of a Gaussian or logistic.

        wave = z * exp(log_scale) + mean, with z the noise, and neither of them depends on z_t
        """
        cond, x = self._cond(mel, noise, speaker), noise
        steps = list(reversed(self.flow.inner.transforms))
        if self.logistic:
            x = steps.pop(0).inverse(x.unsqueeze(1))[0].squeeze(1)
        mean = log_scale = x.new_zeros(())
        for step in steps:
            shift, scale = step.transform.head.shift_and_log_scale(step.transform.predict(x.unsqueeze(1), cond))
            x, mean, log_scale = x * scale.exp() + shift, mean * scale.exp() + shift, log_scale + scale
        gain = self.config.gain
        return Drawn(x / gain, mean / gain, log_scale - math.log(gain))
