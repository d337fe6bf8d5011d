"""What verbs print beside their results: a progress bar, and the list of files that failed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def progress_bar() -> Any:
    """Return a progress bar on a terminal's stderr, gone when done; elsewhere it shows nothing."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def end(failed: Iterable[str], total: int) -> None:
    """List the failures, if any, and leave with exit code 2."""
    lines = list(failed)
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    if lines:
        print(f"{len(lines)} of {total} files failed", file=sys.stderr)
        sys.exit(2)
