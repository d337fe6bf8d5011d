"""Parallel WaveNet's student: an inverse autoregressive flow on logistic noise.

Given the noise before it, each sample is then logistic, which suits a teacher whose samples are mixtures of logistics.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowavenet.models.iaf import IAF, IAFConfig


@dataclass(frozen=True)
class ParallelWaveNetConfig(IAFConfig):
    """Hold the sizes of a Parallel WaveNet student; the defaults are the published ones."""

    stacks: tuple[int, ...] = (1, 1, 1, 3)
    """Four flows, of 10, 10, 10 and 30 layers."""
    gate_width: int = 64
    """Channels of each half of a gate."""


class ParallelWaveNet(IAF):
    """Make logistic noise a waveform by four inverse autoregressive flows.

    van den Oord et al., "Parallel WaveNet: fast high-fidelity speech synthesis", 2017, arXiv:1711.10433.
    """

    Config = ParallelWaveNetConfig
    logistic = True
