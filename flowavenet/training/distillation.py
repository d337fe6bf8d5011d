"""Train by distillation: a flow that samples in parallel learns from a WaveNet that does not."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flowavenet.checkpoint import load_checkpoint
from flowavenet.losses import (
    contrastive,
    gaussian_kl,
    log_stft_loss,
    mismatched,
    mixture_log_prob,
    power_loss,
    probability_density_distillation,
    stft_loss,
    style_loss,
)
from flowavenet.models import IAF, WaveNet
from flowavenet.nets import load_weights
from flowavenet.nets.conv import rows
from flowavenet.training.base import VocoderTraining
from flowavenet.transforms import Gaussian, LogisticMixture


class DistillationTraining(VocoderTraining):
    """Make what the student draws likely to its teacher, and as varied as the teacher's own samples.

    loss = KL(student || teacher) + stft * stft_loss + ...,  at a waveform that the student draws from noise

    The student knows the distribution of each of its samples given the noise before it; the teacher says what it would have
    expected there, given the samples before. Gradients go to the student alone, through the frozen teacher as well. A
    Gaussian student has the closed form of ClariNet; a logistic one that of Parallel WaveNet, cross-entropy by Monte Carlo,
    for teachers with any continuous head. The divergence alone is content with a whisper; spectral losses keep the level.

    Args:
        teacher: a checkpoint folder of a wavenet with a gaussian or logistics head, trained on the same mels.
        share_upsampler: start with the teacher's mel upsampler and keep it as it is, as published.
        regularisation: of a Gaussian student: weight of the squared difference of log-scales.
        least_log_scale: of a Gaussian student: log-scales below this are raised to it in the divergence.
        draws: of a logistic student: draws around each sample, for the cross-entropy.
        kl: weight of the divergence.
        stft: weight of the squared difference of STFT magnitudes to the recording (ClariNet's).
        log_stft: weight of the difference of their logarithms.
        power: weight of the squared difference of mean power spectra (Parallel WaveNet's).
        style: weight of the difference between Gram matrices of the teacher's features (Parallel WaveNet's perceptual loss,
            whose features are those of a phone classifier).
        contrast: weight of the divergence under another clip's mel, which is to be large (Parallel WaveNet's; 0.3 there).
        kwargs: see :class:`~flowavenet.training.base.VocoderTraining`; ``name`` is gaussian_iaf or parallel_wavenet.

    Ping, Peng, Chen, "ClariNet", 2018, arXiv:1807.07281; van den Oord et al., "Parallel WaveNet", 2017, arXiv:1711.10433.
    """

    def __init__(
        self,
        teacher: str,
        share_upsampler: bool = True,
        regularisation: float = 4.0,
        least_log_scale: float = -6.0,
        draws: int = 100,
        kl: float = 1.0,
        stft: float = 1.0,
        log_stft: float = 0.0,
        power: float = 0.0,
        style: float = 0.0,
        contrast: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        model, mel, _ = load_checkpoint(teacher)
        if not isinstance(self.model, IAF):
            raise ValueError(f"model is a {type(self.model).__name__}; students are gaussian_iaf and parallel_wavenet")
        heads = (Gaussian, LogisticMixture) if self.model.logistic else (Gaussian,)
        if not isinstance(model, WaveNet) or not isinstance(model.head, heads):
            have = f"{type(model).__name__}, head {getattr(model.config, 'head', 'none')}"
            wanted = " or ".join(head.__name__ for head in heads)
            raise ValueError(f"{teacher}: holds a {have}; this student wants a WaveNet whose head is {wanted}")
        if mel != self.mel_settings:
            raise ValueError(f"{teacher}: was trained on {mel}, the recipe says {self.mel_settings}")
        if model.config.speakers != self.model.config.speakers:
            raise ValueError(
                f"{teacher}: has {model.config.speakers} speakers, the student {self.model.config.speakers}: make them equal"
            )
        model.requires_grad_(False)
        self._teacher = (model,)                                       # a tuple: it is nobody's weights to train or to save
        if share_upsampler:
            load_weights(self.model.upsampler, model.upsampler.state_dict())
            self.model.upsampler.requires_grad_(False)

    @property
    def teacher(self) -> WaveNet:
        """The frozen teacher, on the device of the student."""
        return self._teacher[0].to(self.device)

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the divergence, in nats per sample, and what else has a weight, at a waveform drawn for each crop."""
        hparams, (wave, mel, speaker) = self.hparams, self.crops(batch)
        noise = torch.randn(wave.shape, generator=generator, device=wave.device)
        drawn = self.model.draw(noise, mel, speaker)
        features, expected = self._expect(drawn.wave, mel, speaker)
        found = {"kl": self._divergence(drawn.mean, drawn.log_scale, expected, generator)}
        if hparams.contrast:
            _, others = self._expect(drawn.wave, mismatched(mel), speaker)
            apart = self._divergence(drawn.mean, drawn.log_scale, others, generator)
            found["contrast"] = contrastive(torch.zeros_like(apart), apart, 1.0)
        # as loud as the teacher hears it: the weights of squared differences depend on that
        made, recorded = self.teacher.config.gain * drawn.wave, self.teacher.config.gain * wave
        if hparams.stft:
            found["stft"] = stft_loss(made, recorded)
        if hparams.log_stft:
            found["log_stft"] = log_stft_loss(made, recorded)
        if hparams.power:
            found["power"] = power_loss(made, recorded)
        if hparams.style:
            found["style"] = style_loss(features, self._expect(wave, mel, speaker)[0])
        return {name: value.mean() for name, value in found.items()}

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        losses = self.losses(batch, self._generator(int(batch["index"][0])))
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), prog_bar=name == "kl", sync_dist=True)
        return sum(getattr(self.hparams, name) * value for name, value in losses.items())

    def scores(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.losses(batch, self._generator(int(batch["index"][0])))

    def _generator(self, index: int) -> torch.Generator:
        """Return the generator of the student's noise, by the batch's first crop: a resumed run draws the same."""
        return self.generator(index, purpose=1)

    def _expect(self, wave: Tensor, mel: Tensor, speaker: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Return the features of the teacher and the parameters of the distribution that it expects of each sample.

        Features are (batch, time, channels), what each of its layers adds to the skips.
        """
        features: list[Tensor] = []
        net = self.teacher.flow.inner.net
        hooks = [layer.register_forward_hook(lambda *seen: features.append(rows(seen[2]))) for layer in net.skip]
        net.tiled = False                                              # else each layer would be heard once for each tile
        try:
            return features, self.teacher.predict(wave, mel, speaker)
        finally:
            net.tiled = True
            for hook in hooks:
                hook.remove()

    def _divergence(self, mean: Tensor, log_scale: Tensor, expected: Tensor, generator: torch.Generator) -> Tensor:
        head, hparams, gain = self.teacher.head, self.hparams, self.teacher.config.gain
        mean, log_scale = gain * mean, log_scale + math.log(gain)
        if not self.model.logistic:
            shift, scale = head.shift_and_log_scale(expected)
            return gaussian_kl(mean, log_scale, shift, scale, hparams.least_log_scale, hparams.regularisation)
        if isinstance(head, Gaussian):
            shift, scale = head.shift_and_log_scale(expected)
            log_prob = torch.distributions.Normal(shift, scale.exp(), validate_args=False).log_prob
        else:
            logits, means, scales = head.mixture(expected)
            log_prob = partial(mixture_log_prob, logits=logits, means=means, log_scales=scales)
        return probability_density_distillation(mean, log_scale, log_prob, hparams.draws, generator)
