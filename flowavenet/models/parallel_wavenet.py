"""Parallel WaveNet's student: the inverse autoregressive flow of :mod:`~flowavenet.models.clarinet`, on logistic noise.

Given the noise before it, each sample is then logistic, which suits a teacher whose samples are mixtures of logistics.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowavenet.models.clarinet import GaussianIAF, IAFConfig


@dataclass(frozen=True)
class ParallelWaveNetConfig(IAFConfig):
    """Sizes of a Parallel WaveNet student; the defaults are the published ones."""

    noise: str = "logistic"
    stacks: tuple[int, ...] = (1, 1, 1, 3)
    """Four flows, of 10, 10, 10 and 30 layers."""
    gate_width: int = 64


class ParallelWaveNet(GaussianIAF):
    """Logistic noise made a waveform by four inverse autoregressive flows.

    van den Oord et al., "Parallel WaveNet: fast high-fidelity speech synthesis", 2017, arXiv:1711.10433.
    """

    Config = ParallelWaveNetConfig
