"""Sends short commands of many coroutines over one Redis connection; the replies arrive in the same order.

redis-py gives every command its own connection, starts a task per write and a timer per read, and reports all of it to
OpenTelemetry. That is several times the work of the command itself, and every response of the API would wait for it.
"""

from __future__ import annotations

import asyncio
import builtins
import math
import time
from collections import deque
from typing import Any, cast

import redis.asyncio
import redis.asyncio.retry
from redis.asyncio.connection import AbstractConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError  # noqa: A004  as with Redis

from service.core.connections import TIMEOUT
from service.core.settings import Settings
from service.core.telemetry import Telemetry


def connect_pipelined(settings: Settings, telemetry: Telemetry) -> PipelinedRedis:
    """Create a client for commands that only read and never block."""
    client = PipelinedRedis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_timeout=None,  # each command has one timeout as a whole
        socket_connect_timeout=TIMEOUT,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
    )
    pipelined = cast(PipelinedRedis, client)
    pipelined.telemetry = telemetry
    return pipelined


class PipelinedRedis(redis.asyncio.Redis):
    """A client whose commands share one connection, which is renewed when it breaks."""

    telemetry: Telemetry
    _line: _Pipeline | None = None
    _connecting: asyncio.Lock | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            answer = await self._answer(args)
        except RedisError as error:
            self.telemetry.redis_failed(error)
            raise
        finally:
            self.telemetry.redis_took(args[0], time.perf_counter() - began)
        shaped = self.response_callbacks.get(args[0])
        return answer if shaped is None else shaped(answer, **options)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001  redis-py's
        if self._line is not None:
            await self._line.close()
        await super().aclose(close_connection_pool)

    async def _answer(self, args: tuple[Any, ...]) -> Any:
        line: _Pipeline | None = None
        try:
            async with asyncio.timeout(TIMEOUT):
                try:
                    line = await self._connected()
                    return await line.ask(args)
                except ConnectionError:  # a broken connection is renewed once
                    line = await self._connected()
                    return await line.ask(args)
        except builtins.TimeoutError as error:
            if line is not None:
                await line.close()
            raise TimeoutError(f"Redis did not answer {args[0]} within {TIMEOUT:g} s") from error

    async def _connected(self) -> _Pipeline:
        if self._line is None or self._line.ended:
            self._connecting = self._connecting or asyncio.Lock()
            async with self._connecting:
                if self._line is None or self._line.ended:
                    connection = self.connection_pool.make_connection()  # type: ignore[no-untyped-call]
                    await connection.connect()
                    self._line = _Pipeline(connection)
        return self._line


class _Pipeline:
    """A connection on which many coroutines send commands.

    Args:
        connection: connected, and without a timeout of its own.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._reading = asyncio.create_task(self._read())

    @property
    def ended(self) -> bool:
        return self._reading.done() or not self._connection.is_connected

    async def ask(self, args: tuple[Any, ...]) -> Any:
        if self.ended:
            raise ConnectionError("the connection to Redis is closed")
        packed = self._connection.pack_command(*args)  # before the future: a command that cannot be sent has no reply
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        # Written before the first await that yields, so the order of commands and futures is the same.
        await self._connection.send_packed_command(packed, check_health=False)
        return await answer

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def _read(self) -> None:
        reason = "closed"
        try:
            while True:
                answer = await self._next()
                asked = self._waiting.popleft()
                if asked.done():  # the caller was cancelled
                    continue
                if isinstance(answer, ResponseError):
                    asked.set_exception(answer)
                else:
                    asked.set_result(answer)
        except (RedisError, OSError) as error:
            reason = repr(error)
        finally:
            for asked in self._waiting:
                if not asked.done():
                    asked.set_exception(ConnectionError(f"the connection to Redis was lost: {reason}"))
            await self._connection.disconnect(nowait=True)

    async def _next(self) -> Any:
        """Read the next reply; an error reply to a command is returned, because the connection still works."""
        try:
            return await self._connection.read_response(timeout=math.inf, disconnect_on_error=False)
        except ResponseError as error:
            return error
