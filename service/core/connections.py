"""Clients of Redis, made as every part of the service needs them."""

from __future__ import annotations

import redis.asyncio
import redis.asyncio.retry
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from service.core.settings import Settings

TIMEOUT = 5.0
"""Seconds that a connection or an answer may take; commands that wait must wait for less."""

_TRIES_AGAIN = 3
_BACKOFF = ExponentialWithJitterBackoff(base=0.1, cap=1)
"""A connection that broke is renewed within a second; for a server that is down there is no waiting here."""


def connect(settings: Settings) -> Redis:
    """A client that connects when first used, tries again after a broken connection, and answers in `str`."""
    return Redis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(_BACKOFF, _TRIES_AGAIN),
    )


def connect_async(settings: Settings) -> redis.asyncio.Redis:
    """As `connect`, for coroutines."""
    return redis.asyncio.Redis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=redis.asyncio.retry.Retry(_BACKOFF, _TRIES_AGAIN),
    )
