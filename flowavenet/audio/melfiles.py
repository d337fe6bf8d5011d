"""Mel spectrograms from files, whoever wrote them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import numpy as np
import torch
from torch import Tensor

from flowavenet.audio.settings import LARGEST_VALUE
from flowavenet.files import NPY, short, write_atomically

MEL_SUFFIXES = (".npy", ".npz", ".pt", ".safetensors", ".h5")
MEL_NAMES = ("mel", "mels", "feats", "mel_spectrogram", "melspectrogram")
"""Names of the array that is taken of a file that holds several."""
MOST = 2**28
"""Values that are read of a compressed file: a few bytes in it can stand for any number of them."""


LAYOUTS = ("(bands, frames)", "(frames, bands)")


def load_mel(path: str | os.PathLike, n_mels: int = 80) -> Tensor:
    """Read one mel spectrogram: (1, n_mels, frames), float32.

    Takes what front-ends write: .npy, .pt (a tensor, or a dict that holds one), .safetensors, .npz or .h5 (needs h5py), of
    which the last three may hold several arrays if one of them is the mel by its name or shape; (n_mels, frames) or
    (frames, n_mels), with any number of leading dimensions of size 1; any float type. Nothing in a file is executed.

    Args:
        path: the file.
        n_mels: bands that the vocoder wants; tells the two layouts apart.

    Raises ValueError or FileNotFoundError in one line: no such file, not an array, several utterances, another number of
    bands, no frames, values that are not finite.
    """
    file = MelFile(path)
    if n_mels not in file.shape:
        raise ValueError(
            f"{path}: shape {file.shape} has no dimension of {n_mels}; mels of {n_mels} bands are (bands, frames) or "
            f"(frames, bands): compute it with the vocoder's mel settings, or say how many it has, load_mel(path, n_mels)"
        )
    return file.read(LAYOUTS[file.shape[0] != n_mels])


class MelFile:
    """One mel spectrogram in a file: checked by its header when opened, of which any part can then be read.

    What :func:`load_mel` takes, and its errors; only what is read is looked at for values that are not finite.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.shape: tuple[int, ...] = tuple(self._mapped().shape)
        """Without leading dimensions of size 1."""

    def frames(self, layout: str) -> int:
        """Frames, if the dimensions are what the layout says, one of :data:`LAYOUTS`."""
        return self.shape[_time(layout)]

    def beginning(self, most: int) -> Tensor:
        """At most so much of each dimension, as it lies in the file."""
        return self._mapped()[:most, :most].clone()

    def read(self, layout: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Frames start ... stop - 1, or all from start on: (1, bands, stop - start), float32."""
        mel = self._mapped()
        mel = (mel.T if _time(layout) == 0 else mel)[:, start:stop]
        # a copy, so that the file can be let go, with the memory that the pages read of it take
        mel = mel.to(torch.float32, copy=True).contiguous()
        if bad := int((~torch.isfinite(mel)).sum()):
            raise ValueError(
                f"{self.path}: {bad} of {mel.numel()} values are not finite; look at the front-end that wrote it"
            )
        if (largest := mel.abs().max().item() if mel.numel() else 0.0) > LARGEST_VALUE:
            raise ValueError(
                f"{self.path}: its values go up to {largest:.3g}, those of mels, as logarithms, to {LARGEST_VALUE:g}; look "
                f"at the front-end that wrote it"
            )
        return mel[None]

    def _mapped(self) -> Tensor:
        """The two dimensions of the mel as they lie in the file, which is only read where it is looked at."""
        path = self.path
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
        if mel.ndim < 2:
            raise ValueError(f"{path}: shape {found} has fewer than 2 dimensions, bands and frames")
        if 0 in found:
            raise ValueError(f"{path}: shape {found} has 0 frames; the front-end made nothing")
        return mel


def save_mel(path: str | os.PathLike, mel: Tensor) -> None:
    """Write one mel spectrogram (1, n_mels, frames) as .npy, (n_mels, frames); the file appears complete or not at all."""
    content = io.BytesIO()                                             # as NumPy does not notice that a disk gets full
    np.save(content, mel[0].numpy())
    with write_atomically(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def _time(layout: str) -> int:
    """The dimension of time."""
    return int(LAYOUTS.index(layout) == 0)


def _read(path: Path) -> Tensor:
    if path.suffix.lower() not in MEL_SUFFIXES:
        raise ValueError(f"{path}: {path.suffix or 'no suffix'} is not one of {', '.join(MEL_SUFFIXES)}; save it as one")
    try:
        if path.suffix.lower() == ".npy":
            with NPY:
                content = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
        elif path.suffix.lower() == ".pt":
            # files of before torch 1.6 are no archives, and cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
        elif path.suffix.lower() in (".npz", ".h5"):
            content = _arrays(path)
        else:
            from safetensors.torch import load_file

            content = load_file(path)
    except Exception as error:  # whatever the readers stumble over in a file that is not one
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: not a whole {path.suffix} file of numbers ({reason}); write it again") from error
    if isinstance(content, dict):
        content = _only(path, content)
    if not isinstance(content, Tensor):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a tensor; save the mel alone")
    plain = content.device.type == "cpu" and content.layout == torch.strided and not content.is_quantized
    if not plain or content.numel() * content.element_size() > content.untyped_storage().nbytes():
        raise ValueError(f"{path}: does not hold the {short(tuple(content.shape))} numbers of its shape; save a whole mel")
    return content


def _only(path: Path, content: dict) -> Tensor:
    """Return the mel among the tensors of a file: the only one, the only one of two dimensions, or the one named so."""
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    named = [tensors[name] for name in MEL_NAMES if name in tensors]
    flat = [value for value in tensors.values() if value.squeeze().dim() == 2 and value.dtype.is_floating_point]
    for some in (list(tensors.values()), named, flat):
        if len(some) == 1:
            return some[0]
    names = short(", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items()))
    cure = f"call the mel {MEL_NAMES[0]}, or save it alone"
    raise ValueError(f"{path}: holds {len(tensors)} tensors ({names}); {cure}")


def _arrays(path: Path) -> dict[str, Tensor]:
    """Read the arrays of numbers of a .npz or .h5 file, by name."""
    found: dict[str, Tensor] = {}
    if path.suffix.lower() == ".npz":
        with ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > 8 * MOST:
            raise ValueError(f"it unpacks to {size} bytes, more than {8 * MOST}")
        with NPY, np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                if archive[name].dtype.kind in "fiu":
                    found[name] = torch.from_numpy(archive[name])
        return found
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError("reading .h5 needs h5py: pip install h5py; or save it as .npy") from None
    with h5py.File(path, "r") as file:
        for name, data in file.items():
            if isinstance(data, h5py.Dataset) and data.dtype.kind in "fiu":
                if data.size > MOST:
                    raise ValueError(f"{name} is of {data.size} values, more than {MOST}")
                found[name] = torch.from_numpy(data[()])
    return found
