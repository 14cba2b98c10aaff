"""Requests byte by byte, as clients of ours never send them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2

BOUNDARY = "boundary"

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        yield connection


def answered(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


def begin_upload(connection: socket.socket, client: httpx2.Client, size: int = 1_000) -> None:
    """Send the head of an upload with a client's key, and the first bytes once the server waits for them."""
    begin(connection, client, "/v1/adapters", f"multipart/form-data; boundary={BOUNDARY}", size)
    connection.sendall(f"--{BOUNDARY}\r\n".encode())


def begin(connection: socket.socket, client: httpx2.Client, path: str, media_type: str, size: int = 1_000) -> None:
    """Send the head of a request; returns when the server has asked for the body."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {client.headers['authorization']}\r\n"
    head += f"Content-Type: {media_type}\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
    connection.sendall(head.encode())
    # Not a byte more: what follows is the answer, which may already be there.
    received = b""
    while len(received) < len(_CONTINUE):
        part = connection.recv(len(_CONTINUE) - len(received))
        assert part, "the connection was closed"
        received += part
    assert received == _CONTINUE
