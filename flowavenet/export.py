"""Hand a vocoder to other runtimes: the whole inverse of the flow, with the noise and the mel as inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.fx.config
from torch import Tensor, nn

from flowavenet.files import write_atomically
from flowavenet.models import FlowVocoder
from flowavenet.nets import load_weights, remove_weight_norm
from flowavenet.transforms import InvertibleConv1x1
from flowavenet.vocoder import Vocoder


class Synthesis(nn.Module):
    """Noise and mel to a waveform, and nothing else: what is exported.

    Weight norms are multiplied out and mixing matrices inverted once and for all.

    Shapes: noise (batch, frames * hop_length), standard normal times the temperature; mel (batch, n_mels, frames) ->
    (batch, frames * hop_length); frames a multiple of the model's ``frame_grid``. Of a model that tells voices apart also
    speaker: numbers (batch,), int64; vectors (batch, speaker_width) if it has no numbers.
    """

    def __init__(self, model: FlowVocoder):
        super().__init__()
        self.model = type(model)(model.config, model.n_mels, model.hop_length).eval().requires_grad_(False)
        remove_weight_norm(self.model)
        load_weights(self.model, model.state_dict())
        for module in self.model.modules():
            if isinstance(module, InvertibleConv1x1):
                module.freeze()

    def forward(self, noise: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Tensor:
        return self.model.decode(noise, mel, speaker)


def export_program(vocoder: Vocoder) -> torch.export.ExportedProgram:
    """The inverse as a graph of torch operations, for any batch and any number of frames (of the grid; 3 at least), on the
    CPU."""
    if vocoder.model.sequential == "decode":
        raise ValueError(
            f"a {type(vocoder.model).__name__} decodes sample by sample, each given those before, which is no graph; "
            f"distil a parallel student from it with flowavenet distil, and export that"
        )
    model = vocoder.model.cpu()
    synthesis, grid = Synthesis(model), model.frame_grid
    frames = 8 * grid
    example: tuple[Tensor, ...] = torch.zeros(2, frames * model.hop_length), torch.zeros(2, model.n_mels, frames)
    # torch before 2.9 stumbles over the largest integer if nothing bounds them above
    most = {} if torch.__version__ >= (2, 9) else {"max": 1 << 14}
    batch, steps = torch.export.Dim("batch", min=1, **most), torch.export.Dim("steps", min=3 if grid == 1 else 2, **most)
    shapes: tuple[dict, ...] = {0: batch, 1: grid * model.hop_length * steps}, {0: batch, 2: grid * steps}
    if width := model.config.speaker_width:
        example += (torch.zeros(2, dtype=torch.int64) if model.config.speakers else torch.zeros(2, width),)
        shapes += ({0: batch},)
    with torch.no_grad(), _untraced():
        return torch.export.export(synthesis, example, dynamic_shapes=shapes)


@contextmanager
def _untraced() -> Iterator[None]:
    """Do not look up for each operation which lines of code it comes from, which takes half of the time."""
    config = torch.fx.config
    before = getattr(config, "do_not_emit_stack_traces", None)         # which older versions of torch may not have
    if before is None:
        yield
        return
    config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        config.do_not_emit_stack_traces = before


def save_onnx(program: torch.export.ExportedProgram, path: str | os.PathLike, opset: int = 20) -> None:
    """Write what :func:`export_program` made as one ONNX file: inputs ``noise``, ``mel`` and, of a model that tells voices
    apart, ``speaker``; output ``wave``.

    Needs the extra ``export``.
    """
    with _untraced():
        onnx = torch.onnx.export(
            program, dynamo=True, opset_version=opset, input_names=list(program.graph_signature.user_inputs),
            output_names=["wave"], optimize=True, verbose=False,
        )
    with write_atomically(Path(path)) as temporary:
        onnx.save(temporary)
