"""Clients of Redis, made as every part of the service needs them."""

from __future__ import annotations

import redis.asyncio
from redis import Redis

from service.core.settings import Settings

TIMEOUT = 5.0
"""Seconds that a connection or an answer may take; commands that wait must wait for less."""


def connect(settings: Settings) -> Redis:
    """A client that connects when first used, tries again after a broken connection, and answers in `str`."""
    return Redis.from_url(
        settings.redis_url, decode_responses=True, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
    )


def connect_async(settings: Settings) -> redis.asyncio.Redis:
    """As `connect`, for coroutines."""
    return redis.asyncio.Redis.from_url(
        settings.redis_url, decode_responses=True, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
    )
