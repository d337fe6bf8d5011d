"""The vocoder as users see it: a trained model together with the mel it understands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowavenet.audio import MelSettings, MelSpectrogram
from flowavenet.checkpoint import load_checkpoint, save_checkpoint
from flowavenet.hub import find_checkpoint, push
from flowavenet.models import FlowVocoder, frame_sums
from flowavenet.nets import remove_weight_norm
from flowavenet.streaming import Synthesiser
from flowavenet.transforms import ReceptiveField

DEFAULT = "lapflow-speech-22k"
"""The shipped checkpoint that :meth:`Vocoder.from_pretrained` takes when none is named."""
SYNTHESIS: dict[str, Any] = {"temperature": 0.8, "match": 12}
"""How to synthesise with a checkpoint that does not say (``facts["synthesis"]``, written by ``flowavenet tune``)."""
Array = Tensor | np.ndarray
Speaker = str | int | Sequence[str | int] | Tensor
"""A name or a number, for all items of a batch; one of them for each; or a vector (speaker_width,), or one for each."""


class Vocoder(nn.Module):
    """Turn a mel spectrogram into a waveform, a waveform into noise and back, and tell how likely a recording is.

    >>> vocoder = Vocoder.from_pretrained()
    >>> mel = vocoder.mel(torch.randn(1, 5000) / 100)
    >>> wave = vocoder(mel, seed=0)
    >>> mel.shape, wave.shape
    (torch.Size([1, 80, 20]), torch.Size([1, 5120]))
    >>> again = vocoder.decode(vocoder.encode(wave, mel), mel)
    >>> torch.allclose(again, wave, atol=1e-3)
    True

    Mels and waves may be tensors on any device or NumPy arrays, of any float type, with or without a batch dimension:
    (n_mels, frames) and (samples,) are batches of one. Results are tensors with a batch dimension, on the vocoder's device.

    Nothing here keeps gradients; train with ``model``, which has the same calls for tensors.

    Args:
        model: a flow. Its weight norm is folded into its weights in place: give a copy of what is still to be trained.
        mel: the settings of the mels it was trained on.
        facts: what is known of its training, and under ``synthesis`` how it sounds best.
        precision: of the nets when synthesising, ``float32`` or ``bfloat16``; signals stay float32.
    """

    def __init__(
        self, model: FlowVocoder, mel: MelSettings, facts: dict[str, Any] | None = None, precision: str = "float32"
    ):
        super().__init__()
        self.model = model.eval()
        remove_weight_norm(self.model)
        self.spectrogram = MelSpectrogram(mel)
        self.synthesiser = Synthesiser(self.model, self.spectrogram, precision)
        self.facts = facts or {}
        self.precision = precision

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike | None = None, device: str | torch.device = "auto", precision: str = "float32"
    ) -> Vocoder:
        """Load a vocoder from a checkpoint.

        Args:
            source: the name of a shipped checkpoint; a checkpoint folder; or an id on the Hugging Face Hub, ``user/name`` or
                ``user/name@revision``, which is downloaded once. None: the shipped default.
            device: where it will work; ``auto``: on a CUDA device if there is one, else on the CPU.
            precision: of the nets when synthesising: ``float32`` or ``bfloat16``.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        vocoder = cls(*load_checkpoint(find_checkpoint(source or DEFAULT)), precision=precision)
        try:
            return vocoder.to(device)
        except (RuntimeError, AssertionError) as error:                # torch's ways to say that it is not there
            have = "auto, cpu, cuda" if torch.cuda.is_available() else "auto, cpu"
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"device {str(device)!r} cannot be used here ({reason}); choose one of: {have}") from error

    @property
    def settings(self) -> MelSettings:
        """The settings of the mels this vocoder takes."""
        return self.spectrogram.settings

    @property
    def sample_rate(self) -> int:
        """Samples per second, Hz."""
        return self.settings.sample_rate

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return next(self.model.parameters()).device

    @property
    def speakers(self) -> list[str]:
        """Names of the voices that this checkpoint tells apart, in the order of their numbers; or the numbers."""
        return [str(one) for one in self.facts.get("speakers") or range(self.model.config.speakers)]

    @property
    def synthesis(self) -> dict[str, Any]:
        """The ``temperature`` and the rounds of mel matching, ``match``, that this checkpoint is used with by default."""
        return SYNTHESIS | self.facts.get("synthesis", {})

    @torch.no_grad()
    def mel(self, wave: Array) -> Tensor:
        """Analyse audio: wave (batch, samples) to mel (batch, n_mels, frames), frames = ceil(samples / hop_length)."""
        return self.spectrogram(self._wave(wave))

    @torch.no_grad()
    def forward(
        self, mel: Array, temperature: float | None = None, seed: int | Sequence[int] | None = None,
        match: int | None = None, denoise: float = 0.0, speaker: Speaker | None = None,
    ) -> Tensor:
        """Synthesise: mel (batch, n_mels, frames) to wave (batch, frames * hop_length).

        Args:
            temperature: standard deviation of the noise. Lower is duller and steadier, higher livelier and rougher. None:
                the checkpoint's.
            seed: of the noise; the same seed gives the same samples. One per item of the batch makes each item what it would
                be alone. None: a new one each time.
            match: rounds of :class:`~flowavenet.audio.MelMatching`, which bring the flow's sample to exactly this mel; 0:
                the sample as it is, what ``model.sample`` draws. None: the checkpoint's.
            denoise: how much of the hum that the model makes of silence to take out, 0 to 1.
            speaker: whose voice, see :data:`Speaker`; of a checkpoint that tells voices apart.
        """
        mel = self._mel(mel)
        frames, hop = mel.shape[-1], self.settings.hop_length
        wave, done = mel.new_empty(len(mel), frames * hop), 0
        tile = self.tile(match, denoise > 0)
        tile = tile if frames > 1.5 * tile else frames
        for chunk in self.stream(mel, tile, temperature, seed, match, denoise, speaker):
            wave[:, done : done + chunk.shape[1]] = chunk
            done += chunk.shape[1]
        return wave

    def stream(
        self, mel: Array | Iterable[Array], chunk_frames: int = 32, temperature: float | None = None,
        seed: int | Sequence[int] | None = None, match: int | None = None, denoise: float = 0.0,
        speaker: Speaker | None = None,
    ) -> Iterator[Tensor]:
        """Synthesise chunk by chunk: the same samples as the whole, for the same seed, without holding the whole.

        Args:
            mel: (batch, n_mels, frames), or an iterable of such pieces as they arrive, of any lengths.
            chunk_frames: frames per chunk; the last one may be shorter.
            temperature, seed, match, denoise, speaker: as for :meth:`forward`.

        Yields:
            (batch, chunk_frames * hop_length) samples, as soon as the frames that they depend on (:meth:`receptive_field`)
            are there.
        """
        defaults = self.synthesis
        return self.synthesiser.stream(
            self._mel(mel) if isinstance(mel, Array) else (self._mel(piece, 0) for piece in mel),
            chunk_frames,
            defaults["temperature"] if temperature is None else temperature,
            torch.Generator().seed() if seed is None else seed,
            defaults["match"] if match is None else match,
            denoise, self.voice(speaker),
        )

    def receptive_field(self, match: int | None = None, denoise: bool = False) -> ReceptiveField:
        """Return the frames of mel, before and after, that a chunk is computed from, beside what a recurrent flow remembers
        of those before; those after are the look-ahead of a stream."""
        return self.synthesiser.receptive_field(self.synthesis["match"] if match is None else match, denoise)

    def tile(self, match: int | None = None, denoise: bool = False) -> int:
        """Return how many frames of a long mel are synthesised at a time."""
        return self.synthesiser.tile(self.synthesis["match"] if match is None else match, denoise)

    @torch.no_grad()
    def encode(self, wave: Array, mel: Array, speaker: Speaker | None = None) -> Tensor:
        """Return the noise (batch, samples) that would make exactly this wave, given this mel."""
        return self.model.encode(self._wave(wave), self._mel(mel), self.voice(speaker))[0]

    @torch.no_grad()
    def decode(self, noise: Array, mel: Array, speaker: Speaker | None = None) -> Tensor:
        """Return the wave (batch, samples) that this noise makes, given this mel."""
        return self.model.decode(self._wave(noise), self._mel(mel), self.voice(speaker))

    @torch.no_grad()
    def log_prob(self, wave: Array, mel: Array, speaker: Speaker | None = None) -> Tensor:
        """Return the exact log-density of each wave given its mel: (batch,), nats.

        This is the density at the very samples given; see :func:`flowavenet.losses.dequantise` for 16-bit audio.
        """
        return self.model.log_prob(self._wave(wave), self._mel(mel), self.voice(speaker))

    @torch.no_grad()
    def log_prob_frames(self, wave: Array, mel: Array, speaker: Speaker | None = None) -> Tensor:
        """Return the share of each frame of the mel in :meth:`log_prob`: (batch, frames), nats, which add up to it.

        The last frame has fewer samples if the wave does not fill it.
        """
        nats = self.model.log_prob_samples(self._wave(wave), self._mel(mel), self.voice(speaker))
        return frame_sums(nats, self.settings.hop_length)

    @torch.no_grad()
    def voice(self, speaker: Speaker | None) -> Tensor | None:
        """Return the vectors (batch or 1, speaker_width) that stand for speakers; what lies between two is a voice, too.

        Raises ValueError, in one line with the names that are known, for what is none of :data:`Speaker`.
        """
        width, names = self.model.config.speaker_width, self.speakers
        if speaker is None or not width:
            if width:
                known = ", ".join(names) or f"vectors of {width}"
                raise ValueError(f"speaker is missing: this checkpoint tells voices apart; choose one of: {known}")
            if speaker is not None:
                raise ValueError("a speaker is given, but this checkpoint tells no voices apart: leave it out")
            return None
        if not isinstance(speaker, Tensor):
            each = [speaker] if isinstance(speaker, str | int) else speaker
            if unknown := [one for one in each if isinstance(one, str) and one not in names]:
                raise ValueError(f"speaker {unknown[0]!r} is not known; choose one of: {', '.join(names) or 'none'}")
            speaker = torch.tensor([names.index(one) if isinstance(one, str) else one for one in each])
        if speaker.ndim == int(speaker.is_floating_point()):           # one for all
            speaker = speaker[None]
        return self.model.voice(speaker.to(self.device), len(speaker))

    def save(self, folder: str | os.PathLike, dtype: torch.dtype = torch.float32) -> None:
        """Write a checkpoint folder, with weights of the given precision."""
        save_checkpoint(folder, self.model, self.settings, self.facts, dtype)

    def push_to_hub(
        self, repository: str, private: bool | None = None, token: str | None = None, dtype: torch.dtype = torch.float32
    ) -> str:
        """Put this vocoder on the Hugging Face Hub, where ``from_pretrained(repository)`` finds it; see :func:`hub.push`."""
        with TemporaryDirectory() as folder:
            self.save(folder, dtype)
            return push(folder, repository, private, token)

    def _mel(self, mel: Array, least: int = 1) -> Tensor:
        """Return a mel as the model takes it: (batch, n_mels, frames), in its dtype, on its device."""
        given, n_mels = tuple(mel.shape), self.settings.n_mels
        turned = "mel.T" if len(given) == 2 else "mel.transpose(1, 2)" if torch.is_tensor(mel) else "mel.swapaxes(1, 2)"
        mel = torch.as_tensor(mel)
        if mel.ndim == 2:
            mel = mel[None]
        if mel.ndim != 3 or mel.shape[1] != n_mels:
            bands_last = mel.ndim == 3 and mel.shape[2] == n_mels
            cure = f"give {turned}" if bands_last else "compute it with this checkpoint's mel settings (vocoder.settings)"
            wanted = f"({n_mels}, frames) or (batch, {n_mels}, frames)"
            raise ValueError(f"mel has shape {given}, this vocoder wants {wanted}: {cure}")
        if mel.shape[2] < least:
            raise ValueError(f"mel has 0 frames (shape {given}): give at least 1")
        if not mel.is_floating_point():
            raise ValueError(f"mel is {mel.dtype}, this vocoder wants floating-point numbers: mel.astype('float32')")
        return self._here(mel)

    def _wave(self, wave: Array) -> Tensor:
        """Return a wave as the model takes it: (batch, samples), in its dtype, on its device."""
        given = tuple(wave.shape)
        wave = torch.as_tensor(wave)
        if wave.ndim == 1:
            wave = wave[None]
        if wave.ndim != 2:
            raise ValueError(f"wave has shape {given}, this vocoder wants (samples,) or (batch, samples): give one channel")
        if not wave.is_floating_point():
            raise ValueError(f"wave is {wave.dtype}, this vocoder wants floats, -1 to 1: divide 16-bit samples by 32768")
        return self._here(wave)

    def _here(self, x: Tensor) -> Tensor:
        weight = next(self.model.parameters())
        return x.to(weight.device, weight.dtype)
