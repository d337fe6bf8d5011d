"""Listen at an address: who can reach it there, and whether the port is free."""

from __future__ import annotations

import socket
from ipaddress import ip_address


def is_local(host: str) -> bool:
    """Return whether only programs of this machine can reach an address.

    >>> is_local("localhost"), is_local("127.0.0.1"), is_local("::1"), is_local("0.0.0.0"), is_local("example.org")
    (True, True, True, False, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:                                                 # a name, which may stand for anything
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there, at any free port for 0.

    Raises OSError, in one line, if the address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise OSError(f"port {port} of {host} cannot be had ({reason}); choose another one with --port") from error
