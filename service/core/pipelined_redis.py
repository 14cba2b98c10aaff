"""Short commands of many coroutines over one connection to Redis, sent as they come and answered in that order.

redis-py lends every command a connection of its own, starts a task for each sending and a timer for each reading, and
tells OpenTelemetry of all of it: several times the work of the command itself, in the way of every answer of the API.
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
    """As `connections.connect_async`, for commands that only read and never wait."""
    client = PipelinedRedis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_timeout=None,  # each command has its time as a whole
        socket_connect_timeout=TIMEOUT,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
    )
    made = cast(PipelinedRedis, client)
    made.telemetry = telemetry
    return made


class PipelinedRedis(redis.asyncio.Redis):
    """A client whose commands all take the same connection, which is renewed when it breaks."""

    telemetry: Telemetry
    _line: _Line | None = None
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
        line: _Line | None = None
        try:
            async with asyncio.timeout(TIMEOUT):
                try:
                    line = await self._connected()
                    return await line.ask(args)
                except ConnectionError:  # a connection that broke is renewed once
                    line = await self._connected()
                    return await line.ask(args)
        except builtins.TimeoutError as error:
            if line is not None:
                await line.close()
            raise TimeoutError(f"no answer to {args[0]} for {TIMEOUT:g} s") from error

    async def _connected(self) -> _Line:
        if self._line is None or self._line.ended:
            self._connecting = self._connecting or asyncio.Lock()
            async with self._connecting:
                if self._line is None or self._line.ended:
                    connection = self.connection_pool.make_connection()  # type: ignore[no-untyped-call]
                    await connection.connect()
                    self._line = _Line(connection)
        return self._line


class _Line:
    """A connection that many ask on.

    Args:
        connection: is connected, and has no timeout of its own.
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
            raise ConnectionError("the connection to Redis has ended")
        packed = self._connection.pack_command(*args)  # what cannot be sent has no answer to wait for
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        # It is on its way, in its place, before this waits for the first time.
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
                if asked.done():  # who asked has gone
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
                    asked.set_exception(ConnectionError(f"the connection to Redis has ended: {reason}"))
            await self._connection.disconnect(nowait=True)

    async def _next(self) -> Any:
        """The next answer; an error that is the answer to one command is no error of the connection."""
        try:
            return await self._connection.read_response(timeout=math.inf, disconnect_on_error=False)
        except ResponseError as error:
            return error
