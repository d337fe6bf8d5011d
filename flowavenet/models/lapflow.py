"""lapflow: affine couplings on the coefficients of a lapped transform, from coarse to fine in time.

FloWaveNet spends most of its work and of its weights on reading, at every sample, a mel that changes once per frame. In the
basis of an orthonormal MDCT the mel says directly how large each coefficient is, and couplings run at the rate of frames.
A change of basis is free: it is orthonormal, so that the likelihood is still that of the waveform.

A few frames are drawn first, by couplings between bands; then the frames half-way between them, given those; and so on.
Most coefficients thus take part in one coupling only, and every frame is drawn knowing its neighbours on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from flowavenet.models.base import FlowConfig, FlowVocoder
from flowavenet.nets import DynamicFilterNet, FrameNet, MelEncoder, TimeConv
from flowavenet.transforms import (
    MDCT,
    ActNorm,
    AffineCoupling,
    Chain,
    ConditionalScale,
    FactorOut,
    Interleave,
    InvertibleConv1x1,
    ReceptiveField,
    Squeeze,
    Transform,
    pool_cond,
)


@dataclass(frozen=True)
class LapflowConfig(FlowConfig):
    """Hold the sizes of a lapflow."""

    bands: int = 256
    """Bands of the lapped transform, also its hop in samples."""
    window: str = "sine"
    """Of that transform: sine or kbd; none: no transform but a plain squeeze in time, as WaveGlow's, to compare with."""
    levels: int = 2
    """Times that every other frame is predicted from the rest: only one frame in 2^levels takes the steps."""
    steps: int = 4
    """Steps of ActNorm, mixing and coupling between bands, for the frames that are left."""
    detail_steps: int = 0
    """Such steps for the frames that are predicted, after their prediction, at each level."""
    detail_width: int = 128
    """Channels inside the nets of those."""
    layers: int = 3
    """Gated layers in the net of each coupling."""
    width: int = 256
    """Channels inside each net."""
    kernel_size: int = 5
    """Frames that each layer sees, odd unless causal."""
    filter_frames: int = 2
    """Frames around a predicted one that are filtered, even."""
    filter_spread: int | None = 2
    """Bands to either side that are filtered; None: no filters."""
    cond_width: int = 128
    """Features read from the mel, beside the mel itself."""
    cond_layers: int = 3
    """Convolutions that read them."""
    mel_shift: float = 5.8
    """Added to the mel, and"""
    mel_scale: float = 0.5
    """then multiplied: natural-log mels of speech come to mean 0 and standard deviation 1."""
    causal: bool = False
    """Nets and predictions look only backwards in time: what follows a sample is needed for a few frames only, so that a
    stream can begin at once."""
    log_scale_limit: float | None = 3.0
    """Soft bound on the couplings' log-scales; None: no bound."""


class Lapflow(FlowVocoder):
    """Make a waveform noise frame by frame: its MDCT is scaled by what the mel says; then every other frame is whitened
    given the frames around it, level by level; and couplings between bands whiten the few that are left.

    Args:
        config: see :class:`LapflowConfig`.
        n_mels: mel bands.
        hop_length: samples per mel frame, any.
    """

    Config = LapflowConfig

    def __init__(self, config: LapflowConfig | None = None, n_mels: int = 80, hop_length: int = 256):
        super().__init__(config or LapflowConfig(), n_mels, hop_length)
        config = self.config
        cond_channels = n_mels + config.cond_width + config.speaker_width
        self.encoder = MelEncoder(n_mels, config.cond_width, config.cond_layers, causal=config.causal)
        between = int(hop_length != config.bands)                       # then columns are interpolated
        self.cond_receptive_field = ReceptiveField(*self.encoder.receptive_field) + (between, between)
        levels = TimeConv(cond_channels, config.bands, 1)
        nn.init.zeros_(levels.weight)
        nn.init.zeros_(levels.bias)
        frames = Chain(ConditionalScale(levels), self._frames(config.levels))
        plain = config.window == "none"
        self.flow = Squeeze(config.bands, frames) if plain else MDCT(config.bands, frames, config.window)

    def _frames(self, levels: int) -> Transform:
        """Map frames (batch, bands, time) to noise: every other one given its neighbours, level by level; then steps."""
        config, bands = self.config, self.config.bands
        cond_channels = self.n_mels + config.cond_width + config.speaker_width
        net = {"layers": config.layers, "kernel_size": config.kernel_size, "causal": config.causal}

        def steps(count: int, width: int) -> Chain:
            nets = [FrameNet(bands // 2, bands, cond_channels, width=width, **net) for _ in range(count)]
            limit = config.log_scale_limit
            return Chain(*(Chain(ActNorm(bands), InvertibleConv1x1(bands), AffineCoupling(one, limit)) for one in nets))

        if levels:
            predict = DynamicFilterNet(
                bands, cond_channels, frames=config.filter_frames, spread=config.filter_spread, width=config.width, **net
            )
            inside: list[Transform] = [AffineCoupling(predict, config.log_scale_limit)]
            if config.detail_steps:
                inside.append(FactorOut(steps(config.detail_steps, config.detail_width), (bands, 2 * bands)))
            inside.append(FactorOut(self._frames(levels - 1), (0, bands)))
            return Chain(ActNorm(bands), Interleave(2, Chain(*inside), pool_cond))
        return steps(config.steps, config.width)

    @property
    def group(self) -> int:
        return self.config.bands * 2**self.config.levels

    def condition(self, mel: Tensor) -> Tensor:
        steps = -(-mel.shape[-1] * self.hop_length // self.config.bands)
        return self.encoder((mel + self.config.mel_shift) * self.config.mel_scale, steps)
