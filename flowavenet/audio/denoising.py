"""Take out of a waveform the hum that a vocoder makes even when it is asked for silence."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BiasDenoiser(nn.Module):
    """Subtract the spectrum of a vocoder's bias from the magnitudes of its output; phases stay.

    |S'| = max(|S| - strength * |B|, 0);   B: the mean magnitude of what the vocoder makes of silence, without noise

    Args:
        bias: (samples,), what the vocoder makes of the mel of silence at temperature 0; (batch, samples) if each item has a
            voice of its own.
        hop_length: from one spectrum to the next, samples; a window has four hops.

    After the denoiser of Prenger, Valle, Catanzaro, "WaveGlow", 2018, arXiv:1811.00002. Spectral subtraction: Boll, 1979.
    """

    window: Tensor
    magnitude: Tensor

    def __init__(self, bias: Tensor, hop_length: int = 256):
        super().__init__()
        self.n_fft = n_fft = 4 * hop_length
        self.register_buffer("window", torch.hann_window(n_fft, dtype=bias.dtype, device=bias.device), persistent=False)
        magnitude = self._spectrum(torch.atleast_2d(bias)).abs().mean(dim=-1, keepdim=True)
        self.register_buffer("magnitude", magnitude, persistent=False)  # (batch or 1, n_fft / 2 + 1, 1)

    def forward(self, wave: Tensor, strength: float) -> Tensor:
        """Denoise wave (batch, samples); at strength 0 it stays as it is, 1 takes out all of the bias."""
        if strength == 0:
            return wave
        spectrum = self._spectrum(wave)
        magnitude = spectrum.abs()
        gain = (1 - strength * self.magnitude / magnitude.clamp(min=1e-9)).clamp(min=0)
        return torch.istft(spectrum * gain, self.n_fft, window=self.window, length=wave.shape[1])

    def _spectrum(self, wave: Tensor) -> Tensor:
        return torch.stft(wave, self.n_fft, window=self.window, pad_mode="constant", return_complex=True)
