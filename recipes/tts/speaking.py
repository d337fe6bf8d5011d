"""What the programs beside this one share: audio goes where it is wanted as it comes, and is told how soon it came."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from time import perf_counter

from torch import Tensor

from flowavenet import save_audio
from flowavenet.files import one_line
from flowavenet.tts import MelAdapter, Runaway


class Timed:
    """What comes, and how many ``seconds`` were spent waiting for it so far."""

    def __init__(self, items: Iterable[Tensor]):
        self.items, self.seconds = iter(items), 0.0

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            start = perf_counter()
            item = next(self.items, None)
            self.seconds += perf_counter() - start
            if item is None:
                return
            yield item

    def close(self) -> None:
        getattr(self.items, "close", lambda: None)()


def vocoder_options(parser: argparse.ArgumentParser) -> None:
    """What can be said about the vocoder."""
    parser.add_argument("-o", "--out", required=True, help="audio file; -: raw 16-bit samples to standard output")
    parser.add_argument("--checkpoint", help="a shipped name, a folder, user/name on the Hub  [the shipped default]")
    parser.add_argument("--temperature", type=float, help="standard deviation of the noise  [the checkpoint's]")
    parser.add_argument("--match", type=int, help="rounds of mel matching  [the checkpoint's]")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--chunk", type=int, default=32, help="frames of audio at a time  [%(default)s]")
    parser.add_argument("--longest", type=float, default=60.0, help="seconds after which an utterance is cut  [%(default)g]")
    parser.add_argument("--device", default="cpu")


def speak(
    options: argparse.Namespace, adapter: MelAdapter, front_end: Callable[[str], tuple[Iterable[Tensor], Timed]]
) -> None:
    """Make audio of one text after the other, into one file.

    Args:
        options: ``text``, a list, and what :func:`vocoder_options` takes.
        adapter: for the front-end.
        front_end: gives the mel of a text, and what it waits for meanwhile, whose time is told apart.
    """

    sample_rate = adapter.vocoder.sample_rate

    def spoken(text: str) -> Iterator[Tensor]:
        mels, own = front_end(text)
        how = {"temperature": options.temperature, "match": options.match, "seed": options.seed}
        chunks, samples, first = Timed(adapter(mels, options.chunk, **how)), 0, ""
        try:
            for chunk in chunks:
                first = first or f"{1000 * chunks.seconds:.0f} ms, the front-end's {1000 * own.seconds:.0f} ms"
                samples += chunk.shape[1]
                yield chunk.cpu()
        except Runaway as error:
            print(f"warning: {error}", file=sys.stderr)
        finally:
            chunks.close()
            own.close()
        seconds = samples / sample_rate
        speed = f"RTF {chunks.seconds / seconds:.3f}, the front-end's {own.seconds / seconds:.3f}"
        print(f"{seconds:.2f} s of audio, the first after {first}; {speed}: {text}", file=sys.stderr)

    waves = chain.from_iterable(map(spoken, options.text))
    if options.out != "-":
        save_audio(options.out, waves, sample_rate)
        return
    for wave in waves:
        samples = (wave[0] * 32768).round().clamp(-32768, 32767).short()
        sys.stdout.buffer.write(samples.numpy().astype("<i2").tobytes())
        sys.stdout.buffer.flush()


def run(main: Callable[[], None]) -> None:
    """Warnings are one line; errors that a user can cure are one line and exit code 2."""
    usual, warnings.formatwarning = warnings.formatwarning, lambda message, *_, **__: f"warning: {message}\n"
    try:
        main()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    finally:
        warnings.formatwarning = usual
