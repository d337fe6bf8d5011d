"""A server as users start it, in a place of its own, and what is to be known of it from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

KEY = "a-key-that-none-is-told"
LOST = 60
"""Seconds without an answer after which none is waited for."""
HEADERS = {"Authorization": f"Bearer {KEY}", "Connection": "close"}


@dataclass
class Server:
    """A running ``flowavenet serve``."""

    process: subprocess.Popen
    port: int
    home: Path
    """Where it works, keeps temporary files, and is at home: nothing should be left there."""
    log: Path
    read: int = 0
    """Bytes of it that have been looked at."""

    def ask(self, path: str, body: bytes | None = None, timeout: float = LOST) -> tuple[int | None, bytes]:
        """Status and body of an answer; the status is None if the server hangs up, 0 if it does nothing."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET" if body is None else "POST", path, body, HEADERS)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except TimeoutError:
            return 0, b""
        except (OSError, HTTPException):                               # it may hang up while all of it is being sent
            return None, b""
        finally:
            connection.close()

    def memory(self) -> int:
        """Resident, in MB; 0 if it has ended."""
        return 0 if self.process.poll() is not None else resident(self.process.pid)

    def work(self) -> float:
        """Seconds of CPU that it has used so far."""
        if self.process.poll() is not None:
            return 0.0
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def faults(self, patience: float = 10) -> list[str]:
        """What is not as it should be while nobody asks for anything."""
        if self.process.poll() is not None:
            return [f"the process ended with {self.process.returncode}"]
        found, end = [], time.monotonic() + patience
        while (answer := self.ask("/readyz")) != (200, b'{"under_way":0}') and time.monotonic() < end:
            time.sleep(0.05)
        if time.monotonic() >= end:
            found.append(f"/readyz still says {answer}")
        if left := [str(path) for path in self.home.rglob("*") if path.is_file()]:
            found.append(f"files are left: {', '.join(left[:3])}")
        log = self.log.read_bytes()
        if tracebacks := log.count(b"Traceback", self.read):
            found.append(f"{tracebacks} tracebacks in {self.log}")
        self.read = len(log)
        return found


def resident(pid: int | str = "self") -> int:
    """Memory of a process, in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) // 1024


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[Server]:
    """Start a server, one thread for torch's work and another for all the rest; words of the command line follow."""
    home, log = folder / "home", folder / "log.txt"
    home.mkdir(parents=True)
    command = [sys.executable, "-m", "flowavenet.cli", "serve", "--port", "0", "--rate", "100000", *words]
    own = {"FLOWAVENET_API_KEY": KEY, "OMP_NUM_THREADS": "1", "HOME": str(home), "TMPDIR": str(home)}
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=os.environ | own, cwd=home)
    with process:
        try:
            begun = re.match(r"http://127.0.0.1:(\d+) serves ", process.stdout.readline())
            if not begun:
                raise RuntimeError(f"the server did not start: {log.read_text()}")
            yield Server(process, int(begun[1]), home, log)
            process.terminate()
            process.wait(LOST)
        finally:
            process.kill()
