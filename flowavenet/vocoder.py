"""The vocoder as users see it: a trained model together with the mel it understands."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from flowavenet.audio import BiasDenoiser, MelMatching, MelSettings, MelSpectrogram
from flowavenet.checkpoint import load_checkpoint, save_checkpoint
from flowavenet.hub import find_checkpoint, push
from flowavenet.models import FlowVocoder
from flowavenet.models.synthesis import for_synthesis, weights_state
from flowavenet.streaming import Continued, Noise, in_chunks

DEFAULT = "lapflow-speech-22k"
"""The shipped checkpoint that :meth:`Vocoder.from_pretrained` takes when none is named."""
SYNTHESIS: dict[str, Any] = {"temperature": 0.8, "match": 12}
"""How to synthesise with a checkpoint that does not say (``facts["synthesis"]``, written by ``flowavenet tune``)."""
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
"""Of the work in the nets; None: that of the weights."""
Speaker = str | int | Sequence[str | int] | Tensor
"""A name or a number, for all items of a batch; one of them for each; or a vector (speaker_width,), or one for each."""


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

    Nothing here keeps gradients; train with ``vocoder.model``, which has the same calls. Synthesis runs on a copy of its
    nets that is laid out for speed, taken when it is first needed and again when the weights have changed.

    Args:
        model: a flow.
        mel: the settings of the mels it was trained on.
        facts: what is known of its training, and under ``synthesis`` how it sounds best.
        precision: of the work in the nets when synthesising, ``float32`` or ``bfloat16``; signals stay float32.
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
        self._fast: tuple[Any, FlowVocoder] | None = None
        self.denoiser: BiasDenoiser | None = None
        self._denoised: list | None = None                             # the voices that it is for

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike | None = None, device: str | torch.device = "cpu", precision: str = "float32"
    ) -> Vocoder:
        """A vocoder from a checkpoint.

        Args:
            source: the name of a shipped checkpoint; a checkpoint folder; or an id on the Hugging Face Hub, ``user/name`` or
                ``user/name@revision``, which is downloaded once. None: the shipped default.
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
        """Where it works."""
        return next(self.model.parameters()).device

    def normalise(self, wave: Tensor) -> Tensor:
        """Bring a recording (batch, samples) to the level of the training data, if the mel convention has one."""
        return self.spectrogram.normalise(wave)

    @torch.no_grad()
    def mel(self, wave: Tensor) -> Tensor:
        """Analyse audio: wave (batch, samples) to mel (batch, n_mels, frames), frames = ceil(samples / hop_length)."""
        return self.spectrogram(wave.to(self.device))

    @property
    def speakers(self) -> list[str]:
        """Names of the voices that this checkpoint tells apart, in the order of their numbers; or the numbers."""
        return [str(one) for one in self.facts.get("speakers") or range(self.model.config.speakers)]

    @torch.no_grad()
    def voice(self, speaker: Speaker | None) -> Tensor | None:
        """The vectors (batch or 1, speaker_width) that stand for speakers; what lies between two of them is a voice, too.

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

    @property
    def synthesis(self) -> dict[str, Any]:
        """The ``temperature`` and the rounds of mel matching, ``match``, that this checkpoint is used with by default."""
        return SYNTHESIS | self.facts.get("synthesis", {})

    @torch.no_grad()
    def forward(
        self, mel: Tensor, temperature: float | None = None, seed: int | Sequence[int] | None = None,
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
        self.model.check_mel(mel)
        frames, hop = mel.shape[-1], self.settings.hop_length
        wave = torch.empty(mel.shape[0], frames * hop, dtype=mel.dtype, device=self.device)
        done, tile = 0, self.tile(match, denoise > 0)
        tile = tile if frames > 1.5 * tile else max(1, frames)
        for chunk in self.stream(mel, tile, temperature, seed, match, denoise, speaker):
            wave[:, done : done + chunk.shape[1]] = chunk
            done += chunk.shape[1]
        return wave

    def stream(
        self, mel: Tensor | Iterable[Tensor], chunk_frames: int = 32, temperature: float | None = None,
        seed: int | Sequence[int] | None = None, match: int | None = None, denoise: float = 0.0,
        speaker: Speaker | None = None,
    ) -> Iterator[Tensor]:
        """Synthesise chunk by chunk: the same samples as the whole, for the same seed, without holding the whole.

        Args:
            mel: (batch, n_mels, frames), or an iterable of such pieces as they arrive, of any lengths.
            chunk_frames: frames per chunk; the last one may be shorter.
            temperature, seed, match, denoise, speaker: as for :meth:`forward`.

        Yields:
            (batch, chunk_frames * hop_length) samples, as soon as the frames that they depend on (:meth:`reach`) are there.
        """
        temperature = self.synthesis["temperature"] if temperature is None else temperature
        match = self.rounds(match)
        seed = torch.Generator().seed() if seed is None else seed
        hop, noise, voice = self.settings.hop_length, None, self.voice(speaker)

        @torch.no_grad()
        def render(window: Tensor, first: int, start: int, stop: int) -> Tensor:
            nonlocal noise
            window = window.to(self.device)
            noise = noise or Noise(seed, len(window), self.device)
            # what follows the flow needs less context than the flow
            begin, end = max(0, start - around) // grid * grid, stop + around
            if continued is not None:
                wave = continued(lambda *samples: temperature * noise(*samples), window, first, end)
            else:
                frames = self.model.whole_frames(window.shape[-1])
                wave = self._render(temperature * noise(first * hop, (first + frames) * hop), window, voice)
            wave, window = wave[:, begin * hop : end * hop], window[..., begin:end]
            if denoise:
                wave = self._denoiser(voice)(wave, denoise)
            return self.matching(wave, window, match)[:, (start - begin) * hop : (stop - begin) * hop]

        grid = math.lcm(self.model.frame_grid, self.matching.stride)
        around = self._reach_after_flow(match, denoise > 0)
        continued = Continued(self.model, voice) if self.model.sequential == "decode" else None
        return in_chunks(mel, chunk_frames, self.context(match, denoise > 0), grid, render)

    def reach(self, match: int | None = None, denoise: bool = False) -> tuple[int, int]:
        """Frames of mel, before and after, that a sample depends on; those after are the look-ahead of a stream."""
        before, after = self.model.reach()
        around = self._reach_after_flow(self.rounds(match), denoise)
        return before + around, after + around

    def context(self, match: int | None = None, denoise: bool = False) -> tuple[int, int]:
        """Frames of mel, before and after, that a stream computes a chunk from: its :meth:`reach`; or, where each sample
        is drawn given all before, what the conditioning reads, as drawing goes on from where it was."""
        before, after = self.reach(match, denoise)
        if self.model.sequential == "decode":
            before = self.model.cond_reach()[0] + self._reach_after_flow(self.rounds(match), denoise) + self.matching.stride
        return before, after

    def tile(self, match: int | None = None, denoise: bool = False) -> int:
        """Frames that are synthesised at a time, of mels that are longer, so that memory does not grow with them: six
        times the context that is computed again for each tile, and not too few."""
        return max(1024, 6 * sum(self.context(match, denoise)))

    def _reach_after_flow(self, match: int, denoise: bool) -> int:
        return self.matching.reach(match) + 4 * denoise

    def rounds(self, match: int | None = None) -> int:
        """Rounds of mel matching: as many as asked for, or the checkpoint's."""
        return self.synthesis["match"] if match is None else match

    def _render(self, noise: Tensor, mel: Tensor, voice: Tensor | None) -> Tensor:
        half, state = PRECISIONS[self.precision], weights_state(self.model)
        if self._fast is None or self._fast[0] != state:
            weight = next(self.model.parameters())
            self._fast = state, for_synthesis(self.model, half or weight.dtype)
        with torch.autocast(self.device.type, half, enabled=half is not None):
            return self._fast[1].render(noise.to(mel.dtype), mel, voice)

    def _denoiser(self, voice: Tensor | None) -> BiasDenoiser:
        voices = None if voice is None else voice.tolist()
        if self.denoiser is None or self._denoised != voices:
            frames = self.model.whole_frames(128)
            noise = torch.zeros(1 if voice is None else len(voice), frames * self.settings.hop_length, device=self.device)
            bias = self._render(noise, self.mel(noise), voice)
            self.denoiser, self._denoised = BiasDenoiser(bias, self.settings.hop_length), voices
        return self.denoiser

    @torch.no_grad()
    def encode(self, wave: Tensor, mel: Tensor, speaker: Speaker | None = None) -> Tensor:
        """The noise (batch, samples) that would make exactly this wave, given this mel."""
        return self.model.encode(wave.to(self.device), mel.to(self.device), self.voice(speaker))[0]

    @torch.no_grad()
    def decode(self, noise: Tensor, mel: Tensor, speaker: Speaker | None = None) -> Tensor:
        """The wave (batch, samples) that this noise makes, given this mel."""
        return self.model.decode(noise.to(self.device), mel.to(self.device), self.voice(speaker))

    @torch.no_grad()
    def log_prob(self, wave: Tensor, mel: Tensor, speaker: Speaker | None = None) -> Tensor:
        """Exact log-density of each wave given its mel: (batch,), nats.

        This is the density at the very samples given; see :func:`flowavenet.losses.dequantise` for 16-bit audio.
        """
        return self.model.log_prob(wave.to(self.device), mel.to(self.device), self.voice(speaker))

    @torch.no_grad()
    def log_prob_frames(self, wave: Tensor, mel: Tensor, speaker: Speaker | None = None) -> Tensor:
        """What each frame of the mel has of :meth:`log_prob`: (batch, frames), nats, which add up to it.

        The last frame has fewer samples if the wave does not fill it.
        """
        _, nats = self.model.encode_localised(wave.to(self.device), mel.to(self.device), self.voice(speaker))
        return self.frame_sums(nats)

    def frame_sums(self, samples: Tensor) -> Tensor:
        """Sums over the samples of each frame of the mel: (batch, samples) to (batch, frames)."""
        hop = self.settings.hop_length
        return nn.functional.pad(samples, (0, -samples.shape[1] % hop)).unflatten(1, (-1, hop)).sum(dim=2)

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
