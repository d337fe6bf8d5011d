"""Mel matching: bring a waveform to the very mel spectrogram it was asked for.

A vocoder's sample only roughly has the mel it was given, and that mel is known exactly. A few rounds of analysis and
re-synthesis close the gap, and as overlapping frames must agree on one waveform, phases fall into line as well.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowavenet.audio.mel import MelSpectrogram


class MelMatching(nn.Module):
    """Filter a waveform, frame by frame, until its mel is the one asked for; keep all else as it is.

    One round takes every other frame (odd ones and even ones in turn), scales each bin of its spectrum by

        gain = sum_b w_b mel_b / mel_b(wave)    (w: the filter bank, normalised over bands b; 1 outside all bands)

    and overlap-adds the change, by least squares. A part of the last step is repeated ahead of the next round. Magnitudes
    within a band and phases stay the waveform's own, so this is not a vocoder: from noise it makes buzz.

    Args:
        spectrogram: the mel convention.
        momentum: the part of the last step that is repeated.
        max_gain: bound of each gain, and one over it.

    Alternating projections: Griffin, Lim, "Signal estimation from modified short-time Fourier transform", 1984; momentum:
    Perraudin, Balazs, Sondergaard, "A fast Griffin-Lim algorithm", 2013. That the mel and no magnitude is fixed is ours.
    """

    def __init__(self, spectrogram: MelSpectrogram, momentum: float = 0.5, max_gain: float = 20.0):
        super().__init__()
        self.spectrogram = spectrogram
        self.momentum = momentum
        self.max_gain = max_gain
        settings = spectrogram.settings
        # As many frames are left out as still leaves every sample in two windows.
        self.stride = max(1, settings.win_length // (2 * settings.hop_length))

    def forward(self, wave: Tensor, mel: Tensor, rounds: int) -> Tensor:
        """Match wave (batch, samples) to mel (batch, n_mels, frames), frames = ceil(samples / hop_length)."""
        target = self.spectrogram.energies(mel).transpose(1, 2)        # (batch, frames, n_mels)
        settings = self.spectrogram.settings
        subsets = [
            (first * settings.hop_length, target[:, first :: self.stride])
            for first in range(min(self.stride, target.shape[1]))
        ]
        last = ahead = wave
        for i in range(rounds):
            wave = ahead + self._change(ahead, *subsets[i % len(subsets)])
            ahead = wave + self.momentum * (wave - last)
            last = wave
        return wave

    def reach(self, rounds: int) -> int:
        """Frames, either side, that a sample of the result depends on."""
        settings = self.spectrogram.settings
        return rounds * math.ceil(settings.n_fft / settings.hop_length)

    def _change(self, wave: Tensor, begin: int, target: Tensor) -> Tensor:
        """What frames that want the energies ``target`` (batch, frames, n_mels), ``stride`` hops apart, add to the wave.

        The first one begins at sample ``begin`` of the padded wave.
        """
        settings, bank = self.spectrogram.settings, self.spectrogram.filter_bank
        hop, n_fft = self.stride * settings.hop_length, settings.n_fft
        padded = self.spectrogram.pad(wave)
        spare = n_fft - settings.win_length
        window = F.pad(self.spectrogram.window, (spare // 2, spare - spare // 2))
        spectrum = torch.fft.rfft(padded[:, begin:].unfold(1, n_fft, hop)[:, : target.shape[1]] * window)
        energies = spectrum.real.square() + spectrum.imag.square()
        if settings.power != 2:
            energies = energies.sqrt() if settings.power == 1 else energies ** (settings.power / 2)
        ratio = target / (energies @ bank.T).clamp(min=settings.floor)
        if settings.power != 1:
            ratio = ratio ** (1 / settings.power)
        excess = ratio.clamp(1 / self.max_gain, self.max_gain) - 1
        gain = excess @ (bank / bank.sum(0).clamp(min=1e-9))           # less 1, and 0 outside all bands
        change = _overlap_add(torch.fft.irfft(spectrum * gain, n=n_fft) * window, hop)
        weight = _overlap_add((window**2).expand(1, target.shape[1], -1), hop)
        left = (n_fft - settings.hop_length) // 2
        missing = max(0, left + wave.shape[1] - begin - change.shape[1])
        return F.pad(change / weight.clamp(min=0.1), (begin, missing))[:, left : left + wave.shape[1]]


def _overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Sum frames (batch, count, length) that begin ``hop`` apart: (batch, (count - 1) * hop + length), and zeros after."""
    batch, count, length = frames.shape
    blocks = -(-length // hop)
    frames = F.pad(frames, (0, blocks * hop - length)).view(batch, count, blocks, hop)
    total = frames.new_zeros(batch, count + blocks - 1, hop)
    for block in range(blocks):
        total[:, block : block + count] += frames[:, :, block]
    return total.flatten(1)
