"""Speak by a front-end of your own, exported to ONNX or TorchScript: numbers of symbols in, mel out, and then the vocoder.

    python recipes/tts/exported.py front_end.onnx "Hello world." --symbols symbols.txt --convention tacotron2 -o hello.wav

The first input takes the numbers of the symbols, (1, symbols), int64; others are given by name: `--input x_lengths=length`,
`--input scales=0.667,1`. A model is a program: run only those that you trust.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speaking import Timed, run, speak, vocoder_options

from flowavenet import Vocoder
from flowavenet.files import one_line
from flowavenet.tts import MelAdapter

LENGTH = "length"
"""Instead of numbers: how many symbols there are."""
Inputs = dict[str, list[float]]
FrontEnd = Callable[[list[int], Inputs], Sequence[Any]]
"""Numbers of symbols, and the other inputs by name -> outputs."""


def load(path: Path) -> FrontEnd:
    """A front-end from a file: .onnx, or TorchScript of any other name."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return (_onnx if path.suffix.lower() == ".onnx" else _torchscript)(path)


def _onnx(path: Path) -> FrontEnd:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{path}: needs onnxruntime: pip install 'flowavenet[export]'") from None
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, all of which mean the file
        raise ValueError(f"{path}: not a whole ONNX model ({one_line(error)[:120]}); export it again") from error
    first, *others = session.get_inputs()

    def call(ids: list[int], inputs: Inputs) -> Sequence[Any]:
        _check(path, {one.name: True for one in others}, inputs)
        feed = {first.name: np.array([ids])}
        for one in others:
            kind = np.float32 if "float" in one.type else np.int64
            feed[one.name] = np.array(inputs[one.name], kind).reshape([-1] * bool(one.shape))
        return session.run(None, feed)

    return call


def _torchscript(path: Path) -> FrontEnd:
    try:
        model = torch.jit.load(path, map_location="cpu").eval()
    except RuntimeError as error:
        raise ValueError(f"{path}: not a whole TorchScript file ({one_line(error)[:120]}); export it again") from error
    _, _, *others = model.forward.schema.arguments                     # after self and the symbols
    plain = [one.name for one in others if str(one.type) in ("int", "float")]

    @torch.no_grad()
    def call(ids: list[int], inputs: Inputs) -> Sequence[Any]:
        _check(path, {one.name: not one.has_default_value() for one in others}, inputs)
        feed = {name: values[0] if name in plain else torch.tensor(values) for name, values in inputs.items()}
        made = model(torch.tensor([ids]), **feed)
        return made if isinstance(made, tuple | list) else [made]

    return call


def _check(path: Path, needed: dict[str, bool], given: Inputs) -> None:
    """Refuse a call with other inputs than the model has, or without one that it needs."""
    if missing := [name for name, must in needed.items() if must and name not in given]:
        raise ValueError(f"{path}: wants the input {missing[0]!r} as well; add --input {missing[0]}=NUMBER, or ={LENGTH}")
    if unknown := [name for name in given if name not in needed]:
        known = ", ".join(needed) or "none but the symbols"
        raise ValueError(f"{path}: has no input {unknown[0]!r}; its inputs are: {known}")


def numbered(text: str, symbols: str | None, blank: int | None = None) -> list[int]:
    """The numbers of a text's symbols; without symbols, the text is numbers.

    >>> numbered("abba", "_ab"), numbered("3 1", None), numbered("ab", "_ab", blank=0)
    ([1, 2, 2, 1], [3, 1], [0, 1, 0, 2, 0])
    """
    if symbols is None:
        try:
            ids = [int(word) for word in text.split()]
        except ValueError:
            raise ValueError(f"{text!r} is no list of numbers; name the file of the front-end's --symbols") from None
    else:
        if unknown := [letter for letter in text if letter not in symbols]:
            raise ValueError(f"{unknown[0]!r} of {text!r} is none of the {len(symbols)} symbols; spell it by those")
        ids = [symbols.index(letter) for letter in text]
    if not ids:
        raise ValueError("a text is empty; give at least 1 symbol")
    return ids if blank is None else [blank, *(number for one in ids for number in (one, blank))]


def named(words: list[str], symbols: int) -> Inputs:
    """Inputs from `NAME=NUMBER,NUMBER` or `NAME=length`.

    >>> named(["x_lengths=length", "scales=0.667,1"], 12)
    {'x_lengths': [12], 'scales': [0.667, 1]}
    """
    inputs: Inputs = {}
    for word in words:
        name, _, values = word.partition("=")
        try:
            inputs[name] = [
                symbols if value == LENGTH else float(value) if set(value) & set(".e") else int(value)
                for value in values.split(",")
            ]
        except ValueError:
            raise ValueError(f"--input {word} is not NAME=NUMBERS; such as scales=0.667,1, or x_lengths={LENGTH}") from None
    return inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="the front-end: .onnx, or TorchScript")
    parser.add_argument("text", nargs="+", help="one utterance each; or numbers of symbols, if there is no --symbols")
    parser.add_argument("--symbols", type=Path, help="text file of the front-end's symbols: number 0, number 1, ...")
    parser.add_argument("--blank", type=int, help="a symbol that the front-end wants between all others, by its number")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=NUMBERS", help="another input of the model")
    parser.add_argument("--output", type=int, default=0, help="which output is the mel  [%(default)s]")
    parser.add_argument("--convention", help="of its mels: a name, or a YAML file  [found out]")
    parser.add_argument("--level", type=float, default=0.0, help="dB to add to its mels")
    vocoder_options(parser)
    options = parser.parse_args()
    symbols = options.symbols and options.symbols.read_text(encoding="utf-8").rstrip("\n")
    model = load(options.model)
    vocoder = Vocoder.from_pretrained(options.checkpoint, options.device)
    adapter = MelAdapter(vocoder, options.convention, options.level, options.longest)

    def front_end(text: str) -> tuple[Timed, Timed]:
        def mel() -> Any:
            ids = numbered(text, symbols, options.blank)
            made = model(ids, named(options.input, len(ids)))
            if not 0 <= options.output < len(made):
                raise ValueError(f"{options.model}: has {len(made)} outputs; --output {options.output} is none of them")
            yield made[options.output]

        timed = Timed(mel())
        return timed, timed

    speak(options, adapter, front_end)
    if adapter.source and adapter.source.detection:
        print(f"its mels: {adapter.source.note or 'as the vocoder wants them'}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
