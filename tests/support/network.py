"""A network between a client and a server of the object store that fails as real ones do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import Enum, auto
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.servers import S3Server


class Passage(Enum):
    """What becomes of a request: `ASTRAY` never arrives, of `UNTOLD` the answer gets lost; both are answered 500."""

    WHOLE = auto()
    ASTRAY = auto()
    UNTOLD = auto()


Fault = Callable[[str, str], Passage]
"""(method, path) → what becomes of the request; it is asked by one thread at a time."""

_OF_ONE_HOP = {"connection", "content-length", "expect", "transfer-encoding"}


class _Network(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, fault: Fault) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.behind, self._fault, self._turn = port, fault, threading.Lock()

    def passage(self, method: str, path: str) -> Passage:
        with self._turn:
            return self._fault(method, path)


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Network

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        passage = self.server.passage(self.command, self.path)
        self.close_connection = True
        if passage is Passage.ASTRAY:
            self._answer(500, [], b"")
            return
        try:
            status, headers, content = self._asked(body)
        except (OSError, HTTPException):
            return  # nobody there: the connection is closed without an answer
        if passage is Passage.UNTOLD:
            self._answer(500, [], b"")
        else:
            self._answer(status, headers, content)

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = _pass_on  # noqa: N815  the names that the parent looks for

    def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        with closing(HTTPConnection("127.0.0.1", self.server.behind, timeout=60)) as behind:
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            # The signature is over the host that the client knows.
            for name, value in self.headers.items():
                if name.lower() not in _OF_ONE_HOP:
                    behind.putheader(name, value)
            behind.putheader("Content-Length", str(len(body)))
            behind.endheaders(body)
            answer = behind.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OF_ONE_HOP]
            if self.command == "HEAD":
                headers += [("Content-Length", answer.getheader("Content-Length", "0"))]
            return answer.status, headers, answer.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002  the parent's name
        """Say nothing on stderr."""


@contextmanager
def between(server: S3Server, fault: Fault) -> Iterator[str]:
    """The address under which the server is reached through a network with that fault."""
    with _Network(server.port, fault) as network:
        thread = threading.Thread(target=network.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{network.server_address[1]}"
        finally:
            network.shutdown()
            thread.join()


def every(nth: int) -> Fault:
    """Of every `nth` request one fails, by turns on the way there and on the way back."""
    seen = 0

    def fault(method: str, path: str) -> Passage:
        nonlocal seen
        seen += 1
        if seen % nth:
            return Passage.WHOLE
        return Passage.ASTRAY if seen // nth % 2 else Passage.UNTOLD

    return fault
