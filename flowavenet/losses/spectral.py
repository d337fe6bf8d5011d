"""Losses between spectra: what a waveform should sound like, whatever its phase.

Likelihoods judge a waveform sample by sample, and a student trained by them alone may whisper. These compare powers and
magnitudes of its short-time Fourier transform with those of a recording. Waves are (batch, samples); every loss is one
number, float32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowavenet.losses.precision import wide

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""(FFT size, hop, window) in samples at about 24 kHz."""
MAGNITUDE_FLOOR = 1e-7**0.5
"""Magnitudes below it, -70 dB, count as silence where their logarithm or their ratio is taken."""
WINDOWS = {"hann": torch.hann_window, "rectangular": torch.ones}


def stft_magnitude(
    wave: Tensor, n_fft: int = 1024, hop: int = 256, win_length: int | None = None, window: str = "hann"
) -> Tensor:
    """How strong every frequency is at every time: |STFT|.

    Frames are centred on multiples of ``hop``; the ends of the wave are mirrored.

    Args:
        wave: (batch, samples), more than n_fft / 2 of them.
        n_fft, hop, win_length: in samples; ``win_length`` None is ``n_fft``.
        window: one of ``WINDOWS``.

    Returns:
        (batch, n_fft / 2 + 1, samples / hop + 1), both rounded down.

    Raises:
        ValueError: for a wave that is too short, or a window that is not known.
    """
    samples = wave.shape[-1]
    if samples <= n_fft // 2:
        raise ValueError(
            f"{samples} samples are too few for an FFT of {n_fft}: take more than {n_fft // 2}, or a smaller FFT"
        )
    wave = wide(wave)
    shape = _window(window, win_length or n_fft, wave)
    return torch.stft(wave, n_fft, hop, win_length, shape, pad_mode="reflect", return_complex=True).abs()


def stft_loss(
    wave: Tensor,
    target: Tensor,
    n_fft: int = 1024,
    hop: int = 256,
    win_length: int | None = None,
    window: str = "rectangular",
) -> Tensor:
    """Mean squared difference of magnitudes: mean (|STFT(wave)| - |STFT(target)|)^2.

    As the published ClariNet trains with weight 1, without a window. A Hann window leaks less, and gives 3/8 of that for
    white noise.
    """
    a, b = _magnitudes(wave, target, n_fft, hop, win_length, window)
    return (a - b).square().mean()


def log_stft_loss(
    wave: Tensor, target: Tensor, n_fft: int = 1024, hop: int = 256, win_length: int | None = None, window: str = "hann"
) -> Tensor:
    """Mean distance of log-magnitudes: mean |ln |STFT(wave)| - ln |STFT(target)||, with a floor of ``MAGNITUDE_FLOOR``.

    Weighs quiet frequencies like loud ones; a wave of twice the level is ln 2 away.
    """
    return _log_distance(*_magnitudes(wave, target, n_fft, hop, win_length, window, MAGNITUDE_FLOOR))


def spectral_convergence(
    wave: Tensor, target: Tensor, n_fft: int = 1024, hop: int = 256, win_length: int | None = None, window: str = "hann"
) -> Tensor:
    """Size of the difference of magnitudes against that of the target: || |A| - |B| || / || |B| ||.

    The norms are those of the whole batch, so that a silent item is not divided by nothing.
    """
    return _convergence(*_magnitudes(wave, target, n_fft, hop, win_length, window, MAGNITUDE_FLOOR))


def multi_resolution_stft_loss(
    wave: Tensor,
    target: Tensor,
    resolutions: Sequence[tuple[int, int, int]] = RESOLUTIONS,
    window: str = "hann",
) -> Tensor:
    """Spectral convergence plus distance of log-magnitudes, averaged over several sizes of window.

    A single size could be fooled by artefacts that it does not resolve.

    Args:
        resolutions: (n_fft, hop, win_length) each.

    Yamamoto, Song, Kim, "Parallel WaveGAN", 2020, arXiv:1910.11480, section 2.2.
    """
    total = 0.0
    for n_fft, hop, win_length in resolutions:
        pair = _magnitudes(wave, target, n_fft, hop, win_length, window, MAGNITUDE_FLOOR)
        total = total + _convergence(*pair) + _log_distance(*pair)
    return total / len(resolutions)


def power_loss(
    wave: Tensor, target: Tensor, n_fft: int = 1024, hop: int = 256, win_length: int | None = None, window: str = "hann"
) -> Tensor:
    """Every frequency should be as strong as in the recording, on average over time.

    loss = mean over frequencies and batch of (phi(wave) - phi(target))^2
    phi(x) = mean over time of |STFT(x)|^2 / sum(window^2)

    It asks nothing of when a sound occurs, and so hardly minds a shift. The division makes phi the power in each
    frequency, whatever the window: noise of variance v has phi = v. The paper gives no scale, and sums where this averages.

    Van den Oord et al., "Parallel WaveNet", 2017, arXiv:1711.10433, section 4, "power loss".
    """
    a, b = (
        magnitude.square().mean(dim=-1) for magnitude in _magnitudes(wave, target, n_fft, hop, win_length, window)
    )                                                                   # (batch, frequencies)
    energy = _window(window, win_length or n_fft, a).square().sum()
    return ((a - b) / energy).square().mean()


def feature_loss(features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of what a frozen net makes of two waves, averaged over its layers.

    Args:
        features_a, features_b: for each layer (batch, channels, time).

    Van den Oord et al., arXiv:1711.10433, section 4, "perceptual loss".
    """
    return _over_layers(features_a, features_b, wide)


def style_loss(features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> Tensor:
    """The same features should occur together in two waves, no matter when.

    loss = mean over layers and entries of (G_a - G_b)^2,  G = F F^T / time, the Gram matrix over time

    Args:
        features_a, features_b: for each layer (batch, time, channels); the two may differ in time.

    Gatys, Ecker, Bethge, "A neural algorithm of artistic style", 2015, arXiv:1508.06576; for speech van den Oord et al.,
    arXiv:1711.10433, section 4, "perceptual loss".
    """
    return _over_layers(features_a, features_b, _gram)


def _gram(features: Tensor) -> Tensor:
    features = wide(features)
    with torch.autocast(features.device.type, enabled=False):          # differences of sums over time need the digits
        return features.transpose(1, 2) @ features / features.shape[1]


def _over_layers(features_a: Sequence[Tensor], features_b: Sequence[Tensor], view: Callable[[Tensor], Tensor]) -> Tensor:
    if not len(features_a) == len(features_b) > 0:
        raise ValueError(
            f"{len(features_a)} and {len(features_b)} layers of features to compare: take the same ones of both waves"
        )
    losses = [(view(a) - view(b)).square().mean() for a, b in zip(features_a, features_b, strict=True)]
    return torch.stack(losses).mean()


def _magnitudes(
    wave: Tensor, target: Tensor, n_fft: int, hop: int, win_length: int | None, window: str, floor: float = 0.0
) -> list[Tensor]:
    if wave.shape != target.shape:
        raise ValueError(f"waves of {tuple(wave.shape)} and {tuple(target.shape)} samples to compare: cut them to one shape")
    return [stft_magnitude(x, n_fft, hop, win_length, window).clamp(min=floor) for x in (wave, target)]


def _convergence(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).norm() / b.norm()


def _log_distance(a: Tensor, b: Tensor) -> Tensor:
    return (a.log() - b.log()).abs().mean()


def _window(name: str, length: int, like: Tensor) -> Tensor:
    if name not in WINDOWS:
        raise ValueError(f"window {name!r} is not known: take one of {', '.join(WINDOWS)}")
    return WINDOWS[name](length, dtype=like.dtype, device=like.device)
