"""Checks and chooses addresses to listen on."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import ExitStack

from service.core.errors import UsageError

LARGEST_PORT = 65_535

REFUSED = {
    errno.EADDRINUSE: "is in use: give another --port, or none for a free one",
    errno.EACCES: "requires privileges: give a --port above 1023",
    errno.EADDRNOTAVAIL: "is not an address of this machine: check --host",
}


def check_host(host: str) -> None:
    """Refuse a host that is not a single address: download links contain it, so clients must be able to reach it.

    Raises:
        UsageError: says what would be right.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise UsageError(f"--host is {host!r}; it must be an IP address, such as 127.0.0.1") from None
    if address.is_unspecified:
        raise UsageError(
            f"--host is {host}, which cannot be part of download links; give an address at which clients reach it"
        )


def claim_port(host: str, port: int | None = None) -> int:
    """Return a port of `host` that is free now: the given one, or any.

    Raises:
        UsageError: the given port cannot be used.
    """
    if port is not None and not 1 <= port <= LARGEST_PORT:
        raise UsageError(f"--port is {port}; it must be from 1 to {LARGEST_PORT}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as found:
        # As servers set it, so that a port whose last connections are still closing counts as free.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port or 0))
        except OSError as error:
            reason = REFUSED.get(error.errno or 0, f"cannot be used: {error.strerror}")
            raise UsageError(f"{join(host, port or 0)} {reason}") from error
        return int(found.getsockname()[1])


def free_ports(host: str, count: int) -> list[int]:
    """Find `count` different ports of `host` that are free now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as held:
        found = [held.enter_context(socket.socket(family, socket.SOCK_STREAM)) for _ in range(count)]
        for each in found:
            each.bind((host, 0))
        return [int(each.getsockname()[1]) for each in found]


def join(host: str, port: int) -> str:
    """Format `host:port` as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    return ipaddress.ip_address(host).is_loopback
