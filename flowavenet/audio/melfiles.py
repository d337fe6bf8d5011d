"""Mel spectrograms from files, whoever wrote them."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

MEL_SUFFIXES = (".npy", ".pt", ".safetensors")


def load_mel(path: str | os.PathLike, n_mels: int) -> Tensor:
    """Read one mel spectrogram: (1, n_mels, frames), float32.

    Takes what front-ends write: .npy, .pt (a tensor, or a dict that holds one) or .safetensors; (n_mels, frames) or
    (frames, n_mels), with any number of leading dimensions of size 1; any float type. Nothing in a file is executed.

    Args:
        path: the file.
        n_mels: bands that the vocoder wants; tells the two layouts apart.

    Raises ValueError or FileNotFoundError in one line: no such file, not an array, several utterances, another number of
    bands, no frames, values that are not finite.
    """
    return MelFile(path, n_mels).read()


class MelFile:
    """One mel spectrogram in a file: checked by its header when opened, of which any part can then be read.

    The arguments and errors of :func:`load_mel`; only what is read is looked at for values that are not finite.
    """

    def __init__(self, path: str | os.PathLike, n_mels: int):
        self.path, self.n_mels = Path(path), n_mels
        self.frames = self._mapped().shape[1]

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Frames start ... stop - 1, or all from start on: (1, n_mels, stop - start), float32."""
        # a copy, so that the file can be let go, with the memory that the pages read of it take
        mel = self._mapped()[:, start:stop].to(torch.float32, copy=True).contiguous()
        if bad := int((~torch.isfinite(mel)).sum()):
            raise ValueError(
                f"{self.path}: {bad} of {mel.numel()} values are not finite; look at the front-end that wrote it"
            )
        return mel[None]

    def _mapped(self) -> Tensor:
        """The mel (n_mels, frames) as it lies in the file, which is only read where it is looked at."""
        path, n_mels = self.path, self.n_mels
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        mel = _read(path)
        if not mel.dtype.is_floating_point:
            raise ValueError(f"{path}: holds {mel.dtype}, a mel spectrogram is floating point; save it as float32")
        found = tuple(mel.shape)
        while mel.ndim > 2 and mel.shape[0] == 1:
            mel = mel[0]
        if mel.ndim > 2:
            raise ValueError(f"{path}: shape {found} holds {mel.shape[0]} utterances; save one per file")
        if mel.ndim < 2 or n_mels not in mel.shape:
            bands = f"no dimension of {n_mels}" if mel.ndim == 2 else "fewer than 2 dimensions"
            raise ValueError(
                f"{path}: shape {found} has {bands}; this vocoder wants mels of {n_mels} bands, (bands, frames) or "
                f"(frames, bands): compute them with its mel settings"
            )
        if mel.shape[0] != n_mels:
            mel = mel.T
        if mel.shape[1] == 0:
            raise ValueError(f"{path}: shape {found} has 0 frames; the front-end made nothing")
        return mel


def _read(path: Path) -> Tensor:
    if path.suffix.lower() not in MEL_SUFFIXES:
        raise ValueError(f"{path}: {path.suffix or 'no suffix'} is not one of {', '.join(MEL_SUFFIXES)}; save it as one")
    try:
        if path.suffix.lower() == ".npy":
            content = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
        elif path.suffix.lower() == ".pt":
            # files of before torch 1.6 are no archives, and cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
        else:
            from safetensors.torch import load_file

            content = load_file(path)
    except Exception as error:  # whatever the readers stumble over in a file that is not one
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: not a whole {path.suffix} file of numbers ({reason}); write it again") from error
    if isinstance(content, dict):
        tensors = [value for value in content.values() if isinstance(value, Tensor)]
        if len(tensors) != 1:
            raise ValueError(f"{path}: holds {len(tensors)} tensors ({', '.join(map(str, content))}); save the mel alone")
        content = tensors[0]
    if not isinstance(content, Tensor):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a tensor; save the mel alone")
    return content
