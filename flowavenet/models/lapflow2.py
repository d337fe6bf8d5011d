"""lapflow: a flow in frames of MDCT coefficients that knows pitch.

From audio to noise (from noise to audio, the same backwards):

1. An MDCT of 256 bands turns the waveform into frames, each band is divided by the level that the mel says, and the radius
   of small groups of bands is stretched to that of Gaussian noise.
2. The frames become eight waveforms, 1378 Hz of the spectrum each: the subbands.
3. Octave by octave - subband 0, then 1, then 2-3, then 4-7 - each subband is predicted from its past, a pitch period ago;
   what is left is scaled and stretched once more; and it is shifted and scaled by a net that hears all waveforms below,
   and finds the pulses of the voice there. Subband 0 has no waveform below it; its even and odd samples change each other.

All this is exact and cheap: bases are orthonormal, the prediction is triangular, the rest has its log-det in closed form.
The lag of subband 0 is read off the mel, that of the other ones off subband 0, which is there when they are drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowavenet.models.base import FlowConfig, FlowVocoder
from flowavenet.nets.lags import MelLags, WaveLags, taps
from flowavenet.nets.signalnet import FrameEncoder, SignalNet, apart, side_by_side
from flowavenet.transforms import (
    MDCT,
    AffineCoupling,
    Chain,
    ConditionalAffine,
    ConditionalScale,
    Octaves,
    PitchPrediction,
    RadialStretch,
    ReceptiveField,
    Squeeze,
    Subbands,
    SwapHalves,
    Transform,
)


@dataclass(frozen=True)
class Lapflow2Config(FlowConfig):
    """Hold the sizes of a lapflow."""

    sample_rate: float = 22050.0
    """Hz; the periods that pitch prediction looks for depend on it."""
    f_min: float = 0.0
    """Hz, and"""
    f_max: float = 8000.0
    """Hz: ends of the mel's bands, on Slaney's scale, to find harmonics in it."""
    subbands: int = 8
    """Signals that the spectrum is cut into."""
    bins: int = 32
    """MDCT coefficients of a subband in a frame; subbands * bins is the hop of the MDCT."""
    octaves: tuple[int, ...] = (1, 2, 4, 8)
    """Last subband + 1 of each octave."""
    radial_bins: tuple[int, ...] = (16, 4)
    """Coefficients of the groups whose radius is stretched, one after the other, before and after the prediction."""
    encoder_width: int = 256
    """Features read off the mel."""
    encoder_layers: int = 4
    """Blocks of the net that reads them."""
    width: tuple[int, ...] = (128, 128, 128)
    """Channels of the net of each octave but the first."""
    layers: tuple[int, ...] = (3, 3, 3)
    """Blocks of those nets."""
    fold: int = 4
    """Samples of a subband that these nets read at one position."""
    low_fold: int = 4
    """Even, or odd, samples of subband 0 that a net between them reads at one position."""
    low_width: int = 96
    """Channels of those nets."""
    low_layers: int = 3
    """Blocks of those nets."""
    low_steps: int = 2
    """Couplings between even and odd samples."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("octaves", "radial_bins", "width", "layers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come from YAML
        above = len(self.octaves) - 1
        if self.octaves[-1] != self.subbands or (len(self.width), len(self.layers)) != (above, above):
            raise ValueError(
                f"octaves is {list(self.octaves)}, subbands {self.subbands}, width {list(self.width)}, layers "
                f"{list(self.layers)}: octaves must end with subbands, and every one but the first has a width and layers"
            )


class Lapflow2(FlowVocoder):
    """Make a waveform noise in eight subbands, each predicted from its past and from the subbands below it.

    Args:
        config: see :class:`Lapflow2Config`.
        n_mels: mel bands.
        hop_length: samples per mel frame; subbands * bins, as the frames of the mel are those of the MDCT.
    """

    Config = Lapflow2Config

    def __init__(self, config: Lapflow2Config | None = None, n_mels: int = 80, hop_length: int = 256):
        super().__init__(config or Lapflow2Config(), n_mels, hop_length)
        config = self.config
        bands = config.subbands * config.bins
        if hop_length != bands:
            raise ValueError(f"hop_length is {hop_length}, subbands * bins is {bands}: a lapflow wants both the same")
        self.encoder = FrameEncoder(n_mels, config.encoder_width, config.encoder_layers)
        self.cond_receptive_field = ReceptiveField(*self.encoder.receptive_field)
        self._features = n_mels, n_mels + config.encoder_width + config.speaker_width       # where they lie in a column
        edges = (0, *config.octaves)
        octaves = [self._octave(k, first, last) for k, (first, last) in enumerate(zip(edges, config.octaves, strict=False))]
        sizes = [last - first for first, last in zip(edges, config.octaves, strict=False)]
        context = [(0, 0), *(self._context(octave) for octave in octaves[1:])]
        self.flow = MDCT(bands, Chain(
            ConditionalScale(self._level(bands, -5.5, 7.0)),
            *self._stretches(bands),
            Subbands(config.subbands, config.bins, Octaves(octaves, sizes, config.bins, context)),
        ))

    def _octave(self, k: int, first: int, last: int) -> Transform:
        """Map the waveforms of subbands first ... last - 1 to noise, given those below."""
        config, bins, count = self.config, self.config.bins, last - first
        rate = config.sample_rate / config.subbands
        width = self._features[1] - self._features[0]
        whiten = MDCT(bins, Chain(ConditionalScale(self._level(count * bins, 0.0, 3.0)), *self._stretches(count * bins)))
        if k == 0:
            lags: nn.Module = OfMel(MelLags(_centres(config, self.n_mels), width, rate), self._features)
            couplings: list[Transform] = []
            for step in range(config.low_steps):
                net = SignalNet(
                    config.low_fold, 2 * config.low_fold, width,
                    width=config.low_width, layers=config.low_layers, positions=bins // 2 // config.low_fold,
                )
                coupling = AffineCoupling(OfFeatures(HearHalf(net, config.low_fold), self._features), limit=2.0)
                couplings.append(SwapHalves(coupling) if step % 2 else coupling)
            rest: Transform = Squeeze(2, Chain(*couplings))
        else:
            lags = OfWaves(WaveLags((first, last), width, rate, bins), self._features, bins)
            net = SignalNet(
                first * config.fold, 2 * count * config.fold, width,
                width=config.width[k - 1], layers=config.layers[k - 1], positions=bins // config.fold,
            )
            rest = ConditionalAffine(HearBelow(net, config.fold, self._features, bins), limit=2.0)
        return Chain(PitchPrediction(lags, bins, taps(rate)), whiten, rest)

    def _level(self, channels: int, centre: float, limit: float) -> nn.Module:
        return OfFeatures(Bounded(nn.Linear(self._features[1] - self._features[0], channels), centre, limit), self._features)

    def _stretches(self, channels: int) -> list[Transform]:
        width = self._features[1] - self._features[0]
        nets = [zeroed(nn.Linear(width, 2 * channels // size)) for size in self.config.radial_bins]
        pairs = zip(nets, self.config.radial_bins, strict=True)
        return [RadialStretch(OfFeatures(net, self._features), size) for net, size in pairs]

    @staticmethod
    def _context(octave: Chain) -> tuple[int, int]:
        """Return the frames around a frame whose waveforms below an octave hears."""
        prediction, _, affine = octave.transforms
        fields = prediction.net.receptive_field, affine.net.receptive_field
        return max(field[0] for field in fields), max(field[1] for field in fields)

    @property
    def group(self) -> int:
        return self.config.subbands * self.config.bins

    def condition(self, mel: Tensor) -> Tensor:
        frames = mel.transpose(1, 2)
        return torch.cat([frames, self.encoder(frames).to(frames.dtype)], dim=-1)


class OfFeatures(nn.Module):
    """Let a net see only the learned features: ``net(features)`` or, in a coupling, ``net(x, features)``."""

    def __init__(self, net: nn.Module, part: tuple[int, int]):
        super().__init__()
        self.net = net
        self.part = slice(*part)
        self.receptive_field = getattr(net, "receptive_field", (0, 0))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(*inputs[:-1], inputs[-1][..., self.part])


class OfMel(nn.Module):
    """Let a net see the mel and the features: ``net(mel, features)``."""

    def __init__(self, net: nn.Module, part: tuple[int, int]):
        super().__init__()
        self.net = net
        self.part = part
        self.receptive_field = net.receptive_field

    def forward(self, cond: Tensor) -> Tensor:
        first, last = self.part
        return self.net(cond[..., :first], cond[..., first:last])


class OfWaves(nn.Module):
    """Let a net hear the lowest waveform and see the features: ``net(wave, features)``."""

    def __init__(self, net: nn.Module, part: tuple[int, int], hop: int):
        super().__init__()
        self.net = net
        self.part = slice(*part)
        self.hop = hop
        self.receptive_field = net.receptive_field

    def forward(self, cond: Tensor) -> Tensor:
        wave = cond[..., self.part.stop : self.part.stop + self.hop].flatten(1)
        return self.net(wave, cond[..., self.part])


class HearBelow(nn.Module):
    """Let a signal net hear all waveforms below, ``fold`` samples at a position, and see the features.

    Shape: cond (batch, frames, ... + channels * hop) -> (batch, frames * hop, out_channels / fold).
    """

    def __init__(self, net: SignalNet, fold: int, part: tuple[int, int], hop: int):
        super().__init__()
        self.net = net
        self.fold = fold
        self.part = slice(*part)
        self.hop = hop
        # in frames; a frame's features are mixed with its neighbours'
        self.receptive_field = tuple(-(-side // net.positions) + 1 for side in net.receptive_field)

    def forward(self, cond: Tensor) -> Tensor:
        below = cond[..., self.part.stop :].unflatten(-1, (-1, self.hop)).transpose(1, 2).flatten(2)
        out = self.net(side_by_side(calm(below, 30.0) * 0.5, self.fold), cond[..., self.part])
        return apart(out, self.fold, (out.shape[-1] // self.fold,)).transpose(1, 2)


class Bounded(nn.Module):
    """Keep what a linear layer, which starts at zero, says within +-limit of a centre: centre + limit tanh(out / limit)."""

    def __init__(self, linear: nn.Linear, centre: float, limit: float):
        super().__init__()
        self.linear = zeroed(linear)
        self.centre, self.limit = centre, limit

    def forward(self, cond: Tensor) -> Tensor:
        return self.centre + self.limit * torch.tanh(self.linear(cond) / self.limit)


class HearHalf(nn.Module):
    """Let a signal net in a coupling of two channels hear one of them, ``fold`` samples at a position.

    What it hears is kept within +-20, which noise never exceeds but other inputs may.

    Shape: x (batch, time, 1), cond (batch, frames, channels) -> (batch, time, 2): shift and log-scale of the other channel.
    """

    def __init__(self, net: SignalNet, fold: int):
        super().__init__()
        self.net = net
        self.fold = fold
        self.receptive_field = tuple((side + 1) * fold for side in net.receptive_field)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        out = self.net(calm(x, 20.0).reshape(len(x), -1, self.fold), cond)
        return out.unflatten(-1, (2, self.fold)).transpose(2, 3).flatten(1, 2)


def calm(x: Tensor, most: float) -> Tensor:
    return x.clamp(-most, most)


def zeroed(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _centres(config: Lapflow2Config, n_mels: int) -> Tensor:
    """Return the centre frequencies of the mel bands on Slaney's scale, Hz: linear to 1 kHz, logarithmic above."""
    step = math.log(6.4) / 27

    def to_mel(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) / step

    mels = torch.linspace(to_mel(config.f_min), to_mel(config.f_max), n_mels + 2, dtype=torch.float64, device="cpu")[1:-1]
    return torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * step))
