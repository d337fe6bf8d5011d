"""Sounds, mels and their conventions as hostile files: valid ones to begin with, and how the verbs read them."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

RATE = 22050
Seeds = list[bytes]


def tone(samples: int = 600) -> np.ndarray:
    return 0.5 * np.sin(np.arange(samples) / 10).astype(np.float32)


# Sounds


def sounds(kinds: list[tuple[str, str]], folder: Path) -> Seeds:
    """Of formats and subtypes as soundfile names them: one channel and two, other rates."""
    import soundfile

    made = []
    for number, (form, subtype) in enumerate(kinds):
        channels = 1 + number % 2 if form in ("WAV", "FLAC", "OGG", "AIFF") else 1
        out = io.BytesIO()
        soundfile.write(
            out,
            np.stack([tone()] * channels, 1),
            16000 if number % 3 == 0 or subtype == "OPUS" else RATE,
            subtype,
            format=form,
        )
        made.append(out.getvalue())
    return made


def read_sound(path: Path) -> None:
    import soundfile

    from flowavenet.audio import audio_info, load_audio

    info = audio_info(path)
    wave = load_audio(path, info.sample_rate)
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)  # as many as the header of an MP3 says
    mean = whole.mean(axis=1)
    assert np.allclose(wave[0, : len(mean)], mean, rtol=1e-5, atol=1e-6), "other samples than libsndfile has"
    again = load_audio(path, RATE)
    assert again.shape == (1, -(-wave.shape[1] * RATE // info.sample_rate)), "not resampled as a whole"
    assert again.isfinite().all(), "samples that are not finite"


WAVS = [("WAV", one) for one in ("PCM_16", "PCM_U8", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")]
WAVS += [("WAVEX", "PCM_16"), ("RF64", "PCM_16")]
FLACS = [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("FLAC", "PCM_S8")]
OGGS = [("OGG", "VORBIS"), ("OGG", "OPUS")]
OTHERS = [
    ("AIFF", "PCM_16"),
    ("AIFF", "FLOAT"),
    ("AU", "PCM_16"),
    ("AU", "ULAW"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("W64", "PCM_16"),
    ("VOC", "PCM_16"),
    ("SVX", "PCM_16"),
    ("NIST", "PCM_16"),
    ("MAT4", "PCM_16"),
    ("MAT5", "PCM_16"),
    ("PVF", "PCM_16"),
    ("PAF", "PCM_16"),
    ("IRCAM", "PCM_16"),
    ("HTK", "PCM_16"),
    ("AVR", "PCM_16"),
    ("WVE", "ALAW"),
    ("MPC2K", "PCM_16"),
]


# Mels


def mel(bands: int = 80, frames: int = 24) -> torch.Tensor:
    """Of a tone with a tremolo, which is taken for a mel."""
    from flowavenet.audio import MelSpectrogram, convention

    time = torch.arange(frames * 256)
    wave = torch.sin(time / 10 + torch.sin(time / 300)) * (0.3 + 0.2 * torch.sin(time / 1000))
    wave = wave + 0.01 * torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    return MelSpectrogram(convention("hifigan" if bands == 80 else "vocos"))(wave[None])[0, :, :frames]


def saved(content: Any, old: bool = False) -> bytes:
    """As torch saves it, now or before version 1.6."""
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=not old)
    return out.getvalue()


def as_npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npy_mels(folder: Path) -> Seeds:
    one = mel().numpy()
    return [as_npy(one), as_npy(one.T.astype(np.float16)), as_npy(one[None, :, :9].astype(">f8")), as_npy(mel(100).numpy())]


def torch_mels(folder: Path) -> Seeds:
    one = mel()[:, :9].clone()
    return [
        saved(one),
        saved(one.T.half()),
        saved({"mel": one}),
        saved(one, old=True),
        saved({"mel": one.double()}, old=True),
    ]


def safetensors_mels(folder: Path) -> Seeds:
    from safetensors.torch import save

    return [save({"mel": mel()}), save({"a": mel().T.contiguous().bfloat16()}, {"from": "elsewhere"})]


def read_mel(path: Path) -> None:
    from flowavenet.audio import MelSettings
    from flowavenet.batch import Mel
    from flowavenet.files import once

    try:
        source = Mel(path, MelSettings())
        found = torch.cat(list(source.mel()), dim=-1)
    except ValueError as error:
        raise ValueError(once(path, str(error))) from error  # as verbs do that go on past bad files
    assert found.shape == (1, 80, source.frames) and found.dtype == torch.float32, f"a mel of shape {tuple(found.shape)}"
    assert found.isfinite().all(), "a mel that is not finite"


def paired(folder: Path) -> Seeds:
    from flowavenet.audio import MelSettings, MelSpectrogram, load_audio, save_audio

    save_audio(folder / "a.wav", torch.from_numpy(tone(6000)), RATE)
    own = MelSpectrogram(MelSettings())(load_audio(folder / "a.wav", RATE))[0]
    return [as_npy(own.numpy())]


def read_pair(path: Path) -> None:
    from flowavenet.audio import MelSettings, MelSpectrogram
    from flowavenet.data.pairs import check_pair

    check_pair(path, path.with_suffix(".wav"), MelSpectrogram(MelSettings()))


# Mel conventions and their statistics


def conventions(folder: Path) -> Seeds:
    from flowavenet.audio import CONVENTIONS

    (folder / "stats.npy").write_bytes(as_npy(np.stack([np.zeros(80), np.ones(80)])))
    lines = [f"{key}: {'null' if value is None else value}\n" for key, value in asdict(CONVENTIONS["vocos"]).items()]
    return [b"like: hifigan\nf_max: 7600\n", b"like: coqui_db\nstatistics: stats.npy\n", "".join(lines).encode()]


def read_convention(path: Path) -> None:
    from flowavenet.audio import MelSpectrogram, mel_settings

    settings = mel_settings(str(path))
    found = MelSpectrogram(settings)(torch.from_numpy(tone(1000))[None])
    assert found.shape == (1, settings.n_mels, settings.frames(1000)), f"a mel of shape {tuple(found.shape)}"


def read_statistics(path: Path) -> None:
    read_convention(path.with_name("convention.yaml"))


def statistics(suffix: str, folder: Path) -> Seeds:
    (folder / "convention.yaml").write_text(f"like: coqui_db\nstatistics: stats{suffix}\n")
    mean, scale = np.linspace(-5, 5, 80), np.linspace(1, 2, 80)
    if suffix == ".npy":
        return [as_npy(np.stack([mean, scale])), as_npy(np.stack([mean, scale]).astype(np.float16))]
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file["mean"], file["scale"] = mean, scale
    return [out.getvalue()]
