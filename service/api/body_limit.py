"""Limits the size and the duration of request bodies."""

from __future__ import annotations

import asyncio
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import Problem
from service.core.settings import Settings

MAX_JSON_BYTES = 64_000
"""Many times the size of the largest valid request."""

MAX_MASKS_BYTES = 16_000_000
"""Of selections and jobs: some thousand pairs, hundreds of them with a mask of their own."""

_UPLOADS = frozenset({"/adapters", "/v1/adapters"})
_WITH_MASKS = re.compile(r"(/v1)?/jobs(/[^/]*/selections)?")


class BodyLimit:
    """Refuses a body that is too large, at once if `Content-Length` says so, or that arrives too slowly."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._max_upload = settings.max_body_bytes
        self._idle_seconds, self._seconds = settings.body_idle_seconds, settings.body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        most = self._most(scope["path"])
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        too_large = length.isdigit() and int(length) > most
        taken, complete = 0, False
        due = time.monotonic() + self._seconds

        async def limited() -> Message:
            nonlocal taken, complete
            # Raised when the body is read, so that the handler of problems answers it.
            if too_large:
                raise _too_large(most)
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(min(self._idle_seconds, due - time.monotonic())):
                    message = await receive()
            except TimeoutError as error:
                raise _too_slow(self._idle_seconds, self._seconds) from error
            if message["type"] == "http.disconnect":
                raise Problem("client_gone", "the connection was closed before the whole body had arrived")
            complete = not message.get("more_body", False)
            taken += len(message.get("body", b""))
            if taken > most:
                raise _too_large(most)
            return message

        await self._app(scope, limited, send)

    def _most(self, path: str) -> int:
        if path in _UPLOADS:
            return self._max_upload
        return MAX_MASKS_BYTES if _WITH_MASKS.fullmatch(path) else MAX_JSON_BYTES


def _too_large(most: int) -> Problem:
    return Problem(
        "content_too_large", f"the body is larger than the limit of {most / 1e6:g} MB", headers={"Connection": "close"}
    )


def _too_slow(idle_seconds: float, seconds: float) -> Problem:
    detail = f"the body took too long: at most {idle_seconds:g} s without data and {seconds:g} s in total are allowed"
    return Problem("too_slow", detail, headers={"Connection": "close"})
