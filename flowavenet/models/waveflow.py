"""WaveFlow: autoregressive over the few samples of a group, parallel over the many groups.

The published model is ``WaveFlowConfig()``, 5.9 M weights; the larger one is ``WaveFlowConfig(width=128)``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flowavenet.models.base import FlowConfig, FlowVocoder
from flowavenet.nets import MelUpsampler, RowNet
from flowavenet.transforms import Chain, ReceptiveField, ReverseGroups, RowAutoregressive, Squeeze, Transform


@dataclass(frozen=True)
class WaveFlowConfig(FlowConfig):
    """Hold the sizes of a WaveFlow; the defaults are the published ones."""

    rows: int = 16
    """Samples per group, even: the height of the picture that the waveform is squeezed into (the paper's h). Synthesis takes
    rows - 1 steps per flow, one after the other; published are 8, 16, 32 and 64. As many as samples: a WaveNet."""
    flows: int = 8
    """Transforms, one after the other."""
    layers: int = 8
    """Gated layers of each flow's net; layer i has dilation 2^i over the columns of the picture."""
    width: int = 64
    """Channels inside each net; also published: 96, 128 and 256."""

    def __post_init__(self):
        super().__post_init__()
        if self.rows < 2 or self.rows % 2:
            raise ValueError(f"rows is {self.rows}; halves of it are turned, so make it even")


class WaveFlow(FlowVocoder):
    """Make a waveform noise row by row: every 16th sample as it is, then each row given those above it, eight times over.

    Every other flow takes the rows in another order: backwards in the first half of the flows, with either half backwards
    in the second half, so that no sample stays as it is.

    A row of the inverse depends on the columns around it in all rows above: the exact :attr:`receptive_field` is long (22 s
    at the published sizes, though little is heard of what is far away), and streams need so much context.

    Args:
        config: see :class:`WaveFlowConfig`.
        n_mels: mel bands.
        hop_length: samples per mel frame, any.

    Ping, Peng, Zhao, Song, "WaveFlow: a compact flow-based model for raw audio", ICML 2020, arXiv:1912.01219.
    """

    Config = WaveFlowConfig

    def __init__(self, config: WaveFlowConfig | None = None, n_mels: int = 80, hop_length: int = 256):
        super().__init__(config or WaveFlowConfig(), n_mels, hop_length)
        self.upsampler = MelUpsampler(hop_length)
        self.cond_receptive_field = ReceptiveField(*self.upsampler.receptive_field)
        self.flow = Chain(*(self._flow(index) for index in range(self.config.flows)))

    def _flow(self, index: int) -> Transform:
        config = self.config
        net = RowNet(config.rows, self.n_mels + config.speaker_width, layers=config.layers, width=config.width)
        flow = Squeeze(config.rows, RowAutoregressive(net))
        # published, all rows are turned after each flow of the first half, and either half of them after the others
        half = config.flows // 2
        if min(index, half) % 2:
            flow = ReverseGroups(config.rows, flow)
        if max(0, index - half) % 2:
            flow = ReverseGroups(config.rows // 2, flow)
        return flow

    @property
    def group(self) -> int:
        return self.config.rows

    def condition(self, mel: Tensor) -> Tensor:
        return self.upsampler(mel)
