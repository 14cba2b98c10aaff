"""Events of records as Redis streams hold them, and reads over an asynchronous connection."""

from __future__ import annotations

from typing import Any, cast

import redis.asyncio

from service.core.record import Event, Record, parse_record
from service.core.records.database import events_key, record_key
from service.core.strict_json import from_json

Entries = list[tuple[str, dict[str, str]]]
"""Id and fields of each entry of a stream."""


def parse_events(entries: Entries) -> list[Event]:
    return [Event(entry, from_json(fields["data"])) for entry, fields in entries]


async def read_record(redis: redis.asyncio.Redis, record: str) -> Record | None:
    """Like `Records.get`."""
    fields = await cast(Any, redis.hgetall(record_key(record)))
    return parse_record(fields) if fields else None


async def read_events(
    redis: redis.asyncio.Redis, record: str, after: str = "0", *, wait_seconds: float = 2.0
) -> list[Event]:
    """Like `Records.events`, but wait for the next event where there is none yet.

    Args:
        wait_seconds: at most; less than `connections.TIMEOUT`.
    """
    block = max(1, round(wait_seconds * 1000))
    answer = await cast(Any, redis.xread({events_key(record): after}, count=1000, block=block))
    return [event for _, entries in answer for event in parse_events(entries)]


async def last_event_id(redis: redis.asyncio.Redis, record: str) -> str:
    """The id of the record's latest event, "0-0" where there is none."""
    entries = await cast(Any, redis.xrevrange(events_key(record), count=1))
    return str(entries[0][0]) if entries else "0-0"
