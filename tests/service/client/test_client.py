"""What the client sends where, and what it sends again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service.client import ApiError
from service.client.transport import Transport

KEY = "pf_secret"


class _Origin(ThreadingHTTPServer):
    """Answers `/status/N` with N, `/to/URL` with a redirect there, `/later` with 507 once, and keeps what it was sent.

    Attributes:
        keys: path → the `Authorization` of the requests for it.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.keys: dict[str, list[str | None]] = {}


class _Answer(BaseHTTPRequestHandler):
    server: _Origin

    def do_GET(self) -> None:  # the parent's name
        asked = self.server.keys.setdefault(self.path, [])
        asked.append(self.headers.get("Authorization"))
        _, kind, *rest = self.path.split("/", 2)
        if kind == "to":
            self.send_response(303)
            self.send_header("Location", rest[0])
        else:
            later = 507 if len(asked) == 1 else 200
            self.send_response(later if kind == "later" else int(rest[0]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002  the parent's name
        """Say nothing on stderr."""


@contextmanager
def _serving() -> Iterator[_Origin]:
    with _Origin() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def own() -> Iterator[_Origin]:
    with _serving() as server:
        yield server


@pytest.fixture
def foreign() -> Iterator[_Origin]:
    with _serving() as server:
        yield server


def test_the_key_is_sent_to_its_own_server_only(own: _Origin, foreign: _Origin) -> None:
    transport = Transport(own.url, KEY)
    with transport.http:
        transport.request("GET", "/status/200")
        transport.request("GET", f"{own.url}/status/201")
        transport.request("GET", f"{foreign.url}/status/200")
        transport.request("GET", f"/to/{foreign.url}/status/201", follow_redirects=True)
    sent = f"Bearer {KEY}"
    assert own.keys == {"/status/200": [sent], "/status/201": [sent], f"/to/{foreign.url}/status/201": [sent]}
    assert foreign.keys == {"/status/200": [None], "/status/201": [None]}


def test_a_disk_that_is_full_for_now_is_waited_for(own: _Origin) -> None:
    transport = Transport(own.url, "")
    with transport.http:
        assert transport.request("GET", "/later").status_code == 200
        with pytest.raises(ApiError):
            transport.request("GET", "/status/500")
    assert len(own.keys["/later"]) == 2
    assert len(own.keys["/status/500"]) == 1
