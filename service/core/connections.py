"""Creates the Redis clients of the service, with timeouts, retries and metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import redis.asyncio
import redis.asyncio.retry
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.client import Pipeline
from redis.exceptions import RedisError
from redis.retry import Retry

from service.core.settings import Settings
from service.core.telemetry import Telemetry

TIMEOUT = 5.0
"""Seconds that a connection or a reply may take; blocking commands must wait for less."""

_TRIES_AGAIN = 3
_BACKOFF = ExponentialWithJitterBackoff(base=0.1, cap=1)
"""Renews a broken connection within a second; waiting for a server that is down is up to the callers."""


def connect(
    settings: Settings, telemetry: Telemetry | None = None, *, timeout: float | None = None, tries: int = _TRIES_AGAIN
) -> Redis:
    """Create a client that connects when first used, retries after a broken connection, and returns `str`.

    Args:
        telemetry: counts and times the commands.
        timeout: seconds that a connection or a reply may take; None for `TIMEOUT`.
        tries: how often a command is repeated.
    """
    timeout = TIMEOUT if timeout is None else timeout
    kind = Redis if telemetry is None else TimedRedis
    client = kind.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(_BACKOFF, tries),
    )
    if isinstance(client, TimedRedis) and telemetry is not None:
        client.telemetry = telemetry
    return client


def connect_async(
    settings: Settings, telemetry: Telemetry, connections: int, *, timeout: float | None = None
) -> redis.asyncio.Redis:
    """Create a client for coroutines; it retries once, which renews a broken connection, without a pause.

    Args:
        connections: limit of open connections.
        timeout: as of `connect`.
    """
    timeout = TIMEOUT if timeout is None else timeout
    client = _TimedAsyncRedis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        max_connections=connections,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 1),
    )
    cast(_TimedAsyncRedis, client).telemetry = telemetry
    return client


class TimedRedis(Redis):
    """A client that times every command in `telemetry`; redis-py itself supports only OpenTelemetry."""

    telemetry: Telemetry

    def execute_command(self, *args: Any, **options: Any) -> Any:
        with _timed(self.telemetry, args[0]):
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:  # noqa: FBT001, FBT002  redis-py's
        pipe = _TimedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.telemetry = self.telemetry
        return pipe


class _TimedPipeline(Pipeline):
    telemetry: Telemetry

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002  redis-py's
        with _timed(self.telemetry, "pipeline"):
            return super().execute(raise_on_error)


@contextmanager
def _timed(telemetry: Telemetry, command: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    except RedisError as error:
        telemetry.redis_failed(error)
        raise
    finally:
        telemetry.redis_took(command, time.perf_counter() - began)


class _TimedAsyncRedis(redis.asyncio.Redis):
    """A `TimedRedis` for coroutines, without a context manager, because it runs for every response."""

    telemetry: Telemetry

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except RedisError as error:
            self.telemetry.redis_failed(error)
            raise
        finally:
            self.telemetry.redis_took(args[0], time.perf_counter() - began)
