"""What a WaveNet and the flows that are WaveNets used backwards have in common: a causal net at the rate of samples."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flowavenet.models.base import FlowConfig, FlowVocoder
from flowavenet.nets import MelUpsampler, WaveNet
from flowavenet.transforms import Autoregressive, Head, ReceptiveField


@dataclass(frozen=True)
class AutoregressiveConfig(FlowConfig):
    """Hold the sizes of the nets, and the levels of what they are given."""

    layers: int = 10
    """Gated layers of a stack; layer i has dilation 2^i."""
    width: int = 128
    """Channels between layers."""
    gate_width: int = 256
    """Channels of each half of a gate."""
    skip_width: int = 128
    """Channels of what all layers add up."""
    kernel_size: int = 2
    """Taps of the dilated convolutions."""
    front_size: int = 32
    """Taps of the first convolution."""
    gain: float = 1.0
    """The waveform is taken so many times as loud: nets learn best from numbers around one. 1 suits recordings that are
    normalised to full scale, 10 speech as it is recorded."""
    mel_shift: float = 0.0
    """Added to the mel, and"""
    mel_scale: float = 1.0
    """then multiplied: brings the mels of a convention near mean 0 and standard deviation 1."""


class AutoregressiveVocoder(FlowVocoder):
    """Build a model whose nets read the samples before each one, and the mel stretched to the rate of samples."""

    Config: type[AutoregressiveConfig]

    def __init__(self, config: AutoregressiveConfig, n_mels: int, hop_length: int):
        super().__init__(config, n_mels, hop_length)
        self.upsampler = MelUpsampler(hop_length)
        self.cond_receptive_field = ReceptiveField(*self.upsampler.receptive_field)

    def _autoregressive(self, head: Head, stacks: int) -> Autoregressive:
        """A transform with this head and a net of so many stacks."""
        config = self.config
        net = WaveNet(
            head.channels, head.size, self.n_mels + config.speaker_width, layers=config.layers, stacks=stacks,
            width=config.width, gate_width=config.gate_width, skip_width=config.skip_width,
            kernel_size=config.kernel_size, front_size=config.front_size, causal=True,
        )
        return Autoregressive(net, head)

    @property
    def group(self) -> int:
        return 1

    def condition(self, mel: Tensor) -> Tensor:
        return self.upsampler((mel + self.config.mel_shift) * self.config.mel_scale)
