"""WaveNet: every sample is drawn from a distribution that a net reads off the samples before it.

Seen as a flow, this is the other extreme: exact likelihood in one parallel pass, and sampling one sample after the other.
The head says which distribution: a Gaussian, a mixture of logistics, or a histogram of mu-law steps. Whatever it is, a
sample and its noise are quantiles of each other, so that the latent is Gaussian noise as in every model here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from flowavenet.models.autoregressive import AutoregressiveConfig, AutoregressiveVocoder
from flowavenet.transforms import Gaussian, Head, LogisticMixture, MuLaw, Scaled

START = -3.0
"""Log-scale that heads start with: speech has a standard deviation of about e^-3."""


@dataclass(frozen=True)
class WaveNetConfig(AutoregressiveConfig):
    """Hold the sizes of a WaveNet; the defaults are those of ClariNet's Gaussian teacher."""

    head: str = "gaussian"
    """Distribution of a sample: gaussian, logistics (a mixture of logistic distributions), or mulaw (a histogram of 256
    steps of 8-bit mu-law)."""
    mixtures: int = 10
    """Components, of head logistics."""
    least_log_scale: float = -9.0
    """Smallest log-scale of heads gaussian and logistics: silence would make them as narrow as they are let."""
    stacks: int = 2
    """Stacks of them, one after the other."""

    def __post_init__(self):
        super().__post_init__()
        if self.head not in HEADS:
            raise ValueError(f"head is {self.head!r}, known are {', '.join(HEADS)}")
        if self.head == "mulaw" and self.gain != 1:
            raise ValueError(f"gain is {self.gain}, but the steps of head mulaw go from -1 to 1: make it 1")


HEADS = {
    "gaussian": lambda config: Gaussian(config.least_log_scale, START + math.log(config.gain)),
    "logistics": lambda config: LogisticMixture(config.mixtures, config.least_log_scale, START + math.log(config.gain)),
    "mulaw": lambda config: MuLaw(),
}


class WaveNet(AutoregressiveVocoder):
    """Make a waveform noise sample by sample, each by what was to be expected after those before it.

    Likelihood and encoding take one pass of the net, decoding one step per sample.

    Args:
        config: see :class:`WaveNetConfig`.
        n_mels: mel bands.
        hop_length: samples per mel frame, any.

    van den Oord et al., "WaveNet: a generative model for raw audio", 2016, arXiv:1609.03499; Ping, Peng, Chen, "ClariNet",
    2018, arXiv:1807.07281 (the Gaussian head).
    """

    Config = WaveNetConfig
    sequential = "decode"
    flow: Scaled

    def __init__(self, config: WaveNetConfig | None = None, n_mels: int = 80, hop_length: int = 256):
        super().__init__(config or WaveNetConfig(), n_mels, hop_length)
        config = self.config
        flow = self._autoregressive(HEADS[config.head](config), config.stacks)
        flow.net.last.bias.data.copy_(flow.head.start())
        self.flow = Scaled(config.gain, flow)

    def log_prob_samples(self, wave: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Return the exact log-density of each sample given those before it: (batch, samples), nats; without the noise."""
        gain = self.config.gain
        return self.head.log_prob(gain * wave, self.predict(wave, mel, speaker)) + math.log(gain)

    @property
    def head(self) -> Head:
        """The distribution that each sample is drawn from."""
        return self.flow.inner.head

    def predict(self, wave: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Return the parameters of the head for each sample, ``gain`` times as loud, given the samples before it: (batch,
        samples, head.size)."""
        return self.flow.inner.predict(self.config.gain * wave.unsqueeze(1), self._cond(mel, wave, speaker))
