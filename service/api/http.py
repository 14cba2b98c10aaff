"""Limits the size and the duration of request heads, and the number of connections.

uvicorn's parser buffers the head of a request until it is complete, without any limit of size or time.
"""

from __future__ import annotations

import asyncio
import resource
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES = 65_536
"""Limit of request line and headers, and of trailers; many times what any client sends."""

HEAD_SECONDS = 10.0
"""Time from when a connection becomes idle until the next head is complete."""

LINGER_SECONDS = 1.0
"""Time for a client to read why it was refused: closing with unread bytes resets a connection at once."""

_PER_HEADER = len(b": \r\n")

MAX_CONNECTIONS = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
"""Connections open at once; the remaining file descriptors serve Redis, the object store and uploads."""


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits: `uvicorn --http service.api.http:LimitedProtocol`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head = 0  # bytes of the present head that the parser has reported
        self._hosts = 0  # headers of this name in the present head
        self._gathered = 0  # bytes since the parser last completed a head or a part of a body
        self._due: asyncio.TimerHandle | None = None  # when the connection is closed
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self.transport.write(_empty(HTTPStatus.SERVICE_UNAVAILABLE))
            self.transport.close()
        else:
            self._close_in(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stay()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._gathered += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self._refused:
            return
        if self._gathered > MAX_HEAD_BYTES:
            self._refuse()
        elif self._due is None and not self._answering:
            # The beginning of a head, or the rest of a body that was refused.
            self._close_in(HEAD_SECONDS)

    def on_message_begin(self) -> None:
        self._head = self._hosts = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + _PER_HEADER)
        self._hosts += name.lower() == b"host"
        if self._hosts > 1:
            raise ValueError("two Host headers")  # a proxy may have read the other one
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._gathered = 0
        self._stay()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._gathered = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._gathered = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer when the parser has stopped, at bytes it cannot read or because of `_count`."""
        if self._head > MAX_HEAD_BYTES:
            self._refuse()
        else:
            super().send_400_response(msg)

    @property
    def _answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD_BYTES:
            raise ValueError("the head is too large")  # ends the parsing

    def _close_in(self, seconds: float) -> None:
        self._stay()
        self._due = self.loop.call_later(seconds, self.transport.close)

    def _stay(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _refuse(self) -> None:
        self._refused = True
        if self._answering:
            # An error cannot be written into a response that has begun.
            self.transport.close()
            return
        self.transport.pause_reading()
        self.transport.write(_empty(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        self.transport.write_eof()
        self._close_in(LINGER_SECONDS)


def _empty(status: HTTPStatus) -> bytes:
    return STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n"
