"""The command line: a verb is a function of its name, in a module that is imported when it is asked for.

Heavy imports happen inside the verbs, so that ``--help`` is instant.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import typer

VERBS = {
    "vocode": "vocode", "tune": "tune", "prepare": "training", "fit": "training", "distil": "training", "report": "training",
    "mel": "mels", "score": "scoring", "evaluate": "judging", "benchmark": "judging", "convert": "sharing",
    "export": "sharing", "push": "sharing", "demo": "pages", "serve": "pages",
}
"""Modules of this folder by the verbs that they hold, in the order of ``--help``."""
OF_LIGHTNING = "fit", "distil"
"""Verbs whose words Lightning's own parser reads."""


def application(verbs: Iterable[str] = VERBS) -> typer.Typer:
    """Return the program with some of the verbs."""
    app = typer.Typer(
        no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
        help="Exact-likelihood flow vocoders: mel spectrogram in, waveform out, in one parallel pass; and back.",
    )
    app.callback()(lambda: None)                                       # so that one verb alone is still a verb
    for verb in verbs:
        passed_on = {"allow_extra_args": True, "ignore_unknown_options": True} if verb in OF_LIGHTNING else None
        function = getattr(import_module(f"flowavenet.cli.{VERBS[verb]}"), verb)
        app.command(add_help_option=not passed_on, context_settings=passed_on)(function)
    return app


def main() -> None:
    """Run a verb: errors that a user can cure are one line and exit code 2; Ctrl-C and SIGTERM end with 130 and 143."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    # Threads of torch that wait for each other go on turning for milliseconds by default: on a machine whose cores are busy
    # with something else as well, that makes synthesis a hundred times slower instead of ten.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        application([verb for verb in sys.argv[1:2] if verb in VERBS] or VERBS)()
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        from flowavenet.files import one_line, short_of_memory

        if isinstance(error, RuntimeError) and not short_of_memory(error):
            raise                                                      # our own mistake
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _leave(number: int, _: Any) -> None:
    """End as told by a signal: through the end of what was begun, so that no temporary file stays; told again, at once."""
    signal.signal(number, lambda *_: os._exit(128 + number))
    sys.exit(128 + number)
