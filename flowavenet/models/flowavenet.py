"""FloWaveNet: affine couplings on the waveform itself, squeezed step by step.

The published model is ``FloWaveNetConfig()``. The first published version, with one scale and no learned prior, is
``FloWaveNetConfig(blocks_per_split=8)``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from flowavenet.models.base import FlowConfig, FlowVocoder
from flowavenet.nets import CondHalf, CondWhole, MelUpsampler, WaveNet
from flowavenet.transforms import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    FactorOut,
    ReceptiveField,
    Squeeze,
    SwapHalves,
    Transform,
    pool_cond,
    squeeze_cond,
)

PRIOR_LAYERS = 2


@dataclass(frozen=True)
class FloWaveNetConfig(FlowConfig):
    """Hold the sizes and choices of a FloWaveNet; the defaults are the published ones."""

    blocks: int = 8
    """Context blocks; each squeezes time by 2, so that the last one works on groups of 2^blocks samples."""
    flows: int = 6
    """Steps of ActNorm and coupling in each block."""
    blocks_per_split: int = 4
    """After so many blocks one half of the channels is made noise by a learned prior; not after the last block."""
    coupling: str = "affine"
    """``affine``: shift and scale; ``additive``: shift only."""
    conditioning: str = "halved"
    """What a flow sees of the mel. ``halved``, as published: even flows the lower half of the bands, odd flows the
    upper, at every sample of a group; ``full``: all bands at every sample; ``pooled``: all bands, averaged over each
    group, which costs a fraction of the weights and of the time."""
    layers: int = 2
    """Gated layers in each coupling's WaveNet; layer i has dilation dilation_base^i. Priors always have two."""
    width: int = 256
    """Channels inside each WaveNet of the first block."""
    width_growth: float = 1.0
    """Factor on the width from one block to the next; 1 as published. Each block runs at half the rate of the one
    before, so that a factor up to 1.4 costs less time than the block before."""
    kernel_size: int = 3
    """Taps of its dilated convolutions."""
    dilation_base: int = 2
    """2 as in the last published version; the first had 3."""
    mel_shift: float = 0.0
    """Added to the mel; the published mels lie in [0, 1] and need none."""
    mel_scale: float = 1.0
    """Then multiplied: with the shift, brings the mels of a convention near mean 0 and standard deviation 1. Far from
    that, the gates of every coupling start saturated."""
    causal: bool = False
    """Convolutions look only backwards in time (the paper's ablation)."""
    log_scale_limit: float | None = None
    """Soft bound on the couplings' log-scales; None, as published: no bound."""

    def __post_init__(self):
        super().__post_init__()
        if self.blocks * self.flows % 2:
            raise ValueError(
                f"blocks = {self.blocks} and flows = {self.flows} are both odd: the published code cannot invert that "
                f"(it says nothing and returns a wrong waveform); make one of them even"
            )
        for name, known in (("coupling", ("affine", "additive")), ("conditioning", ("halved", "full", "pooled"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, known are {', '.join(known)}")


class FloWaveNet(FlowVocoder):
    """Make a waveform noise by couplings between even and odd samples, at eight time scales one inside the other.

    Block i squeezes time by two and applies ``flows`` steps of [ActNorm, coupling], each acting on the other half of
    the channels; after every ``blocks_per_split`` blocks one half leaves, standardised by a prior that reads the
    half that stays.

    Args:
        config: see :class:`FloWaveNetConfig`.
        n_mels: mel bands; even if the conditioning is halved.
        hop_length: samples per mel frame, any.

    Kim, Lee, Song, Kim, Yoon, "FloWaveNet: a generative flow for raw audio", ICML 2019, arXiv:1811.02155.
    """

    Config = FloWaveNetConfig

    def __init__(self, config: FloWaveNetConfig | None = None, n_mels: int = 80, hop_length: int = 256):
        super().__init__(config or FloWaveNetConfig(), n_mels, hop_length)
        if self.config.conditioning == "halved" and n_mels % 2:
            raise ValueError(f"n_mels is {n_mels}; halved conditioning needs an even number, or conditioning: full")
        self.upsampler = MelUpsampler(hop_length)
        self.cond_receptive_field = ReceptiveField(*self.upsampler.receptive_field)
        self.flow = self._block(0, channels=2)

    @property
    def group(self) -> int:
        return 2**self.config.blocks

    def condition(self, mel: Tensor) -> Tensor:
        cond = self.upsampler((mel + self.config.mel_shift) * self.config.mel_scale)
        if self.config.conditioning != "halved":
            return cond
        return cond.unflatten(-1, (2, -1)).transpose(1, 2).contiguous()     # (batch, 2, samples, n_mels / 2)

    def _block(self, index: int, channels: int) -> Transform:
        """Block ``index`` and, inside it, all that follow; ``channels`` counts those after its squeeze."""
        config = self.config
        steps = [self._step(index, flow, channels) for flow in range(config.flows)]
        if index + 1 < config.blocks:
            inside = self._rest(index, channels)
            # the published steps swap the halves after every flow: an odd number leaves them swapped for what follows
            steps.append(SwapHalves(inside) if config.flows % 2 else inside)
        return Squeeze(2, Chain(*steps), bring=pool_cond if config.conditioning == "pooled" else squeeze_cond)

    def _rest(self, index: int, channels: int) -> Transform:
        """What follows block ``index``: the next block, on half of the channels if the model splits here."""
        if (index + 1) % self.config.blocks_per_split:
            return self._block(index + 1, 2 * channels)
        halved = self.config.conditioning == "halved"
        cond = self.n_mels + (1 + halved) * self.config.speaker_width
        net: nn.Module = self._wavenet(index, channels // 2, channels, cond, PRIOR_LAYERS)
        if halved:
            net = CondWhole(net)
        prior = AffineCoupling(net, self.config.log_scale_limit)
        return Chain(prior, FactorOut(self._block(index + 1, channels), (0, channels // 2)))

    def _step(self, index: int, flow: int, channels: int) -> Transform:
        halved = self.config.conditioning == "halved"
        affine = self.config.coupling == "affine"
        cond = (self.n_mels // 2 if halved else self.n_mels) + self.config.speaker_width
        outputs = channels if affine else channels // 2
        net: nn.Module = self._wavenet(index, channels // 2, outputs, cond, self.config.layers)
        if halved:
            net = CondHalf(net, (index * self.config.flows + flow) % 2)
        coupling = AffineCoupling(net, self.config.log_scale_limit) if affine else AdditiveCoupling(net)
        step = Chain(ActNorm(channels), coupling)
        return SwapHalves(step) if flow % 2 else step

    def _wavenet(self, index: int, in_channels: int, out_channels: int, cond: int, layers: int) -> WaveNet:
        config = self.config
        cond_channels = cond if config.conditioning == "pooled" else cond * 2 ** (index + 1)
        # grown in eights, which is what vector units like
        width = config.width + 8 * round(config.width * (config.width_growth**index - 1) / 8)
        return WaveNet(
            in_channels, out_channels, cond_channels, layers=layers, width=width,
            kernel_size=config.kernel_size, dilation_base=config.dilation_base, causal=config.causal,
        )
