"""Where in time a recording is likely, and where it surprises the model."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from flowavenet.vocoder import Speaker, Vocoder

BATCH_FRAMES = 4096
"""Frames that are scored at once, at most."""


def likelihood_over_time(
    vocoder: Vocoder, wave: Tensor, mel: Tensor, step: int = 8, context: int = 32, speaker: Speaker | None = None
) -> Tensor:
    """What each few frames add to the log-likelihood of what came before them: (steps,), nats per sample.

    log p(wave[a - context : b]) - log p(wave[a - context : a]),  a, b: where a step begins and ends

    A flow gives one number for a whole recording; by the chain rule it is the sum of such conditional ones. They add up
    exactly to that number if the context goes back to the beginning, and nearly so if it covers what the model depends on.

    Args:
        wave: (1, samples).
        mel: (1, n_mels, frames), of this wave.
        step: frames per step, the last step has what is left; both are rounded up to whole groups of the flow.
        context: frames that are heard before a step, or as many as there are.
    """
    hop, frames = vocoder.settings.hop_length, mel.shape[-1]
    step, context = (vocoder.model.whole_frames(size) for size in (step, context))
    steps = [(max(0, a - context), a, min(a + step, frames)) for a in range(0, frames, step)]
    wanted = {(begin, end) for begin, a, b in steps for end in (a, b) if end > begin}
    by_length = defaultdict(list)
    for begin, end in sorted(wanted):
        by_length[end - begin].append(begin)
    nats = {}
    for length, begins in by_length.items():
        count = max(1, BATCH_FRAMES // length)
        for some in (begins[i : i + count] for i in range(0, len(begins), count)):
            waves = torch.cat([wave[:, begin * hop : (begin + length) * hop] for begin in some])
            mels = torch.cat([mel[..., begin : begin + length] for begin in some])
            found = vocoder.log_prob(waves, mels, speaker).tolist()
            nats |= {(begin, begin + length): value for begin, value in zip(some, found, strict=True)}
    samples = [min(b * hop, wave.shape[1]) - a * hop for _, a, b in steps]
    added = [nats[begin, b] - nats.get((begin, a), 0.0) for begin, a, b in steps]
    return torch.tensor(added) / torch.tensor(samples)
