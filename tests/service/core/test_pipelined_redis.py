"""Commands of many coroutines over one connection, to a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis
from redis.exceptions import ConnectionError, DataError, ResponseError, TimeoutError  # noqa: A004  as with Redis

from service.core import pipelined_redis
from service.core.pipelined_redis import PipelinedRedis, connect_pipelined
from service.core.telemetry import Telemetry
from tests.support.scraping import Scraped
from tests.support.servers import MakeSettings, RedisServer
from tests.support.waiting import wait_until

Use = Callable[[PipelinedRedis], Awaitable[object]]


@pytest.fixture
def run(redis_settings: MakeSettings) -> Callable[[Use], Scraped]:
    """Uses a client, and returns what was counted."""

    def run(use: Use) -> Scraped:
        telemetry = Telemetry(CollectorRegistry())

        async def using() -> None:
            client = connect_pipelined(redis_settings(), telemetry)
            try:
                await use(client)
            finally:
                await client.aclose()

        asyncio.run(using())
        return Scraped(generate_latest(telemetry.registry).decode())

    return run


Run = Callable[[Use], Scraped]


async def get(client: PipelinedRedis, name: str) -> Any:
    return await cast(Any, client.get(name))


def test_each_gets_its_own_answer_over_one_connection(run: Run, redis_client: Redis) -> None:
    names = [f"name-{number}" for number in range(300)]
    redis_client.mset({name: name.upper() for name in names})

    async def use(client: PipelinedRedis) -> None:
        assert await asyncio.gather(*(get(client, name) for name in names)) == [name.upper() for name in names]
        assert len([one for one in redis_client.client_list() if one["cmd"] == "get"]) == 1

    assert run(use).value("redis_operation_seconds_count", command="get") == len(names)


def test_answers_have_the_form_that_they_have_elsewhere(run: Run, redis_client: Redis) -> None:
    redis_client.hset("hash", mapping={"a": "1", "b": "2"})
    redis_client.zadd("set", {"a": 1, "b": 2})

    async def use(client: PipelinedRedis) -> None:
        assert await cast(Any, client.hgetall("hash")) == redis_client.hgetall("hash") == {"a": "1", "b": "2"}
        assert await cast(Any, client.hgetall("nothing")) == {}
        assert await client.zcount("set", 2, "+inf") == 1
        seconds, microseconds = await client.time()
        assert isinstance(seconds, int)
        assert isinstance(microseconds, int)

    run(use)


def test_a_refused_command_is_its_askers_alone(run: Run, redis_client: Redis) -> None:
    redis_client.set("text", "a")

    async def use(client: PipelinedRedis) -> None:
        found = await asyncio.gather(
            get(client, "text"), cast(Any, client.hgetall("text")), get(client, "text"), return_exceptions=True
        )
        assert isinstance(found[1], ResponseError)
        assert [found[0], found[2]] == ["a", "a"]

    found = run(use)
    assert found.value("redis_errors_total", error="ResponseError") == found.value("redis_errors_total") == 1


@pytest.mark.parametrize(("name", "error"), [(None, DataError), ("\ud800", UnicodeEncodeError)])
def test_a_command_that_cannot_be_sent_takes_nobodys_answer(
    run: Run, redis_client: Redis, name: str | None, error: type[Exception]
) -> None:
    redis_client.mset({"a": "1", "b": "2"})

    async def use(client: PipelinedRedis) -> None:
        with pytest.raises(error):
            await client.execute_command("GET", name)
        assert [*await asyncio.gather(get(client, "a"), get(client, "b"))] == ["1", "2"]

    run(use)


def test_who_goes_away_takes_nobodys_answer(run: Run, redis_client: Redis) -> None:
    redis_client.mset({"a": "1", "b": "2"})

    async def use(client: PipelinedRedis) -> None:
        assert await get(client, "a") == "1"
        gone = asyncio.create_task(get(client, "a"))
        await asyncio.sleep(0)  # it has asked
        gone.cancel()
        assert await get(client, "b") == "2"
        assert gone.cancelled()

    run(use)


def test_a_connection_that_broke_is_renewed(run: Run, redis_client: Redis, redis_server: RedisServer) -> None:
    redis_client.set("a", "1")

    async def use(client: PipelinedRedis) -> None:
        assert await get(client, "a") == "1"
        redis_client.client_kill_filter(_type="normal", skipme=True)
        assert await get(client, "a") == "1"
        redis_server.kill()
        with pytest.raises(ConnectionError):
            await get(client, "a")
        redis_server.start()
        assert await asyncio.gather(*(get(client, "a") for _ in range(20))) == ["1"] * 20

    assert run(use).value("redis_errors_total", error="ConnectionError") == 1


def test_a_server_that_says_nothing_is_given_up(run: Run, redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelined_redis, "TIMEOUT", 0.2)
    redis_client.set("a", "1")

    async def use(client: PipelinedRedis) -> None:
        assert await get(client, "a") == "1"
        redis_client.client_pause(1000)
        found = await asyncio.gather(*(get(client, "a") for _ in range(3)), return_exceptions=True)
        assert {type(error) for error in found} <= {TimeoutError, ConnectionError}
        assert TimeoutError in {type(error) for error in found}
        await asyncio.sleep(1)
        assert await get(client, "a") == "1"

    run(use)


def test_what_is_closed_leaves_no_connection(run: Run, redis_client: Redis) -> None:
    async def use(client: PipelinedRedis) -> None:
        assert await get(client, "a") is None
        assert len(redis_client.client_list()) == 2

    run(use)
    wait_until(lambda: len(redis_client.client_list()) == 1)
