"""End the processes that work for another one when that ends."""

from __future__ import annotations

import os
import signal
from multiprocessing import parent_process
from threading import Thread


def end_with_parent() -> None:
    """Have this process, a worker, end with the one that started it, however that ends; else it waits for work for ever.

    It ignores Ctrl-C, which reaches all processes of a terminal, and leaves it to that one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
