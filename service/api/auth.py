"""Whose request it is: an API key in `Authorization: Bearer` or `X-API-Key`."""

from __future__ import annotations

import hashlib
import re
import time
from ipaddress import ip_address
from typing import Annotated

from anyio import to_thread
from fastapi import Depends, Request
from structlog.contextvars import bind_contextvars

from service.api.problems import Problem
from service.api.services import Services
from service.core.api_keys import LOCAL, verify

REMEMBERED_SECONDS = 5.0
"""How long a verified key is not looked up again, and so how long a revoked one may still work."""

_REMEMBERED = 1024

SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, as `pairforge keys create` shows it once.",
    },
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key in another header."},
}
"""For the OpenAPI document. FastAPI's own classes for them would take a tenth of the time of a request."""


class KeyCache:
    """Verified keys, by their hashes, for a few seconds."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[str, float]] = {}

    def get(self, digest: bytes) -> str | None:
        key_id, until = self._known.get(digest, ("", 0.0))
        return key_id if time.monotonic() < until else None

    def put(self, digest: bytes, key_id: str) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[digest] = (key_id, time.monotonic() + REMEMBERED_SECONDS)


async def _key_id(request: Request) -> str:
    services: Services = request.app.state.services
    if not services.settings.require_keys:
        _refuse_pages(request)
        bind_contextvars(key_id=LOCAL)
        return LOCAL
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        presented = request.headers.get("x-api-key", "")
    if not presented:
        raise _unauthorized("send an API key as `Authorization: Bearer <key>` or `X-API-Key: <key>`")
    cache: KeyCache = request.app.state.keys
    digest = hashlib.sha256(presented.encode()).digest()
    key_id = cache.get(digest)
    if key_id is None:
        key_id = await to_thread.run_sync(verify, services.redis, presented)
        if key_id is None:
            raise _unauthorized("this API key is not known or was revoked")
        cache.put(digest, key_id)
    bind_contextvars(key_id=key_id)
    return key_id


def _refuse_pages(request: Request) -> None:
    """Where no key tells who asks, refuse what a web page has its visitor's browser ask.

    A page whose own name has been made to resolve to this machine sends that name as `Host`; any other page that may
    change something sends its `Origin`.
    """
    host = request.headers.get("host", "")
    name = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
    if not (name.lower() == "localhost" or _is_loopback(name.strip("[]"))):
        raise Problem("forbidden", f"without API keys only this machine is served, not {name!r:.80}: use 127.0.0.1")
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise Problem("forbidden", f"without API keys other sites' pages are not served, such as {origin!r:.80}")


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


KeyId = Annotated[str, Depends(_key_id)]
