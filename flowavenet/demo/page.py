"""The page: what is on it, and which of the :mod:`actions <flowavenet.demo.actions>` each button does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from flowavenet.audio import MEL_SUFFIXES
from flowavenet.batch import one_line
from flowavenet.demo import answers, words
from flowavenet.demo.answers import Request
from flowavenet.demo.clips import load_clip
from flowavenet.vocoder import Vocoder

EXAMPLES = Path(__file__).parents[2] / "tests" / "data"
"""Short recordings and a mel, which a clone has."""


def build(checkpoints: Sequence[str], load: Callable[[str], Vocoder], folder: Path) -> gr.Blocks:
    """The page as Gradio has it.

    Args:
        checkpoints: to choose from, the first one is there at the start.
        load: gives a vocoder by one of these names.
        folder: where results are written, for browsers to fetch.
    """
    first = load(checkpoints[0])
    with gr.Blocks(title="flowavenet", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(words.HEAD)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                given = _given(checkpoints, first)
            with gr.Column(scale=5, min_width=480):
                experiments = _Experiments(given, load, folder)
                spans = experiments.all()
        _keep_together(page, given, load, spans)
    return page


@dataclass
class Given:
    """The column of what is given to every experiment."""

    sound: gr.Audio
    mel: gr.File
    checkpoint: gr.Dropdown
    speaker: gr.Dropdown
    temperature: gr.Slider
    match: gr.Slider
    seed: gr.Number

    def all(self) -> list[gr.components.Component]:
        return [self.sound, self.mel, self.checkpoint, self.speaker, self.temperature, self.match, self.seed]


def _given(checkpoints: Sequence[str], first: Vocoder) -> Given:
    with gr.Tab("Recording"):
        sound = _sound("What to work on", "sound", "lj")
    with gr.Tab("Mel file"):
        label = "What to work on: .npy, .pt or .safetensors"
        mel = gr.File(label=label, file_types=list(MEL_SUFFIXES), height=160, elem_id="mel")
        _examples(mel, "*.npy", "Example: predicted by a Tacotron 2")
    checkpoint = gr.Dropdown(list(checkpoints), value=checkpoints[0], label="Checkpoint", filterable=False)
    speaker = gr.Dropdown(label="Whose voice", **_voices(first))
    temperature = gr.Slider(0, 1.5, first.synthesis["temperature"], step=0.05, label="Temperature", info=words.TEMPERATURE)
    match = gr.Slider(0, 32, first.synthesis["match"], step=1, label="Rounds of mel matching", info=words.MATCH)
    seed = gr.Number(0, label="Seed", info=words.SEED, precision=0, minimum=0, maximum=2**31)
    return Given(sound, mel, checkpoint, speaker, temperature, match, seed)


def _sound(label: str, name: str, example: str) -> gr.Audio:
    """A recording to be given, the example to begin with."""
    file = EXAMPLES / f"{example}.flac"
    value = str(file) if file.is_file() else None
    sources = ["upload", "microphone"]
    sound = gr.Audio(
        value, label=label, elem_id=name, sources=sources, type="filepath", editable=False, buttons=["download"]
    )
    _examples(sound, "*.flac", "Examples")
    return sound


def _heard(label: str) -> gr.Audio:
    return gr.Audio(label=label, type="filepath", interactive=False, buttons=["download"])


def _picture() -> gr.Image:
    return gr.Image(show_label=False, type="filepath", format="png", interactive=False, buttons=["download", "fullscreen"])


def _examples(component: gr.components.Component, pattern: str, label: str) -> None:
    """Offer the shipped clips, where they are: an installed package has none."""
    if files := sorted(EXAMPLES.glob(pattern)):
        gr.Examples(
            [[str(file)] for file in files], [component], label=label, api_visibility="private",
            example_labels=[file.stem for file in files],
        )


def _voices(vocoder: Vocoder) -> dict[str, Any]:
    names = vocoder.speakers
    return {"choices": names, "value": names[0] if names else None, "visible": bool(names)}


def told(work: Callable) -> Callable:
    """Show what a visitor can cure as a sentence on the page; the rest is for who runs the server."""

    @wraps(work)
    def answer(*inputs: Any) -> Any:
        try:
            return work(*inputs)
        except (ValueError, OSError) as error:
            raise gr.Error(one_line(error), duration=None, print_exception=False) from error

    return answer


# One piece of work at a time, whoever asked for it: each takes all the cores there are.
ONE = {"concurrency_id": "vocoder", "concurrency_limit": 1, "api_visibility": "private"}


class _Experiments:
    """A tab for each experiment: what it is, what can be set, a button, what comes of it."""

    def __init__(self, given: Given, load: Callable[[str], Vocoder], folder: Path):
        self.given, self.load, self.folder = given, load, folder

    def all(self) -> list[gr.Slider]:
        """All tabs; returns the sliders that are times of the clip."""
        with gr.Tab("Vocode"):
            gr.Markdown(words.VOCODE)
            button = gr.Button("Vocode", variant="primary")
            with gr.Row():
                heard = [_heard("Recording"), _heard("Vocoded")]
            self._on(button, answers.vocode, [], [*heard, gr.Markdown(), _picture()])
        with gr.Tab("Round trip"):
            gr.Markdown(words.ROUND_TRIP)
            button = gr.Button("To noise and back", variant="primary")
            with gr.Row():
                heard = [_heard("Recording"), _heard("Its noise, softened"), _heard("Made of that noise")]
            self._on(button, answers.round_trip, [], [*heard, gr.Markdown(), _picture()])
        with gr.Tab("Temperature"):
            gr.Markdown(words.SWEEP)
            button = gr.Button("Same noise, four temperatures", variant="primary")
            heard = []
            for pair in (answers.TEMPERATURES[:2], answers.TEMPERATURES[2:]):
                with gr.Row():
                    heard += [_heard(f"Temperature {temperature:g}") for temperature in pair]
            self._on(button, answers.sweep, [], [*heard, gr.Markdown(), _picture()])
        with gr.Tab("Interpolate"):
            gr.Markdown(words.INTERPOLATE)
            with gr.Row():
                with gr.Column():
                    second = _sound("Second recording", "second", "kathleen")
                with gr.Column():
                    noise = gr.Slider(0, 1, 0.5, step=0.05, label="Noise", info=words.FROM_TO)
                    mel = gr.Slider(0, 1, 0.0, step=0.05, label="Mel", info=words.FROM_TO)
                    button = gr.Button("Interpolate", variant="primary")
            heard = [_heard("Between the two")]
            self._on(button, answers.interpolate, [second, noise, mel], [*heard, gr.Markdown(), _picture()])
        with gr.Tab("Edit the noise"):
            gr.Markdown(words.EDIT)
            with gr.Row():
                start = gr.Slider(0, 60, 1.0, step=0.01, label="From, seconds")
                stop = gr.Slider(0, 60, 1.5, step=0.01, label="To, seconds")
            with gr.Row():
                how = gr.Radio(list(answers.EDITS), value=answers.DRAW, label="What becomes of the noise in between")
                gain = gr.Slider(0, 2, 0.5, step=0.05, label="Times as strong", visible=False)
            how.change(lambda how: gr.Slider(visible=how == answers.SCALE), how, gain, api_visibility="private")
            button = gr.Button("Edit", variant="primary")
            with gr.Row():
                heard = [_heard("Before"), _heard("After"), _heard("Difference")]
            self._on(button, answers.edit, [start, stop, how, gain], [*heard, gr.Markdown(), _picture()])
        return [start, stop]

    def _on(self, button: gr.Button, answer: Callable, more: list, outputs: list) -> None:
        """Let a button give an answer to what is given, and to ``more``."""

        @told
        def work(sound: str, mel: str, checkpoint: str, speaker: str, temperature: float, match: int, seed: int, *more: Any):  # noqa: ANN202
            path = mel or sound
            if not path:
                raise ValueError(words.NOTHING_GIVEN)
            if seed is None:
                raise ValueError(words.NO_SEED)
            vocoder = self.load(checkpoint)
            clip = load_clip(path, vocoder)
            if clip.note:
                gr.Info(f"{Path(path).name}: {clip.note}")
            request = Request(vocoder, Path(path), clip, temperature, match, seed, speaker, self.folder)
            return answer(request, *more)

        button.click(work, [*self.given.all(), *more], outputs, **ONE)


def _keep_together(page: gr.Blocks, given: Given, load: Callable[[str], Vocoder], spans: list[gr.Slider]) -> None:
    """What follows from a choice: a bad file is sent back, spans end with the clip, checkpoints have defaults."""

    def chosen(path: str | None, checkpoint: str, start: float, stop: float) -> list:
        """What to do with the file, the file in the other place, and the two ends of the span."""
        if not path:
            return [gr.skip()] * 4
        vocoder = load(checkpoint)
        try:
            frames = load_clip(path, vocoder).mel.shape[-1]
        except ValueError as error:
            gr.Warning(str(error), duration=None, title="Not taken")
            return [None, gr.skip(), gr.skip(), gr.skip()]
        seconds = int(100 * frames * vocoder.settings.hop_length / vocoder.sample_rate) / 100
        if not start < stop <= seconds:
            start, stop = round(seconds / 3, 2), round(seconds / 2, 2)
        return [gr.skip(), None, gr.Slider(maximum=seconds, value=start), gr.Slider(maximum=seconds, value=stop)]

    def other_settings(checkpoint: str) -> list:
        vocoder = load(checkpoint)
        return [gr.Dropdown(**_voices(vocoder)), vocoder.synthesis["temperature"], vocoder.synthesis["match"]]

    # the last one given counts: the other one goes
    sound, mel = given.sound, given.mel
    for event, one, other in ((page.load, sound, mel), (sound.change, sound, mel), (mel.change, mel, sound)):
        event(chosen, [one, given.checkpoint, *spans], [one, other, *spans], show_progress="hidden", **ONE)
    given.checkpoint.change(
        told(other_settings), given.checkpoint, [given.speaker, given.temperature, given.match], **ONE
    )
