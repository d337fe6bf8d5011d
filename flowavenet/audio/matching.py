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
    within a band and phases stay the waveform's own: what the mel does not say is left as it was, of white noise noise.

    Args:
        spectrogram: the mel convention.
        momentum: the part of the last step that is repeated.
        max_gain: bound of each gain, and one over it.

    Alternating projections: Griffin, Lim, "Signal estimation from modified short-time Fourier transform", 1984; momentum:
    Perraudin, Balazs, Sondergaard, "A fast Griffin-Lim algorithm", 2013. That the mel and no magnitude is fixed is ours.
    """

    def __init__(self, spectrogram: MelSpectrogram, momentum: float = 0.7, max_gain: float = 20.0):
        super().__init__()
        self.spectrogram = spectrogram
        self.momentum = momentum
        self.max_gain = max_gain
        settings = spectrogram.settings
        # As many frames are left out as still leaves every sample in two windows.
        self.stride = max(1, settings.win_length // (2 * settings.hop_length))

    def forward(self, wave: Tensor, mel: Tensor, rounds: int) -> Tensor:
        """Match wave (batch, samples) to mel (batch, n_mels, frames), frames = ceil(samples / hop_length)."""
        if rounds < 1:
            return wave
        target = self.spectrogram.energies(mel).transpose(1, 2)        # (batch, frames, n_mels)
        frames, hop = target.shape[1], self.spectrogram.settings.hop_length
        subsets = []                                                   # frames that take part in the same rounds
        for first in range(min(self.stride, frames)):
            wanted = target[:, first :: self.stride]
            window = self._window().expand(1, wanted.shape[1], -1)
            weight = _overlap_add(window.square(), self.stride * hop).clamp(min=0.1)
            subsets.append((first * hop, wanted, 1 / weight))
        last = ahead = wave
        for i in range(rounds):
            wave = ahead + self._change(ahead, *subsets[i % len(subsets)])
            ahead = wave + self.momentum * (wave - last)
            last = wave
        return wave

    def receptive_field(self, rounds: int) -> int:
        """Return the frames, either side, that a sample of the result depends on."""
        settings = self.spectrogram.settings
        return rounds * math.ceil(settings.n_fft / settings.hop_length)

    def _change(self, wave: Tensor, begin: int, target: Tensor, share: Tensor) -> Tensor:
        """What frames that want the energies ``target`` (batch, frames, n_mels), ``stride`` hops apart, add to the wave.

        The first one begins at sample ``begin`` of the padded wave; ``share`` is what each sample takes of their sum.
        """
        settings, bank = self.spectrogram.settings, self.spectrogram.filter_bank
        hop, n_fft, window = self.stride * settings.hop_length, settings.n_fft, self._window()
        padded = self.spectrogram.pad(wave)
        spectrum = heard = torch.fft.rfft(padded[:, begin:].unfold(1, n_fft, hop)[:, : target.shape[1]] * window)
        if settings.preemphasis:                                       # the mel hears the wave brighter than it is
            emphasised = self.spectrogram.emphasise(padded)[:, begin:]
            heard = torch.fft.rfft(emphasised.unfold(1, n_fft, hop)[:, : target.shape[1]] * window)
        energies = heard.real.square().addcmul_(heard.imag, heard.imag)
        if settings.power != 2:
            if settings.eps > 1e-12:                                   # less is lost in rounding
                energies.add_(settings.eps)
            energies = energies.sqrt_() if settings.power == 1 else energies.pow_(settings.power / 2)
        ratio = target / (energies @ bank.T).clamp_(*self.spectrogram.bounds())
        if settings.power != 1:
            ratio = ratio ** (1 / settings.power)
        excess = ratio.clamp_(1 / self.max_gain, self.max_gain).sub_(1)
        gain = excess @ (bank / bank.sum(0).clamp(min=1e-9))           # less 1, and 0 outside all bands
        change = _overlap_add(torch.fft.irfft(spectrum * gain, n=n_fft).mul_(window), hop).mul_(share)
        left, _ = settings.context
        missing = max(0, left + wave.shape[1] - begin - change.shape[1])
        return F.pad(change, (begin, missing))[:, left : left + wave.shape[1]]

    def _window(self) -> Tensor:
        settings, window = self.spectrogram.settings, self.spectrogram.window
        spare = settings.n_fft - settings.win_length
        return F.pad(window, (spare // 2, spare - spare // 2))


def _overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Sum frames (batch, count, length) that begin ``hop`` apart: (batch, (count - 1) * hop + length), and zeros after."""
    batch, count, length = frames.shape
    blocks = -(-length // hop)
    if length < blocks * hop:
        frames = F.pad(frames, (0, blocks * hop - length))
    frames = frames.reshape(batch, count, blocks, hop)
    total = frames.new_zeros(batch, count + blocks - 1, hop)
    for block in range(blocks):
        total[:, block : block + count] += frames[:, :, block]
    return total.flatten(1)
