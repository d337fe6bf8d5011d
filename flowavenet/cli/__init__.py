"""The command line: one function per verb. Imports happen inside the verbs, so that ``--help`` is instant."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import typer

from flowavenet.batch import one_line, short_of_memory
from flowavenet.cli import judging, mels, pages, scoring, sharing, synthesis, training

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Exact-likelihood flow vocoders: mel spectrogram in, waveform out, in one parallel pass; and back.",
)
for verb in (synthesis.vocode, synthesis.tune, training.prepare):
    app.command()(verb)
for verb in (training.fit, training.distil):                           # whose words Lightning's own parser reads
    app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(verb)
for verb in (training.report, mels.mel, scoring.score, judging.evaluate, judging.benchmark):
    app.command()(verb)
for verb in (sharing.convert, sharing.export, sharing.push, pages.demo, pages.serve):
    app.command()(verb)


def main() -> None:
    """Entry point: errors that a user can cure are one line and exit code 2; Ctrl-C and SIGTERM end with 130 and 143."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    # Threads of torch that wait for each other go on turning for milliseconds by default: on a machine whose cores are busy
    # with something else as well, that makes synthesis a hundred times slower instead of ten.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not short_of_memory(error):
            raise                                                      # our own mistake
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _leave(number: int, _: Any) -> None:
    """End as told by a signal: through the end of what was begun, so that no temporary file stays; told again, at once."""
    signal.signal(number, lambda *_: os._exit(128 + number))
    sys.exit(128 + number)
