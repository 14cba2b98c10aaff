"""Gives every request an id, which its response and its log lines carry, and logs and counts it at its end."""

from __future__ import annotations

import re
import time
from secrets import token_hex

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from service.api.metrics import Metrics

log = structlog.stdlib.get_logger(__name__)

HEADER = "X-Request-Id"

_NAME = HEADER.lower().encode()
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PATH_SHOWN = 200

_PROBED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Routes that machines poll so often that they are logged for debugging only."""


class Observed:
    """Middleware that takes a well-formed id from a proxy or client or makes one, and counts and times by route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given(scope) or token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        clear_contextvars()
        bind_contextvars(request_id=request_id)
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(_NAME, request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        self._metrics.began()
        try:
            await self._app(scope, receive, noting)
        finally:
            # The route's template, because there is no limit to the number of paths.
            route, seconds = getattr(scope.get("route"), "path", "none"), time.perf_counter() - started
            self._metrics.answered(scope["method"], route, status, seconds)
            _log_request(scope, route, status, seconds)


def _log_request(scope: Scope, route: str, status: int, seconds: float) -> None:
    write = log.debug if route in _PROBED else log.info
    # Neither the query nor headers, which may contain secrets. The routes bind the ids of records.
    write(
        "request_answered",
        method=scope["method"],
        route=route,
        path=scope["path"][:_PATH_SHOWN],
        status=status,
        duration_ms=round(1000 * seconds, 2),
    )


def _given(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == _NAME:
            return value.decode() if _WELL_FORMED.fullmatch(value) else None
    return None
