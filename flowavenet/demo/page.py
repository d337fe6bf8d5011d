"""The page: what is on it, and which :mod:`answer <flowavenet.demo.answers>` each button gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from flowavenet.audio import MEL_SUFFIXES
from flowavenet.demo import answers, words
from flowavenet.demo.answers import Request
from flowavenet.files import one_line
from flowavenet.serve.uploads import load_clip
from flowavenet.vocoder import Vocoder

EXAMPLES = Path(__file__).parents[2] / "tests" / "data"
"""Short recordings and a mel, which a clone has, and an installed package has not."""
Components = list[gr.components.Component]


class Page:
    """On the left what is given to every experiment, on the right a tab for each.

    Args:
        checkpoints: to choose from, the first one is there at the start.
        load: gives a vocoder by one of these names.
        folder: where results are written, for browsers to fetch.
    """

    def __init__(self, checkpoints: Sequence[str], load: Callable[[str], Vocoder], folder: Path):
        self.load, self.folder = load, folder
        with gr.Blocks(title="flowavenet", analytics_enabled=False, delete_cache=(600, 3600)) as self.blocks:
            gr.Markdown(words.HEAD)
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    self._given(checkpoints)
                with gr.Column(scale=5, min_width=480):
                    for title, tab in {
                        "Vocode": self._vocode, "Round trip": self._round_trip, "Temperature": self._sweep,
                        "Interpolate": self._interpolate, "Edit the noise": self._edit,
                    }.items():
                        with gr.Tab(title):
                            tab()
            self._keep_together()

    def _given(self, checkpoints: Sequence[str]) -> None:
        vocoder = self.load(checkpoints[0])
        with gr.Tab("Recording"):
            self.sound = _sound("What to work on", "sound", "lj")
        with gr.Tab("Mel file"):
            self.mel = gr.File(label="A .npy, .pt or .safetensors", file_types=[*MEL_SUFFIXES], height=160, elem_id="mel")
            _examples(self.mel, "*.npy", "Example: predicted by a Tacotron 2")
        self.checkpoint = gr.Dropdown([*checkpoints], value=checkpoints[0], label="Checkpoint", filterable=False)
        self.speaker = gr.Dropdown(label="Whose voice", **_voices(vocoder))
        temperature, match = vocoder.synthesis["temperature"], vocoder.synthesis["match"]
        self.temperature = gr.Slider(0, 1.5, temperature, step=0.05, label="Temperature", info=words.TEMPERATURE)
        self.match = gr.Slider(0, 32, match, step=1, label="Rounds of mel matching", info=words.MATCH)
        self.seed = gr.Number(0, label="Seed", info=words.SEED, precision=0, minimum=0, maximum=2**31)

    def _vocode(self) -> None:
        gr.Markdown(words.VOCODE)
        button = _button("Vocode")
        self._experiment(button, answers.vocode, _heard("Recording", "Vocoded"))

    def _round_trip(self) -> None:
        gr.Markdown(words.ROUND_TRIP)
        button = _button("To noise and back")
        self._experiment(button, answers.round_trip, _heard("Recording", "Its noise, softened", "Made of that noise"))

    def _sweep(self) -> None:
        gr.Markdown(words.SWEEP)
        button = _button("Same noise, four temperatures")
        labels = [f"Temperature {temperature:g}" for temperature in answers.TEMPERATURES]
        self._experiment(button, answers.sweep, _heard(*labels[:2]) + _heard(*labels[2:]))

    def _interpolate(self) -> None:
        gr.Markdown(words.INTERPOLATE)
        with gr.Row():
            with gr.Column():
                second = _sound("Second recording", "second", "kathleen")
            with gr.Column():
                noise = gr.Slider(0, 1, 0.5, step=0.05, label="Noise", info=words.FROM_TO)
                mel = gr.Slider(0, 1, 0.0, step=0.05, label="Mel", info=words.FROM_TO)
                button = _button("Interpolate")
        self._experiment(button, answers.interpolate, _heard("Between the two"), [second, noise, mel])

    def _edit(self) -> None:
        gr.Markdown(words.EDIT)
        with gr.Row():
            self.start = gr.Slider(0, 60, 1.0, step=0.01, label="From, seconds")
            self.stop = gr.Slider(0, 60, 1.5, step=0.01, label="To, seconds")
        with gr.Row():
            how = gr.Radio([*answers.EDITS], value=answers.DRAW, label="What becomes of the noise in between")
            gain = gr.Slider(0, 2, 0.5, step=0.05, label="Times as strong", visible=False)
        self._do(how.change, lambda how: [gr.Slider(visible=how == answers.SCALE)], [how], [gain])
        button = _button("Edit")
        self._experiment(button, answers.edit, _heard("Before", "After", "Difference"), [self.start, self.stop, how, gain])

    def _experiment(self, button: gr.Button, answer: Callable, heard: Components, more: Components = ()) -> None:
        """Let a button give an answer to what is given, and to ``more``: sounds, figures in words, a picture."""
        said = gr.Markdown()
        picture = gr.Image(show_label=False, type="filepath", format="png", interactive=False, buttons=["fullscreen"])

        def work(sound: str | None, mel: str | None, checkpoint: str, *settings: Any) -> tuple:
            request = Request.of(mel or sound, self.load(checkpoint), self.folder, *settings[:4])
            if request.clip.note:
                gr.Info(f"{request.path.name}: {request.clip.note}")
            return answer(request, *settings[4:])

        given = [self.sound, self.mel, self.checkpoint, self.temperature, self.match, self.seed, self.speaker]
        self._do(button.click, work, [*given, *more], [*heard, said, picture])

    def _keep_together(self) -> None:
        """What follows from a choice: a bad file is sent back, spans end with the clip, a checkpoint has its settings."""

        def chosen(path: str | None, checkpoint: str, start: float, stop: float) -> list:
            """What to do with the file, the file in the other place, and the two ends of the span."""
            if not path:
                return [gr.skip()] * 4
            vocoder = self.load(checkpoint)
            try:
                frames = load_clip(path, vocoder).mel.shape[-1]
            except ValueError as error:
                _tell(error)
                return [None, gr.skip(), gr.skip(), gr.skip()]
            seconds = int(100 * frames * vocoder.settings.hop_length / vocoder.sample_rate) / 100
            if not start < stop <= seconds:
                start, stop = round(seconds / 3, 2), round(seconds / 2, 2)
            return [gr.skip(), None, gr.Slider(maximum=seconds, value=start), gr.Slider(maximum=seconds, value=stop)]

        def settings(checkpoint: str) -> list:
            vocoder = self.load(checkpoint)
            return [gr.Dropdown(**_voices(vocoder)), vocoder.synthesis["temperature"], vocoder.synthesis["match"]]

        # of a recording and a mel, the last one given counts: the other one goes
        sound, mel, span = self.sound, self.mel, [self.start, self.stop]
        for event, one, other in ((self.blocks.load, sound, mel), (sound.change, sound, mel), (mel.change, mel, sound)):
            self._do(event, chosen, [one, self.checkpoint, *span], [one, other, *span], show_progress="hidden")
        self._do(self.checkpoint.change, settings, [self.checkpoint], [self.speaker, self.temperature, self.match])

    def _do(self, event: Callable, work: Callable, inputs: Components, outputs: Components, **how: Any) -> None:
        """Do work on an event: one piece at a time, whoever asked for it, as each takes all the cores there are.

        What a visitor can cure is told in a sentence, and the outputs stay as they are; other errors go to the server's log.
        """

        def answer(*given: Any) -> Any:
            try:
                return work(*given)
            except (ValueError, OSError) as error:
                _tell(error)
                return [gr.skip()] * len(outputs)

        event(answer, inputs, outputs, concurrency_id="vocoder", concurrency_limit=1, api_visibility="private", **how)


def _tell(error: Exception) -> None:
    gr.Warning(one_line(error), duration=None, title="This cannot be done")


def _button(label: str) -> gr.Button:
    return gr.Button(label, variant="primary")


def _sound(label: str, name: str, example: str) -> gr.Audio:
    """A recording to be given, the example to begin with."""
    file = EXAMPLES / f"{example}.flac"
    sound = gr.Audio(
        str(file) if file.is_file() else None, label=label, elem_id=name, type="filepath", editable=False,
        sources=["upload", "microphone"], buttons=["download"],
    )
    _examples(sound, "*.flac", "Examples")
    return sound


def _heard(*labels: str) -> Components:
    """Sounds of an answer, side by side."""
    with gr.Row():
        return [gr.Audio(label=label, type="filepath", interactive=False, buttons=["download"]) for label in labels]


def _examples(component: gr.components.Component, pattern: str, label: str) -> None:
    if files := sorted(EXAMPLES.glob(pattern)):
        names, rows = [file.stem for file in files], [[str(file)] for file in files]
        gr.Examples(rows, [component], label=label, example_labels=names, api_visibility="private")


def _voices(vocoder: Vocoder) -> dict[str, Any]:
    names = vocoder.speakers
    return {"choices": names, "value": names[0] if names else None, "visible": bool(names)}
