"""lapflow: affine couplings on the coefficients of a lapped transform, at frame rate.

FloWaveNet spends most of its work and of its weights on reading, at every sample, a mel that changes once per frame. In the
basis of an orthonormal MDCT the mel says directly how large each coefficient is, and couplings run at the rate of frames.
A change of basis is free: it is orthonormal, so that the likelihood is still that of the waveform.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from flowavenet.models.base import FlowVocoder
from flowavenet.nets import FrameNet, MelEncoder
from flowavenet.transforms import ActNorm, AffineCoupling, Chain, ConditionalScale, Lapped, Mixing


@dataclass(frozen=True)
class LapflowConfig:
    """Sizes of a lapflow."""

    bands: int = 128
    """Bands of the lapped transform, also its hop in samples."""
    steps: int = 8
    """Steps of ActNorm, mixing and coupling."""
    layers: int = 3
    """Gated layers in the net of each coupling."""
    width: int = 192
    """Channels inside each net."""
    kernel_size: int = 5
    """Frames that each layer sees, odd."""
    cond_width: int = 128
    """Features read from the mel, beside the mel itself."""
    mel_shift: float = 5.8
    """Added to the mel, and"""
    mel_scale: float = 0.5
    """then multiplied: natural-log mels of speech come to mean 0 and standard deviation 1."""
    log_scale_limit: float | None = None
    """Soft bound on the couplings' log-scales; None: no bound."""


class Lapflow(FlowVocoder):
    """A waveform made noise band by band: its MDCT is scaled by what the mel says, then refined by couplings at frame rate.

    Args:
        config: see :class:`LapflowConfig`.
        n_mels: mel bands.
        hop_length: samples per mel frame, any.
    """

    Config = LapflowConfig

    def __init__(self, config: LapflowConfig | None = None, n_mels: int = 80, hop_length: int = 256):
        super().__init__(config or LapflowConfig(), n_mels, hop_length)
        config = self.config
        cond_channels = n_mels + config.cond_width
        self.encoder = MelEncoder(n_mels, config.cond_width)

        def step() -> Chain:
            net = FrameNet(
                config.bands // 2, config.bands, cond_channels, layers=config.layers, width=config.width,
                kernel_size=config.kernel_size,
            )
            return Chain(ActNorm(config.bands), Mixing(config.bands), AffineCoupling(net, config.log_scale_limit))

        levels = nn.Conv1d(cond_channels, config.bands, 1)
        nn.init.zeros_(levels.weight)
        nn.init.zeros_(levels.bias)
        self.flow = Lapped(config.bands, Chain(ConditionalScale(levels), *(step() for _ in range(config.steps))))

    @property
    def group(self) -> int:
        return self.config.bands

    def condition(self, mel: Tensor) -> Tensor:
        steps = -(-mel.shape[-1] * self.hop_length // self.config.bands)
        return self.encoder((mel + self.config.mel_shift) * self.config.mel_scale, steps)

    def cond_reach(self) -> int:
        return self.encoder.reach()
