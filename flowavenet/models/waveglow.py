"""WaveGlow: affine couplings between groups of 8 samples and their neighbours; and SqueezeWave, the same in longer groups.

The WaveGlow that NVIDIA published, with 256 channels, is ``WaveGlowConfig()``; the paper's has ``width=512``. SqueezeWave
takes groups as long as half a mel frame and a net as cheap as that allows: ``SQUEEZEWAVE_128_256``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from flowavenet.models.base import FlowConfig, FlowVocoder
from flowavenet.nets import GlowNet, SeparableNet
from flowavenet.transforms import (
    AffineCoupling,
    Chain,
    FactorOut,
    Inverse,
    InvertibleConv1x1,
    ReceptiveField,
    Squeeze,
    Transform,
    squeeze_cond,
)

NETS = {"dilated": GlowNet, "separable": SeparableNet}


@dataclass(frozen=True)
class WaveGlowConfig(FlowConfig):
    """Hold the sizes and choices of a WaveGlow; the defaults are those of NVIDIA's checkpoints with 256 channels."""

    group: int = 8
    """Samples that are squeezed into channels, even."""
    flows: int = 12
    """Steps of mixing and coupling."""
    early_every: int = 4
    """After so many steps some channels leave as noise."""
    early_size: int = 2
    """So many of them, even."""
    net: str = "dilated"
    """What a coupling asks. ``dilated``, WaveGlow's: dilated convolutions, given the mel upsampled to samples and squeezed
    likewise; ``separable``, SqueezeWave's: depthwise and pointwise ones, given the mel frame that a group lies in."""
    layers: int = 8
    """Gated layers in each net."""
    width: int = 256
    """Channels inside each net."""
    kernel_size: int = 3
    """Groups that each layer sees, odd."""
    log_scale_limit: float | None = None
    """Soft bound on the couplings' log-scales; None, as published: no bound."""

    def __post_init__(self):
        super().__post_init__()
        if self.net not in NETS:
            raise ValueError(f"net is {self.net!r}, known are {', '.join(NETS)}")
        if self.early_every < 1:
            raise ValueError(f"early_every is {self.early_every}; channels leave after 1 step or more")
        odd = [count for count in map(self.channels, range(self.flows)) if count < 2 or count % 2]
        if odd:
            raise ValueError(
                f"group = {self.group} less early_size = {self.early_size} every {self.early_every} of {self.flows} steps "
                f"leaves a coupling {odd[0]} channels: it needs an even number of at least 2"
            )

    def channels(self, flow: int) -> int:
        """Channels that are left at step ``flow``."""
        return self.group - flow // self.early_every * self.early_size


SQUEEZEWAVE_128_256 = WaveGlowConfig(group=128, early_every=2, early_size=16, net="separable")
"""SqueezeWave as published with groups of 128 samples and 256 channels."""


class WaveGlow(FlowVocoder):
    """Make a waveform noise in groups of samples: a learned matrix mixes the samples of a group, then one half of them is
    scaled and shifted by what is read off the other half of many groups around; and so on, fewer samples each time.

    Couplings multiply on the way to noise, x_b * exp(log_scale) + shift, the other way round than FloWaveNet's.

    Args:
        config: see :class:`WaveGlowConfig`.
        n_mels: mel bands.
        hop_length: samples per mel frame; any for dilated nets, a multiple of the group for separable ones.

    Prenger, Valle, Catanzaro, "WaveGlow: a flow-based generative network for speech synthesis", 2018, arXiv:1811.00002;
    Zhai et al., "SqueezeWave: extremely lightweight vocoders for on-device speech synthesis", 2020, arXiv:2001.05685.
    """

    Config = WaveGlowConfig

    def __init__(self, config: WaveGlowConfig | None = None, n_mels: int = 80, hop_length: int = 256):
        super().__init__(config or WaveGlowConfig(), n_mels, hop_length)
        group, dilated = self.config.group, self.config.net == "dilated"
        if not dilated and hop_length % group:
            raise ValueError(
                f"hop_length is {hop_length}, no multiple of group = {group}: separable nets want each group in one mel "
                f"frame; choose a group that divides {hop_length}"
            )
        self.upsampler = nn.ConvTranspose1d(n_mels, n_mels, 4 * hop_length, hop_length) if dilated else None
        # a frame spreads over its own hop and the three after it
        self.cond_receptive_field = ReceptiveField(3, 0) if dilated else ReceptiveField(0, 0)
        self.flow = Squeeze(group, self._steps(0), bring=squeeze_cond if dilated else one_per_group)

    @property
    def group(self) -> int:
        return self.config.group

    def condition(self, mel: Tensor) -> Tensor:
        if self.upsampler is None:
            return mel.transpose(1, 2).repeat_interleave(self.hop_length // self.group, dim=1)
        return self.upsampler(mel)[..., : mel.shape[-1] * self.hop_length].transpose(1, 2).contiguous()

    def _steps(self, first: int) -> Transform:
        """Step ``first`` and all that follow, on the channels that are left by then."""
        config, channels = self.config, self.config.channels(first)
        last = min(first + config.early_every, config.flows)
        steps = [self._step(channels) for _ in range(first, last)]
        if last < config.flows:
            steps.append(FactorOut(self._steps(last), (config.early_size, channels)))
        return Chain(*steps)

    def _step(self, channels: int) -> Transform:
        config = self.config
        columns = 1 if self.upsampler is None else config.group
        net = NETS[config.net](
            channels // 2, channels, columns * (self.n_mels + config.speaker_width),
            layers=config.layers, width=config.width, kernel_size=config.kernel_size,
        )
        return Chain(InvertibleConv1x1(channels), Inverse(AffineCoupling(net, config.log_scale_limit)))


def one_per_group(cond: Tensor, n: int) -> Tensor:
    """Return a conditioning that has one column per group already, be it by chance as long as the signal."""
    return cond[..., : cond.shape[-2] // n, :]
