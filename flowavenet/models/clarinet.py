"""ClariNet's student: an inverse autoregressive flow on Gaussian noise.

Given the noise before it, each sample is then Gaussian, and how far that is from what a Gaussian WaveNet expects there has a
closed form.
"""

from __future__ import annotations

from flowavenet.models.iaf import IAF


class GaussianIAF(IAF):
    """Make Gaussian noise a waveform by six inverse autoregressive flows.

    Ping, Peng, Chen, "ClariNet: parallel wave generation in end-to-end text-to-speech", 2018, arXiv:1807.07281.
    """
