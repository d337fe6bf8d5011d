"""Draw the pictures of these pages from the shipped lapflow and a recording in tests/data: make pictures.

They are small, as they lie in the repository: coarse spectrograms, a palette of 32 colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from io import BytesIO
from pathlib import Path

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from flowavenet import Vocoder, load_audio
from flowavenet.evaluation.scoring import SHOWN, score
from flowavenet.files import write_atomically
from flowavenet.models import Lapflow
from flowavenet.transforms import MDCT, Interleave, Squeeze, Transform

HERE = Path(__file__).parent
STAGES = (
    "the recording", "divided by what the mel says", "every other frame, given its neighbours",
    "and of the rest every other", "and bands, given other bands: the noise",
)
TEMPERATURES = (0.0, 0.5, 0.8, 1.0)
ROUNDS = (0, 1, 4, 12)
COLOURS = colormaps["magma"].resampled(8)                              # so that the files are small


def main() -> None:
    vocoder = Vocoder.from_pretrained("lapflow-speech-22k")
    whole = load_audio(HERE.parent / "tests" / "data" / "lj.flac", vocoder.sample_rate)
    wave = whole[:, 12 * 1024 : 44 * 1024]                             # 1.5 s
    save("views", views())
    save("whitening", whitening(vocoder, wave))
    save("temperature", temperature(vocoder, wave))
    save("matching", matching(vocoder, wave))
    save("likelihood", likelihood(vocoder, whole))


def whitening(vocoder: Vocoder, wave: Tensor) -> Figure:
    """A recording on its way to noise: 25 ms of the wave, and all of its spectrogram."""
    figure = Figure(figsize=(9, 7.2), layout="constrained")
    axes = figure.subplots(len(STAGES), 2, sharex="col", width_ratios=(1, 1.6))
    for (left, right), name, (signal, nats) in zip(axes, STAGES, on_the_way(vocoder, wave), strict=True):
        part = signal[0, 15_000:15_550]
        left.plot(torch.arange(len(part)) / vocoder.sample_rate * 1000, part, color="#00695c", linewidth=0.8)
        left.set_ylabel(f"rms {signal.square().mean().sqrt():.2g}")
        draw_spectrogram(right, signal, vocoder.sample_rate, loudest=signal.square().mean().sqrt() * 30)
        right.set_title(f"{name}: {nats:.2f} nats per sample", fontsize=9)
    axes[-1, 0].set_xlabel("ms")
    axes[-1, 1].set_xlabel("seconds")
    return figure


def on_the_way(vocoder: Vocoder, wave: Tensor) -> Iterator[tuple[Tensor, float]]:
    """The signal after more and more of a lapflow, and the nats per sample if the flow ended there.

    A transform keeps shape and time order, so a flow may end anywhere: nothing takes the place of what is still to come.
    """
    mel = vocoder.mel(wave)
    for stage in range(len(STAGES)):
        model = deepcopy(vocoder.model)
        end(model, stage)
        with torch.no_grad():
            noise, _ = model.encode(wave, mel)
            nats = model.log_prob(wave, mel)
        yield noise, float(nats) / wave.shape[1]


def end(model: Lapflow, stage: int) -> None:
    if stage == 0:
        model.flow = Transform()
    elif stage == 1:
        model.flow.inner = model.flow.inner.transforms[0]
    elif stage < 4:
        frames = model.flow.inner.transforms[1]
        for _ in range(stage - 2):
            frames = frames.transforms[1].inner.transforms[1].inner
        frames.transforms[1].inner.transforms[1] = Transform()


def temperature(vocoder: Vocoder, wave: Tensor) -> Figure:
    """The same mel and the same noise, more and less of it."""
    mel = vocoder.mel(wave)
    signals = {"the recording": wave}
    for value in TEMPERATURES:
        signals[f"temperature {value:g}"] = vocoder(mel, temperature=value, seed=0, match=0)
    return spectrograms(signals, vocoder.sample_rate, loudest=30.0)


def matching(vocoder: Vocoder, wave: Tensor) -> Figure:
    """What rounds of matching make of a sample, below 4 kHz."""
    mel = vocoder.mel(wave)
    signals = {}
    for rounds in ROUNDS:
        made = vocoder(mel, seed=0, match=rounds)
        off = (vocoder.mel(made) - mel).abs().mean()
        signals[f"{rounds} round{'s' * (rounds != 1)}: log-mel off by {off:.2f}"] = made[:, : wave.shape[1]]
    return spectrograms(signals | {"the recording": wave}, vocoder.sample_rate, loudest=60.0, n_fft=1024, highest=4000)


def spectrograms(signals: dict[str, Tensor], rate: int, loudest: float, n_fft: int = 512, highest: float = 11025) -> Figure:
    figure = Figure(figsize=(9, 1.35 * len(signals)), layout="constrained")
    axes = figure.subplots(len(signals), 1, sharex=True)
    for axis, (name, signal) in zip(axes, signals.items(), strict=True):
        draw_spectrogram(axis, signal, rate, loudest, n_fft, highest)
        axis.set_title(name, fontsize=9)
    axes[-1].set_xlabel("seconds")
    return figure


def draw_spectrogram(
    axis: Axes, wave: Tensor, rate: int, loudest: float, n_fft: int = 512, highest: float = 11025
) -> None:
    """Levels down to 70 dB below a magnitude of ``loudest``."""
    window = torch.hann_window(n_fft)
    magnitude = torch.stft(wave[0], n_fft, 256, window=window, return_complex=True).abs()
    magnitude = magnitude[: round(len(magnitude) * highest * 2 / rate)]
    rows = len(magnitude) // (2 if n_fft == 1024 else 8)
    magnitude = torch.nn.functional.adaptive_avg_pool2d(magnitude[None], (rows, magnitude.shape[1]))[0]
    axis.imshow(
        20 * (magnitude.clamp(min=1e-9) / loudest).log10(), origin="lower", aspect="auto", vmin=-70, vmax=0, cmap=COLOURS,
        extent=(0, wave.shape[1] / rate, 0, highest / 1000), interpolation="nearest",
    )
    axis.set_ylabel("kHz")


def likelihood(vocoder: Vocoder, wave: Tensor) -> Figure:
    """Nats per frame over the mel of a recording of which a part is clipped."""
    wave = wave.clone()
    start, stop = (int(second * vocoder.sample_rate) for second in (1.6, 1.9))
    bound = wave.abs().max() / 5
    wave[:, start:stop] = wave[:, start:stop].clamp(-bound, bound)
    found = score(vocoder, wave)
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axis = figure.subplots()
    axis.imshow(
        found.mel, origin="lower", aspect="auto", cmap=COLOURS, interpolation="nearest",
        extent=(0, float(found.seconds[-1]), 0, len(found.mel)),
    )
    axis.set(xlabel="seconds", ylabel="mel band")
    nats, seconds = found.per_sample()
    beside = axis.twinx()
    beside.stairs(nats.clamp(-SHOWN, SHOWN), seconds, baseline=None, color="#5ef2e0", linewidth=1.2)
    beside.set_ylabel("nats per sample")
    for edge in (start, stop):
        axis.axvline(edge / vocoder.sample_rate, color="white", linestyle=":")
    return figure


def views() -> Figure:
    """Where eight samples, or frames, are while the inner transform works on them."""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    before, squeezed, interleaved, lapped = figure.subplots(1, 4, width_ratios=(2, 1, 1, 2))
    samples = torch.arange(8.0).reshape(1, 1, 8)
    draw_table(before, samples[0], "8 samples in time")
    draw_table(squeezed, Squeeze(4, Transform()).analyse(samples)[0], "Squeeze(4)")
    frames = torch.stack([samples[0, 0], samples[0, 0]])[None]
    draw_table(interleaved, Interleave(2, Transform()).analyse(frames)[0], "Interleave(2)")
    time = torch.arange(256) / 256
    chirp = torch.sin(2 * math.pi * (8 * time + 44 * time**2))[None, None]
    bands = MDCT(16, Transform()).analyse(chirp)[0]
    lapped.imshow(bands.abs(), origin="lower", aspect="auto", cmap="Greys")
    lapped.set(title="MDCT(16)", xlabel="frames", ylabel="bands", xticks=[], yticks=[])
    return figure


def draw_table(axis: Axes, numbers: Tensor, title: str) -> None:
    axis.imshow(numbers, cmap="Set3", vmin=0, vmax=11, aspect="equal")
    for row, values in enumerate(numbers.tolist()):
        for column, value in enumerate(values):
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=9)
    axis.set(title=title, xlabel="time", ylabel="channels", xticks=[], yticks=[])


def save(name: str, figure: Figure) -> None:
    """Write a PNG of few colours, whole or not at all."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=90)
    small = Image.open(drawn).convert("RGB").quantize(32, dither=Image.Dither.NONE)
    path = HERE / f"{name}.png"
    with write_atomically(path) as temporary:
        small.save(temporary, format="png", optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
