"""What every flow vocoder can do, written once: likelihood, encoding, decoding and sampling."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowavenet.nets import Net
from flowavenet.transforms import ReceptiveField, State, Transform
from flowavenet.transforms.base import wide
from flowavenet.transforms.heads import log_normal


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Hold what every model's Config has."""

    speakers: int = 0
    """Voices that are told apart by number; 0: none."""
    speaker_width: int = 0
    """Size of the vector that stands for a voice; 0: the mel alone says whose voice it is. With a width and no speakers,
    callers give the vectors, such as those of a speaker encoder."""

    def __post_init__(self):
        if self.speakers and self.speaker_width < 1:
            raise ValueError(f"speakers is {self.speakers}, speaker_width {self.speaker_width}; give it a width, such as 16")


class FlowVocoder(nn.Module, ABC):
    """Map a waveform to equally many samples of Gaussian noise and back, given a mel spectrogram.

    log p(wave | mel) = log N(noise; 0, 1) + log|det d noise / d wave|

    A model is a ``flow`` (a :class:`~flowavenet.transforms.Transform` of one channel) and a way to bring the mel to
    the flow. Subclasses build both in ``__init__`` and say with ``group`` what length the flow likes.

    A model may tell voices apart (``config.speaker_width`` > 0). Then a vector, learned for each speaker or given, joins the
    conditioning at every time: the global conditioning of WaveNet (van den Oord et al., 2016, arXiv:1609.03499).

    Args of every model: ``config``, its own dataclass ``Config``; ``n_mels`` and ``hop_length`` of the mels it takes.
    Shapes: wave (batch, samples); mel (batch, n_mels, frames) with frames = ceil(samples / hop_length); speaker: numbers
    (batch,), or vectors (batch, speaker_width), one row for all if there is but one; None if the model knows no voices.
    """

    Config: type[FlowConfig]
    flow: Transform

    sequential: str | None = None
    """Names the one of ``encode`` and ``decode`` that must go sample by sample, because each needs the one before."""
    cond_receptive_field: ReceptiveField
    """Frames of mel, before and after, that one column of the conditioning depends on."""

    def __init__(self, config: FlowConfig, n_mels: int, hop_length: int):
        super().__init__()
        self.config = config
        self.n_mels = n_mels
        self.hop_length = hop_length
        if config.speakers:
            self.voices = nn.Embedding(config.speakers, config.speaker_width)

    @property
    @abstractmethod
    def group(self) -> int:
        """Samples that the flow squeezes into one step: a length that is no multiple of it leaves a ragged end."""

    @abstractmethod
    def condition(self, mel: Tensor) -> Tensor:
        """Bring the mel to the flow: (batch, time, channels), one column per sample or per frame. Of a model that tells
        voices apart, the flow gets ``speaker_width`` channels more, see :meth:`with_voice`."""

    def forward(self, wave: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Return :meth:`log_prob`; wrappers such as DistributedDataParallel call this."""
        return self.log_prob(wave, mel, speaker)

    def log_prob(self, wave: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Return the exact log-density of each waveform given its mel: (batch,), nats."""
        return self.log_prob_samples(wave, mel, speaker).sum(dim=1)

    def log_prob_samples(self, wave: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Return where in time :meth:`log_prob` comes from: (batch, samples), nats that add up to it.

        log N(noise_t; 0, 1) + how much the flow stretches sample t

        This is as sharp in time as the flow is: what it does to a group of samples is shared evenly among them.
        """
        noise, log_det = self.encode(wave, mel, speaker)
        return log_normal(wide(noise)) + log_det

    def encode(self, wave: Tensor, mel: Tensor, speaker: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map a waveform to noise in time order; return it and the log-det of the map, (batch, samples) each."""
        noise, log_det = self.flow(wave.unsqueeze(1), self._cond(mel, wave, speaker))
        return noise.squeeze(1), log_det

    def decode(
        self, noise: Tensor, mel: Tensor, speaker: Tensor | None = None, state: State | None = None
    ) -> Tensor:
        """Map noise to the waveform that :meth:`encode` would take back to it.

        Args:
            state: of a stream of which this is a window; it is brought up to date.
        """
        wave, _ = self.flow.inverse(noise.unsqueeze(1), self._cond(mel, noise, speaker), state)
        return wave.squeeze(1)

    def sample(
        self, mel: Tensor, temperature: float = 0.8, generator: torch.Generator | None = None,
        speaker: Tensor | None = None,
    ) -> Tensor:
        """Draw a waveform: (batch, frames * hop_length).

        Args:
            mel: (batch, n_mels, frames).
            temperature: standard deviation of the noise.
            generator: where the noise comes from; the same one gives the same waveform.
            speaker: whose voice.
        """
        self.check_mel(mel)
        shape = mel.shape[0], self.whole_frames(mel.shape[-1]) * self.hop_length
        noise = temperature * torch.randn(shape, generator=generator, dtype=mel.dtype, device=mel.device)
        return self.render(noise, mel, speaker)

    def render(self, noise: Tensor, mel: Tensor, speaker: Tensor | None = None, state: State | None = None) -> Tensor:
        """Map noise (batch, whole_frames(frames) * hop_length) to a waveform (batch, frames * hop_length): :meth:`decode`,
        with the last frame of the mel repeated until the flow has no ragged end, so that every sample wanted is modelled."""
        self.check_mel(mel)
        frames = mel.shape[-1]
        extra = self.whole_frames(frames) - frames
        longer = torch.cat([mel, mel[..., -1:].expand(-1, -1, extra)], dim=-1)
        return self.decode(noise, longer, speaker, state)[:, : frames * self.hop_length]

    @property
    def frame_grid(self) -> int:
        """Frames after which the flow's groups of samples and the mel's hops begin together again."""
        return math.lcm(self.group, self.hop_length) // self.hop_length

    def whole_frames(self, frames: int) -> int:
        """Return ``frames`` rounded up to a whole number of the flow's groups."""
        return -(-frames // self.frame_grid) * self.frame_grid

    @property
    def receptive_field(self) -> ReceptiveField:
        """Frames of context, before and after, with which a chunk of the inverse equals the same part of the whole; where
        the flow is recurrent, given the :class:`~flowavenet.transforms.State` of what came before."""
        left, right = (-(-samples // self.hop_length) for samples in self.flow.receptive_field)
        return ReceptiveField(left, right) + self.cond_receptive_field

    @property
    def constant_memory(self) -> bool:
        """Whether training computes the activations of nets again instead of keeping them; gradients are the same."""
        return any(net.checkpointed for net in self.modules() if isinstance(net, Net))

    @constant_memory.setter
    def constant_memory(self, on: bool) -> None:
        for net in self.modules():
            if isinstance(net, Net):
                net.checkpointed = on

    def _cond(self, mel: Tensor, wave: Tensor, speaker: Tensor | None) -> Tensor:
        self.check_mel(mel)
        if wave.ndim != 2:
            raise ValueError(f"wave has shape {tuple(wave.shape)}, this wants (batch, samples): use wave[None]")
        frames = -(-wave.shape[1] // self.hop_length)
        if mel.shape[-1] != frames or mel.shape[0] != wave.shape[0]:
            raise ValueError(
                f"mel is {mel.shape[0]} x {mel.shape[-1]} frames, but a wave of {wave.shape[0]} x {wave.shape[1]} samples "
                f"has {wave.shape[0]} x {frames} at hop {self.hop_length}: compute both from the same audio"
            )
        return self.conditioning(mel, speaker)[..., : wave.shape[1], :]

    def conditioning(self, mel: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Return what the flow gets: :meth:`condition`, and the voice if the model tells voices apart."""
        voice = self.voice(speaker, mel.shape[0])
        cond = self.condition(mel)
        return cond if voice is None else self.with_voice(cond, voice)

    @staticmethod
    def with_voice(cond: Tensor, voice: Tensor) -> Tensor:
        """Append the vectors (batch or 1, speaker_width) to the channels of the conditioning, the same at every time."""
        while voice.ndim < cond.ndim:
            voice = voice.unsqueeze(1)
        return torch.cat([cond, voice.to(cond.dtype).expand(*cond.shape[:-1], -1)], dim=-1)

    def voice(self, speaker: Tensor | None, batch: int = 1) -> Tensor | None:
        """Return the vectors that stand for speakers, (batch or 1, speaker_width); None if the model knows no voices.

        Raises ValueError, in one line, if these are no speakers for this model and so many items.
        """
        count, width = self.config.speakers, self.config.speaker_width

        def refusal(what: str) -> ValueError:
            numbers = f"numbers ({batch},) from 0 to {count - 1} or " if count else ""
            return ValueError(f"speaker {what}; this model wants {numbers}vectors ({batch}, {width})")

        if not width:
            if speaker is not None:
                raise ValueError(f"speaker is {tuple(speaker.shape)}, but this model tells no voices apart: leave it out")
            return None
        if speaker is None:
            raise refusal("is missing")
        vectors = speaker.is_floating_point()
        fits = speaker.ndim > 0 and speaker.shape[1:] == ((width,) if vectors else ())
        if not fits or (speaker.shape[0] != batch and speaker.shape[0] != 1):          # a compiler may not know the batch
            raise refusal(f"has shape {tuple(speaker.shape)}, {speaker.dtype}")
        if vectors:
            return speaker
        if not count:
            raise refusal(f"is {speaker.tolist()}")
        # a graph that is compiled or exported cannot look at numbers
        if not torch.compiler.is_compiling() and not 0 <= int(speaker.min()) <= int(speaker.max()) < count:
            raise refusal(f"is {speaker.tolist()}")
        return self.voices(speaker)

    def check_mel(self, mel: Tensor) -> None:
        """Raise ValueError, in one line, if this is no mel for this model."""
        if mel.ndim != 3 or mel.shape[1] != self.n_mels:
            cure = "transpose it" if mel.shape[-1] == self.n_mels else "compute it with this checkpoint's mel settings"
            raise ValueError(f"mel has shape {tuple(mel.shape)}, this model wants (batch, {self.n_mels}, frames): {cure}")
        if mel.shape[-1] == 0:
            raise ValueError(f"mel has 0 frames (shape {tuple(mel.shape)}): give at least 1")


def frame_sums(samples: Tensor, hop_length: int) -> Tensor:
    """Sum over the samples of each frame of the mel: (batch, samples) to (batch, ceil(samples / hop_length))."""
    padded = nn.functional.pad(samples, (0, -samples.shape[1] % hop_length))
    return padded.unflatten(1, (-1, hop_length)).sum(dim=2)
