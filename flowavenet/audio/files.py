"""Audio files in and out, strictly: a file is read whole and right, or refused in one line that says why."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowavenet.files import write_atomically

if TYPE_CHECKING:
    from soundfile import SoundFile

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SUBTYPES = {".wav": "PCM_16", ".flac": "PCM_16", ".ogg": "VORBIS"}
MAX_CHANNELS = 8  # FLAC's limit; more than that is a transposed wave
UNKNOWN_BYTES = 0x7FFF0000  # a WAV streamed into a pipe states a length near 2^31 or 2^32: "don't know"
MAX_WAV_BYTES = (1 << 32) - (1 << 16)  # of samples: its header counts all that follows in 32 bits
UNKNOWN_FRAMES = 1 << 48  # a streamed FLAC states none, which libsndfile reports as its largest number
RATES = 1000, 768_000
"""Hz, of files."""
BLOCK = 1 << 16


def load_audio(path: str | Path, sample_rate: int) -> Tensor:
    """Read an audio file as one channel at the wanted sample rate.

    Channels are averaged; another rate is converted by soxr at high quality. A file that is cut short is
    noticed by its header, except in Ogg, which has no length there.

    Args:
        path: a wav, flac, ogg or mp3 file.
        sample_rate: of the result, Hz.

    Returns:
        (1, samples), float32; full scale is [-1, 1], and float files may exceed it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not audio, cut short, empty, or has samples that are not finite.
    """
    return torch.cat(list(audio_blocks(path, sample_rate)), dim=1)


def audio_blocks(path: str | Path, sample_rate: int) -> Iterator[Tensor]:
    """Read an audio file as :func:`load_audio` does, but piece by piece, so that memory does not grow with its length.

    Yields:
        (1, samples), float32, of any lengths; together the very samples of the whole.
    """
    _check_rate(sample_rate)
    with _opened(Path(path)) as file:
        for block in resampled(_decoded(Path(path), file), file.samplerate, sample_rate):
            if len(block):
                yield torch.from_numpy(block)[None]


def save_audio(path: str | Path, wave: Tensor | np.ndarray | Iterable[Tensor], sample_rate: int) -> None:
    """Write a wave as 16-bit audio; the file appears complete or not at all.

    sample = clip(round(wave * 32768), -32768, 32767)

    Args:
        path: its suffix chooses the format: .wav or .flac (lossless), .ogg (Vorbis, lossy).
        wave: (samples,), (1, samples) or (channels, samples), floats in [-1, 1]; or an iterable of such pieces, in time
            order, that need never be in memory together.
        sample_rate: Hz.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: unknown suffix, wrong shape, no samples, samples that are not finite, or more than a WAV can count.
    """
    _check_rate(sample_rate)
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUBTYPES:
        kind = suffix or "a file without suffix"
        raise ValueError(f"{path}: cannot write {kind}; use {', '.join(SUBTYPES)}")
    pieces = (_as_16_bits(path, piece) for piece in ([wave] if isinstance(wave, (Tensor, np.ndarray)) else wave))
    first = next(pieces, None)
    if first is None:
        raise ValueError(f"{path}: there are no pieces of a wave to write")

    import soundfile

    with write_atomically(path) as temporary:
        with soundfile.SoundFile(temporary, "w", sample_rate, first.shape[1], SUBTYPES[suffix]) as file:
            for samples in chain([first], pieces):
                # In blocks, because the Vorbis encoder keeps what it is given at once on the stack.
                for start in range(0, len(samples), BLOCK):
                    file.write(samples[start : start + BLOCK])
                    if suffix == ".wav" and file.frames * 2 * file.channels > MAX_WAV_BYTES:
                        hours = MAX_WAV_BYTES / (2 * file.channels * sample_rate * 3600)
                        raise ValueError(f"{path}: longer than the {hours:.1f} h that a WAV can hold; write .flac, or parts")
            given = file.frames
        with soundfile.SoundFile(temporary) as file:
            if file.frames != given:                                   # the Vorbis encoder says nothing of a full disk
                raise OSError(f"{path}: only {file.frames} of {given} samples could be written")


class AudioInfo(NamedTuple):
    """What the header of an audio file says."""

    seconds: float
    sample_rate: int


def audio_info(path: str | Path) -> AudioInfo:
    """Read the duration (seconds) and the sample rate (Hz) of an audio file from its header, without decoding it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not audio, or its header promises more than the file holds.
    """
    with _opened(Path(path)) as file:
        return AudioInfo(file.frames / file.samplerate, file.samplerate)


def list_audio(folder: str | Path) -> list[Path]:
    """Find all audio files in a folder and its sub-folders, as :func:`list_files` does."""
    return list_files(folder, AUDIO_SUFFIXES)


def list_files(folder: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Find the files with these suffixes in a folder and its sub-folders, sorted, without hidden (unfinished) ones.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    found = []
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            found.append(path)
    return sorted(found)


@contextmanager
def _opened(path: Path) -> Iterator[SoundFile]:
    """Open an audio file to read; refuse what is no audio, and a WAV that is shorter than its header says."""
    import soundfile

    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give an audio file")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: is an empty file, 0 bytes; copy or download it again")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a .raw file, which has no header
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise ValueError(
            f"{path}: not an audio file that can be read ({reason}); convert it to wav or flac, or remove it"
        ) from None
    with file:
        # libsndfile takes a shortened WAV for a shorter recording, so its header is checked here.
        promised, present = _wav_bytes(path)
        if present < promised < UNKNOWN_BYTES:
            raise ValueError(_cut_short(path, "bytes of samples", promised, present))
        if not RATES[0] <= file.samplerate <= RATES[1]:                # a few kB at 1 Hz would become hours
            raise ValueError(
                f"{path}: its header says {file.samplerate} Hz, {RATES[0]} to {RATES[1]} are taken; correct it, or remove it"
            )
        if file.frames > UNKNOWN_FRAMES:
            raise ValueError(f"{path}: its header does not tell its length; write it anew with flac or sox")
        yield file


def _decoded(path: Path, file: SoundFile) -> Iterator[np.ndarray]:
    """The samples of an open file block by block, its channels averaged; what is damaged is refused when it is met."""
    promised, done = file.frames, 0
    while True:
        try:
            channels = file.read(BLOCK, dtype="float32", always_2d=True)  # (samples, channels)
        except (RuntimeError, MemoryError) as error:
            raise ValueError(
                f"{path}: cut short or damaged, the {promised} samples its header promises cannot be decoded "
                f"({error}); copy or download it again"
            ) from None
        if len(channels) == 0:
            break
        bad = ~np.isfinite(channels).all(axis=1)
        if bad.any():
            first = done + int(bad.argmax())
            raise ValueError(
                f"{path}: {bad.sum()} of the first {done + len(bad)} samples are NaN or infinite, the first at {first} "
                f"({first / file.samplerate:.3f} s); repair or remove it"
            )
        done += len(channels)
        yield channels.mean(axis=1)
    if done < promised:
        raise ValueError(_cut_short(path, "samples", promised, done))
    if done == 0:
        raise ValueError(f"{path}: has 0 samples; remove it or record it again")


def resampled(blocks: Iterable[np.ndarray], rate: int, wanted_rate: int) -> Iterator[np.ndarray]:
    """Blocks (samples,), float32, at another sample rate: together samples * wanted_rate / rate of them, rounded up."""
    if rate == wanted_rate:
        yield from blocks
        return
    import soxr

    stream, taken, given = soxr.ResampleStream(rate, wanted_rate, 1, "float32", "HQ"), 0, 0
    for block in blocks:
        taken += len(block)
        block = stream.resample_chunk(block)
        given += len(block)
        yield block
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    missing = -(-taken * wanted_rate // rate) - given - len(rest)      # soxr rounds to the nearest
    yield np.pad(rest, (0, max(0, missing)))


def _as_16_bits(path: Path, wave: Tensor | np.ndarray) -> np.ndarray:
    """(samples, channels), int16, of a wave or a piece of one that is to be written to ``path``."""
    wave = torch.as_tensor(wave).detach()
    shape = tuple(wave.shape)
    wave = wave[None] if wave.dim() == 1 else wave
    if wave.dim() != 2:
        raise ValueError(f"{path}: wave has shape {shape}, must be (channels, samples); pass wave[0]")
    if wave.shape[0] > MAX_CHANNELS:
        raise ValueError(f"{path}: wave has shape {shape}, more than {MAX_CHANNELS} channels; pass wave.T")
    if wave.numel() == 0:
        raise ValueError(f"{path}: wave has shape {shape}, there is no sample to write")
    if not wave.is_floating_point():
        raise ValueError(f"{path}: wave is {wave.dtype}, must be floats; for 16 bits pass wave / 32768")
    wave = wave.to("cpu", torch.float64)
    bad = int((~wave.isfinite()).sum())
    if bad:
        raise ValueError(f"{path}: {bad} of {wave.numel()} samples are NaN or infinite; nothing was written")
    return (wave * 32768).round().clamp(-32768, 32767).to(torch.int16).T.contiguous().numpy()


def _wav_bytes(path: Path) -> tuple[int, int]:
    """How many bytes of samples a WAV header promises, and how many the file has; (0, 0) if it is no WAV."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return 0, 0
        file.seek(12)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return length, size - file.tell()
            file.seek(length + length % 2, os.SEEK_CUR)  # chunks begin at even places
    return 0, 0


def _cut_short(path: Path, what: str, promised: int, present: int) -> str:
    return f"{path}: cut short, has {present} of {promised} {what} its header promises; download it again"


def _check_rate(sample_rate: int) -> None:
    if not isinstance(sample_rate, int) or sample_rate <= 0:
        raise ValueError(f"sample_rate is {sample_rate!r}, must be a whole number of Hz, such as 22050")
