"""Authenticates requests by an API key in `Authorization: Bearer` or `X-API-Key`."""

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
from service.core.api_keys import LOCAL, ApiKey, verify

REMEMBERED_SECONDS = 5.0
"""How long a verified key is cached, and so how long a revoked one may still work."""

_REMEMBERED = 1024

SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key; `pairforge keys create` creates one.",
    },
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key in another header."},
}
"""Security schemes for the OpenAPI document. FastAPI's own classes would take a tenth of the time of a request."""


class KeyCache:
    """Caches verified keys by their hashes for a few seconds."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[ApiKey, float]] = {}

    def get(self, digest: bytes) -> ApiKey | None:
        found = self._known.get(digest)
        return found[0] if found is not None and time.monotonic() < found[1] and not found[0].expired else None

    def put(self, digest: bytes, key: ApiKey) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[digest] = (key, time.monotonic() + REMEMBERED_SECONDS)


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
    key = cache.get(digest)
    if key is None:
        key = await to_thread.run_sync(verify, services.redis, presented)
        if key is None:
            raise _unauthorized("this API key is unknown, was revoked or has expired: check it, or ask for a new one")
        cache.put(digest, key)
    bind_contextvars(key_id=key.id)
    if key.read_only and request.method not in {"GET", "HEAD"}:
        raise Problem("read_only_key", "this API key may only read: use one that may create, cancel and delete")
    return key.id


def _refuse_pages(request: Request) -> None:
    """Refuse requests that a web page makes its visitor's browser send, when no keys are required.

    A page whose own name resolves to this machine sends that name as `Host`; any other page that may change something
    sends its `Origin`.
    """
    host = request.headers.get("host", "")
    name = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
    if not (name.lower() == "localhost" or _is_loopback(name.strip("[]"))):
        raise Problem(
            "forbidden",
            f"this server runs without API keys and answers to 127.0.0.1 or localhost only, not to {name!r:.80}",
        )
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise Problem(
            "forbidden",
            f"this server runs without API keys and refuses requests from other web pages, here {origin!r:.80}",
        )


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


KeyId = Annotated[str, Depends(_key_id)]
