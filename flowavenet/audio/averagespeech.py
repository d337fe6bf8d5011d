"""What speech is like, as a mel spectrogram in any convention: its average, and how recordings differ from it.

The logarithm of each band's magnitude, averaged over the frames of a recording, is taken to be normal. Its mean follows from
average speech's spectrum and the settings. Its covariance has a part that all bands share, the level; one that is alike over
some bands, the shape of the spectrum, wide for voices and rooms and narrow for harmonics; and a little of each band's own,
which is so small that the way in which bands fall on the bins of the Fourier transform shows.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from flowavenet.audio.filterbank import mel_filter_bank
from flowavenet.audio.settings import MelSettings

# Speech's average ln(amplitude / sqrt(Hz)) at points evenly spaced on HTK's mel scale from 0 to 11,025 Hz, and how much
# recordings differ from it, in nats: all at once the most probable of the mels, in six of the conventions, of 24
# recordings each of five voices (LJSpeech; Kathleen, Kerstin, Flemishguy and Nathalie of rhasspy); 2026-11-21.
_SPEECH = torch.tensor(
    [-11.42, -10.46, -9.22, -8.31, -8.56, -8.66, -8.69, -8.91, -9.28, -9.61, -9.97, -10.23, -10.37, -10.51, -10.70, -10.82,
     -10.88, -10.90, -10.93, -11.06, -11.08, -11.08, -10.97, -10.97, -11.24, -11.28, -11.23, -11.22, -11.29, -11.39, -11.57,
     -11.94, -12.23, -12.43, -12.55, -12.85, -12.88, -12.88, -12.96, -12.58, -12.50]
)  # fmt: skip
_TOP = 11025.0  # Hz
_AT_PEAK = 1.1  # what recordings brought to a common peak are above that
_LEVEL = 0.7  # of whole recordings; 0.3 for these voices, but others record otherwise
_SHAPE, _SHAPE_MELS = 0.56, 160.0  # of the spectrum's shape, and how far on the mel scale a part of it reaches
_RIPPLE, _RIPPLE_MELS, _BASS = 0.43, 40.0, 440.0  # of harmonics, which show in the bass, below so many Hz
_BAND = 0.035  # of each band on its own
_UNHEARD, _UNHEARD_WIDTH = 10900.0, 420.0  # Hz from where on, and how gradually, many recordings have nothing
_TREBLE, _IN_TREBLE = 7000.0, 1.5  # Hz from where on they differ more in shape, and by how much: some are cut there
OVER_FRAMES, _OVER_FRAMES_SPREAD = 1.6, 0.15  # how a band changes from frame to frame, and by what factor that varies


@lru_cache(maxsize=64)
def expected(settings: MelSettings) -> tuple[Tensor, Tensor]:
    """What average speech is in a convention before its logarithm: ln of magnitude, and the centre in Hz, (n_mels,) each."""
    bank = mel_filter_bank(settings)
    hz = torch.arange(settings.n_fft // 2 + 1) * (settings.sample_rate / settings.n_fft)
    position = (_mels(hz) / _mels(torch.tensor(_TOP)) * (len(_SPEECH) - 1)).clamp(max=len(_SPEECH) - 1)
    below = position.floor().clamp(max=len(_SPEECH) - 2).long()
    level = torch.lerp(_SPEECH[below], _SPEECH[below + 1], position - below)
    window = torch.hann_window(settings.win_length)
    level = level + 0.5 * math.log(settings.sample_rate * window.square().sum())
    if settings.preemphasis:
        turn = torch.cos(2 * math.pi * hz / settings.sample_rate)
        level = level + 0.5 * torch.log(1 + settings.preemphasis**2 - 2 * settings.preemphasis * turn)
    energies = bank @ torch.exp(settings.power * level)
    louder = 0.0 if settings.peak is None else _AT_PEAK
    return energies.clamp(min=1e-12).log() / settings.power + louder, bank @ hz / bank.sum(1).clamp(min=1e-12)


def rough_over_bands(mel: Tensor) -> float:
    """How much likelier (batch, bands, frames) is than (batch, frames, bands), in nats: speech is smoother along time.

    By second differences, which are larger over bands, and by how alike values four steps apart are, which are more so over
    bands. Both are about normal, for speech and for its transpose; the factors are of the recordings above.
    """
    mel = mel.double()

    def roughness(dim: int) -> float:
        return math.log(torch.diff(mel, n=2, dim=dim).square().mean().item() + 1e-9) if mel.shape[dim] > 2 else 0.0

    return 8 * (roughness(1) - roughness(2)) - 10 * (steadiness(mel, 4) - steadiness(mel.transpose(1, 2), 4))


def steadiness(mel: Tensor, frames: int = 1) -> float:
    """Correlation of values so many frames apart, about each band's mean."""
    mel = mel - mel.mean(2, keepdim=True)
    if mel.shape[2] <= frames:
        return 0.0
    return ((mel[..., frames:] * mel[..., :-frames]).mean() / mel.square().mean().clamp(min=1e-12)).item()


def likelihood(off: Tensor, unit: Tensor, centre: Tensor, frames: int) -> tuple[float, float]:
    """Log density of bands that are ``off`` average speech, in nats of ``unit`` values; and their distance from it.

    The distance is the root mean square of what ``off`` would be if all its parts were independent and of variance 1.
    """
    def near(reach: float) -> Tensor:
        return torch.exp(-0.5 * ((mels[:, None] - mels) / reach) ** 2)

    mels = _mels(centre)
    unheard = torch.sigmoid((centre - _UNHEARD) / _UNHEARD_WIDTH)
    treble = torch.sigmoid((centre - _TREBLE) / _UNHEARD_WIDTH)
    shape, own = _SHAPE + _IN_TREBLE * treble + 9.0 * unheard, _BAND + 1.4 * unheard
    ripple = _RIPPLE * (0.3 + torch.exp(-centre / _BASS))
    few = 1 + 60 / frames                                              # a short piece has what its few sounds have
    vary = near(_SHAPE_MELS) * shape[:, None] * shape + near(_RIPPLE_MELS) * ripple[:, None] * ripple
    vary = vary + torch.diag(own**2)
    vary = vary * few + _LEVEL**2
    factor = torch.linalg.cholesky(vary.double())
    white = torch.linalg.solve_triangular(factor, off.double()[:, None], upper=False).square().sum().item()
    volume = factor.diagonal().log().sum().item() + unit.abs().log().sum().item()
    return -0.5 * white - volume, math.sqrt(white / len(off))


def likelihood_of_change(ratio: Tensor, frames: int) -> tuple[float, float]:
    """Log density, but for a constant, of how much bands change from frame to frame, as a part of what they should.

    And how many deviations that is off.
    """
    spread = _OVER_FRAMES_SPREAD + 1 / math.sqrt(frames)
    off = abs(math.log(max(ratio.item(), 1e-6))) / spread
    return -0.5 * off**2, off


def in_values(mean: Tensor, settings: MelSettings, low: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean in nats of magnitude, per band -> mean as values, the values that a nat is, and the part that is above the floor.

    The first two are of values that were clamped to ``low``, which brings them nearer to each other.
    """
    unit = settings.power * {"ln": 1.0, "log10": 1 / math.log(10), "db": 20 / math.log(10)}[settings.log]
    unit = unit * torch.tensor(settings.scale).expand(settings.n_mels)
    value = unit * mean + torch.tensor(settings.offset) * torch.tensor(settings.scale)
    # max(x, low) of a normal x: its mean, and the part of x that is above
    deviation = OVER_FRAMES * unit.abs()
    above = (value - low) / deviation
    part = torch.special.ndtr(above)
    value = low + (value - low) * part + deviation * torch.exp(-0.5 * above**2) / math.sqrt(2 * math.pi)
    return value, unit * part.clamp(min=0.6), part


def _mels(hz: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + hz / 700)


def hertz(mels: Tensor) -> Tensor:
    return 700 * (10 ** (mels / 2595) - 1)
