"""Measure what a flow does to recordings, part by part.

That is: how much each block stretches, how far scales spread, and whether the noise that comes out is Gaussian, as the
likelihood takes it to be.

Each function takes a few waves (batch, samples) with their mels, encodes them once, and watches parts of the flow meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from flowavenet.models import FlowVocoder
from flowavenet.transforms import ActNorm, AffineCoupling, ConditionalScale, FactorOut, Inverse, RowAutoregressive, Squeeze

COUPLINGS = (AffineCoupling, ConditionalScale, RowAutoregressive)
"""What scales by amounts that depend on the signal or on the mel, itself or in an ``Inverse``."""


def flow_statistics(model: FlowVocoder, wave: Tensor, mel: Tensor, speaker: Tensor | None = None) -> dict[str, float]:
    """Return all statistics, as ``log_det/block0`` or ``noise_variance/scale2``; none if encoding goes sample by sample."""
    if model.sequential == "encode":
        return {}
    given = wave, mel, speaker
    found = {f"log_det/{name}": value for name, value in log_dets(model, *given).items()}
    for name, log_scales in (coupling_log_scales(model, *given) | actnorm_log_scales(model)).items():
        found[f"log_scale_mean/{name}"] = float(log_scales.mean())
        found[f"log_scale_spread/{name}"] = float(log_scales.std(correction=0))
    for name, noise in noise_by_scale(model, *given).items():
        centred = noise - noise.mean()
        found[f"noise_mean/{name}"] = float(noise.mean())
        found[f"noise_variance/{name}"] = float(centred.square().mean())
        found[f"noise_kurtosis/{name}"] = float(centred.pow(4).mean() / centred.square().mean() ** 2)
    return found


def log_dets(model: FlowVocoder, wave: Tensor, mel: Tensor, speaker: Tensor | None = None) -> dict[str, float]:
    """Return the log-det that each block contributes, nats per sample, by name; they add up to the model's.

    A block is a view that squeezes time. Blocks lie inside one another, so what a block contributes itself is its log-det
    less that of the blocks directly inside.
    """
    blocks = {name: part for name, part in model.flow.named_modules(prefix="flow") if isinstance(part, Squeeze)}
    total: dict[str, float] = {}

    def keep(name: str, _part: nn.Module, _inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        total[name] = float(output[1].sum()) / wave.numel()

    _encode(model, [(part, partial(keep, name)) for name, part in blocks.items()], wave, mel, speaker)
    own = dict(total)
    for name in blocks:
        around = [other for other in blocks if name.startswith(f"{other}.")]
        if around:
            own[max(around, key=len)] -= total[name]
    return {f"block{number}": own[name] for number, name in enumerate(blocks)}


@torch.no_grad()
def coupling_log_scales(
    model: FlowVocoder, wave: Tensor, mel: Tensor, speaker: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the logarithms of the factors from audio to noise of each coupling, flat, by name, in the order of the flow."""
    couplings = [part for part in model.flow.modules() if isinstance(getattr(part, "transform", part), COUPLINGS)]
    inputs: dict[int, tuple] = {}

    def keep(number: int, _part: nn.Module, given: tuple, _output: tuple[Tensor, Tensor]) -> None:
        inputs[number] = given

    _encode(model, [(part, partial(keep, number)) for number, part in enumerate(couplings)], wave, mel, speaker)
    found = []
    for number in sorted(inputs):
        found.append(_log_factors(couplings[number], *inputs[number]).flatten())
    return {f"coupling{number}": log_scales for number, log_scales in enumerate(found)}


def _log_factors(coupling: nn.Module, x: Tensor, cond: Tensor | None = None) -> Tensor:
    """Return the logarithms of the factors from ``x`` to the result of the coupling, itself or in an ``Inverse``."""
    if isinstance(coupling, Inverse):
        return -coupling.transform.log_factors(coupling(x, cond)[0], cond)
    return coupling.log_factors(x, cond)


def actnorm_log_scales(model: FlowVocoder) -> dict[str, Tensor]:
    """Return the logarithms of the scales of each ActNorm, by name, in the order of the flow."""
    norms = [part for part in model.flow.modules() if isinstance(part, ActNorm)]
    return {f"actnorm{number}": norm.scale.detach().abs().log().flatten() for number, norm in enumerate(norms)}


def noise_by_scale(model: FlowVocoder, wave: Tensor, mel: Tensor, speaker: Tensor | None = None) -> dict[str, Tensor]:
    """Return the noise, flat, by where it leaves the flow: ``scale0`` after the fewest steps.

    A view hands its inner transform's result on, and puts what it kept back beside it. So a result that has been noted is
    replaced by NaN: what is not NaN further out has left there.
    """
    views = [part.inner for part in model.flow.modules() if isinstance(part, Squeeze | FactorOut)]
    inner = list(dict.fromkeys(views)) or [model.flow]
    found: dict[int, Tensor] = {}

    def keep(number: int, _part: nn.Module, _inputs: tuple, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z, log_det = output
        found[number] = z[~z.isnan()]
        return torch.full_like(z, torch.nan), log_det

    _encode(model, [(part, partial(keep, number)) for number, part in enumerate(inner)], wave, mel, speaker)
    leaving = [found[number] for number in sorted(found) if len(found[number])]
    return {f"scale{number}": noise for number, noise in enumerate(leaving)}


@torch.no_grad()
def _encode(
    model: FlowVocoder, hooks: list[tuple[nn.Module, Callable]], wave: Tensor, mel: Tensor, speaker: Tensor | None
) -> None:
    """Encode, while each hook sees its module, its inputs and its output."""
    handles = [part.register_forward_hook(hook) for part, hook in hooks]
    try:
        model.encode(wave, mel, speaker)
    finally:
        for handle in handles:
            handle.remove()
