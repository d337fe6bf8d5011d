"""What the routes share: the vocoders, the thread of work, the limits, and how uploads are read."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowavenet.audio import CONVENTIONS
from flowavenet.audio.conventionfiles import user_conventions
from flowavenet.serve.limits import Admission, Limits, Refused
from flowavenet.serve.metrics import Metrics
from flowavenet.serve.uploads import Clip, load_clip
from flowavenet.serve.worker import Worker
from flowavenet.vocoder import Vocoder

READERS = 2
"""Uploads that are decoded at a time, beside the thread of work."""
BEGINNINGS = {
    b"\x93NUMPY": ".npy", b"PK\x03\x04": ".pt", b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3",
    b"\xff\xfb": ".mp3", b"\xff\xf3": ".mp3", b"\xff\xf2": ".mp3",
}
"""Kinds of files by their first bytes; names and media types are often wrong."""


class Synthesis(BaseModel):
    """How a request wants its audio; what is left out is as the checkpoint has it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    checkpoint: str | None = Field(None, description="One of /v1/checkpoints. [default: the first]")
    temperature: float | None = Field(None, ge=0, le=2, description="Standard deviation of the noise.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the noise; the same seed gives the same samples.")
    match: int | None = Field(None, ge=0, le=64, description="Rounds that bring the sample to exactly this mel; 0: none.")
    denoise: float = Field(0.0, ge=0, le=1, description="How much of the model's hum in silence to take out.")
    speaker: str | None = Field(None, description="Whose voice, by name, if the checkpoint tells voices apart.")
    mel_convention: str | None = Field(None, description="What the mel is, by name. [default: found out]")
    level: float = Field(0.0, ge=-100, le=100, description="dB to add to the mel.")

    def how(self) -> dict:
        """The settings that :meth:`Vocoder.stream` takes, but for the seed."""
        return {"temperature": self.temperature, "match": self.match, "denoise": self.denoise, "speaker": self.speaker}


class Service:
    """Vocoders by name, the first is the default; and what all requests share."""

    def __init__(self, vocoders: dict[str, Vocoder], limits: Limits, batch: int):
        self.vocoders, self.limits = vocoders, limits
        self.metrics, self.readers = Metrics(), anyio.CapacityLimiter(READERS)
        self.worker = Worker(self.metrics, batch)
        self.admission = Admission(limits, self.wait)
        self.sessions = anyio.CapacityLimiter(limits.requests)

    def vocoder(self, wanted: Synthesis) -> Vocoder:
        """The vocoder of a request, for which its settings make sense. Raises ValueError in one line."""
        name = wanted.checkpoint or next(iter(self.vocoders))
        if name not in self.vocoders:
            raise ValueError(f"checkpoint {name!r} is not served; choose one of: {', '.join(self.vocoders)}")
        known = *CONVENTIONS, *map(str, user_conventions())
        if wanted.mel_convention not in (None, *known):                # a path would open a file here
            raise ValueError(f"mel_convention {wanted.mel_convention!r} is not known; choose one of: {', '.join(known)}")
        self.vocoders[name].voice(wanted.speaker)
        return self.vocoders[name]

    def wait(self) -> float:
        """Seconds that a request would wait for its turn, as those that are being read will come before it."""
        reading = self.readers.statistics()
        return self.worker.wait(reading.borrowed_tokens + reading.tasks_waiting)

    async def take_in(self, content: bytes, wanted: Synthesis) -> tuple[Vocoder, Clip]:
        """Read an upload, in a thread. Raises ValueError, in one line, for what is no mel or recording, or too long."""

        def read() -> tuple[Vocoder, Clip]:
            vocoder = self.vocoder(wanted)
            with TemporaryDirectory(prefix="flowavenet-serve-") as folder:
                path = Path(folder) / f"upload{kind(content)}"
                path.write_bytes(content)
                return vocoder, load_clip(path, vocoder, wanted.mel_convention, wanted.level, self.limits.seconds)

        return await anyio.to_thread.run_sync(read, limiter=self.readers)


def wrong(error: ValidationError | RequestValidationError) -> str:
    """What is wrong with settings, each named, in one line."""
    places = [".".join(str(part) for part in one["loc"] if part != "query") for one in error.errors()]
    return "; ".join(f"{place or 'settings'}: {one['msg']}" for place, one in zip(places, error.errors(), strict=True))


def kind(content: bytes) -> str:
    """The suffix that a file of this content would have.

    >>> kind(b"fLaC and so on"), kind(bytes([2, 0, 0, 0, 0, 0, 0, 0]) + b'{}')
    ('.flac', '.safetensors')

    Raises :class:`Refused` for what is none of ours.
    """
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content):
        return ".safetensors"
    for beginning, suffix in BEGINNINGS.items():
        if content.startswith(beginning):
            return suffix
    what = f"begins with {content[:8].hex(' ')}" if content else "is empty, 0 bytes"
    raise Refused(415, f"the upload {what}; send a mel (npy, safetensors, pt) or audio (wav, flac, ogg, mp3) as the body")
