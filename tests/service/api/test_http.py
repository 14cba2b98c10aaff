from __future__ import annotations

import socket
from contextlib import suppress

import httpx2
import pytest

from service.api import http
from tests.service.api.wire import answered, connected

HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n"

ENDLESS = {
    "a request line": (b"GET /", b"a" * 65_536),
    "a header": (HEAD + b"X-Long: ", b"a" * 65_536),
    "headers": (HEAD, b"X-Many: 1\r\n" * 6_000),
    "a trailer": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Long: ", b"a" * 65_536),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Many: 1\r\n" * 6_000),
}

MOST_TAKEN = 16_000_000
"""Bytes; some millions lie in the buffers of the system."""


@pytest.mark.parametrize("case", ENDLESS)
def test_a_head_that_never_ends_is_not_kept(address: str, case: str) -> None:
    begin, more = ENDLESS[case]
    sent = 0
    with connected(address) as connection:
        connection.sendall(begin)
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < MOST_TAKEN:
                connection.sendall(more)
                sent += len(more)
        assert sent < MOST_TAKEN
    assert httpx2.get(f"{address}/healthz", timeout=5).status_code == 200


@pytest.mark.parametrize("header", [b"X-Long: " + b"a" * 70_000, b"\r\n".join([b"X-Many: 1"] * 6_000)])
def test_a_head_that_is_too_large_is_answered_431(address: str, header: bytes) -> None:
    with connected(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n")
        assert answered(connection).startswith(b"HTTP/1.1 431 ")


def test_large_bodies_and_requests_one_after_another_are_within_the_limit(address: str) -> None:
    with httpx2.Client(base_url=address) as client:
        for _ in range(5):
            assert client.post("/v1/jobs", content=bytes(60_000)).status_code == 401
            assert client.post("/v1/jobs", content=(bytes(20_000) for _ in range(3))).status_code == 401
            assert client.get("/healthz", headers={"X-Long": "a" * 60_000}).status_code == 200


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nX-"], ids=["nothing", "a head"])
def test_a_connection_on_which_nothing_goes_on_is_closed(
    address: str, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.2)
    with connected(address) as connection:
        connection.sendall(begun)
        assert answered(connection) == b""


def test_a_body_that_was_refused_is_not_waited_for(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 1.0)
    with connected(address) as connection:
        connection.sendall(b"POST /v1/adapters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
        connection.sendall(b"a")
        answered(connection)  # comes to an end
        assert connection.recv(1) == b""


def test_connections_over_the_limit_are_refused_until_one_ends(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 0)
    with connected(address) as connection:
        assert answered(connection).startswith(b"HTTP/1.1 503 ")
    monkeypatch.undo()
    assert httpx2.get(f"{address}/healthz").status_code == 200


def test_a_client_that_goes_away_within_a_head_leaves_nothing_behind(address: str) -> None:
    with connected(address) as connection:
        connection.sendall(HEAD)
        connection.shutdown(socket.SHUT_WR)
        assert answered(connection) == b""
    assert httpx2.get(f"{address}/healthz").status_code == 200
