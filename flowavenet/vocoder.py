"""The vocoder as users see it: a trained model together with the mel it understands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowavenet.audio import BiasDenoiser, MelMatching, MelSettings, MelSpectrogram
from flowavenet.checkpoint import load_checkpoint, save_checkpoint
from flowavenet.models import FlowVocoder

DEFAULT = "lapflow-speech-22k"
"""The shipped checkpoint that :meth:`Vocoder.from_pretrained` takes when none is named."""
SYNTHESIS: dict[str, Any] = {"temperature": 0.8, "match": 8}
"""How to synthesise with a checkpoint that does not say (``facts["synthesis"]``, written by ``flowavenet tune``)."""
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


class Vocoder(nn.Module):
    """Mel spectrogram to waveform; waveform to noise, and back; and the exact likelihood of a recording.

    >>> vocoder = Vocoder.from_pretrained()
    >>> mel = vocoder.mel(torch.randn(1, 5000) / 100)
    >>> wave = vocoder(mel, seed=0)
    >>> mel.shape, wave.shape
    (torch.Size([1, 80, 20]), torch.Size([1, 5120]))
    >>> again = vocoder.decode(vocoder.encode(wave, mel), mel)
    >>> torch.allclose(again, wave, atol=1e-3)
    True

    Nothing here keeps gradients; train with ``vocoder.model``, which has the same calls.

    Args:
        model: a flow.
        mel: the settings of the mels it was trained on.
        facts: what is known of its training, and under ``synthesis`` how it sounds best.
        precision: of the work in the nets when sampling, ``float32`` or ``bfloat16``; weights and signals stay float32.
    """

    def __init__(
        self, model: FlowVocoder, mel: MelSettings, facts: dict[str, Any] | None = None, precision: str = "float32"
    ):
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is not known; choose one of: {', '.join(PRECISIONS)}")
        self.model = model.eval()
        self.spectrogram = MelSpectrogram(mel)
        self.matching = MelMatching(self.spectrogram)
        self.facts = facts or {}
        self.precision = precision
        self.denoiser: BiasDenoiser | None = None

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike | None = None, device: str | torch.device = "cpu", precision: str = "float32"
    ) -> Vocoder:
        """A vocoder from a checkpoint.

        Args:
            source: the name of a shipped checkpoint, or a checkpoint folder; None: the shipped default.
            device: where it will work.
            precision: of the nets when sampling: ``float32`` or ``bfloat16``.
        """
        vocoder = cls(*load_checkpoint(find_checkpoint(source or DEFAULT)), precision=precision)
        try:
            return vocoder.to(device)
        except (RuntimeError, AssertionError) as error:                # torch's ways to say that it is not there
            have = "cpu, cuda" if torch.cuda.is_available() else "cpu"
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"device {str(device)!r} cannot be used here ({reason}); choose one of: {have}") from error

    @property
    def settings(self) -> MelSettings:
        """The settings of the mels this vocoder takes."""
        return self.spectrogram.settings

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.settings.sample_rate

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def normalise(self, wave: Tensor) -> Tensor:
        """Bring a recording (batch, samples) to the level of the training data, if the mel convention has one."""
        return self.spectrogram.normalise(wave)

    @torch.no_grad()
    def mel(self, wave: Tensor) -> Tensor:
        """Analyse audio: wave (batch, samples) to mel (batch, n_mels, frames), frames = ceil(samples / hop_length)."""
        return self.spectrogram(wave.to(self.device))

    @property
    def synthesis(self) -> dict[str, Any]:
        """The ``temperature`` and the rounds of mel matching, ``match``, that this checkpoint is used with by default."""
        return SYNTHESIS | self.facts.get("synthesis", {})

    @torch.no_grad()
    def forward(
        self, mel: Tensor, temperature: float | None = None, seed: int | None = None, match: int | None = None,
        denoise: float = 0.0,
    ) -> Tensor:
        """Synthesise: mel (batch, n_mels, frames) to wave (batch, frames * hop_length).

        Args:
            temperature: standard deviation of the noise. Lower is duller and steadier, higher livelier and rougher. None:
                the checkpoint's.
            seed: of the noise; the same seed gives the same samples. None: a new one each time.
            match: rounds of :class:`~flowavenet.audio.MelMatching`, which bring the flow's sample to exactly this mel; 0:
                the sample as it is, what ``model.sample`` draws. None: the checkpoint's.
            denoise: how much of the hum that the model makes of silence to take out, 0 to 1.
        """
        generator = torch.Generator(self.device)
        generator.seed() if seed is None else generator.manual_seed(seed)
        temperature = self.synthesis["temperature"] if temperature is None else temperature
        mel = mel.to(self.device)
        wave = self._sample(mel, temperature, generator)
        if denoise:
            wave = self._denoiser()(wave, denoise)
        return self.matching(wave, mel, self.synthesis["match"] if match is None else match)

    def _sample(self, mel: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        half = PRECISIONS[self.precision]
        with torch.autocast(self.device.type, half, enabled=half is not None):
            return self.model.sample(mel, temperature, generator)

    def _denoiser(self) -> BiasDenoiser:
        if self.denoiser is None:
            silence = self.mel(torch.zeros(1, 32 * self.settings.n_fft))
            self.denoiser = BiasDenoiser(self._sample(silence, 0.0, torch.Generator(self.device))[0])
        return self.denoiser

    @torch.no_grad()
    def encode(self, wave: Tensor, mel: Tensor) -> Tensor:
        """The noise (batch, samples) that would make exactly this wave, given this mel."""
        return self.model.encode(wave.to(self.device), mel.to(self.device))[0]

    @torch.no_grad()
    def decode(self, noise: Tensor, mel: Tensor) -> Tensor:
        """The wave (batch, samples) that this noise makes, given this mel."""
        return self.model.decode(noise.to(self.device), mel.to(self.device))

    @torch.no_grad()
    def log_prob(self, wave: Tensor, mel: Tensor) -> Tensor:
        """Exact log-density of each wave given its mel: (batch,), nats.

        This is the density at the very samples given; see :func:`flowavenet.losses.dequantise` for 16-bit audio.
        """
        return self.model.log_prob(wave.to(self.device), mel.to(self.device))

    def save(self, folder: str | os.PathLike, dtype: torch.dtype = torch.float32) -> None:
        """Write a checkpoint folder, with weights of the given precision."""
        save_checkpoint(folder, self.model, self.settings, self.facts, dtype)


def shipped_checkpoints() -> dict[str, Path]:
    """The checkpoints that came with the package, by name."""
    package = Path(__file__).parent
    # beside the package in a clone, inside it when installed from a wheel
    homes = package.parent / "checkpoints", package / "checkpoints"
    return {file.parent.name: file.parent for home in homes for file in sorted(home.glob("*/config.yaml"))}


def find_checkpoint(source: str | os.PathLike) -> Path:
    """The folder of a checkpoint given by name or by path."""
    if Path(source).is_dir():
        return Path(source)
    shipped = shipped_checkpoints()
    if str(source) not in shipped:
        known = ", ".join(sorted(shipped)) or "none"
        raise FileNotFoundError(f"{source}: no such checkpoint folder, and no shipped checkpoint; shipped are: {known}")
    return shipped[str(source)]
