"""Progress as server-sent events, resumed where a broken connection left off.

The events lie in the record's own Redis stream, whose ids are the events' ids; `Last-Event-ID` is where to read on.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from fastapi import Response
from fastapi.responses import StreamingResponse
from redis.exceptions import RedisError
from starlette.types import Receive, Scope, Send

from service.api.problems import RETRY_SECONDS, Problem
from service.api.services import Services
from service.core.records import Event, Record, State, read_events, read_record

ID_PATTERN = r"^\d{1,19}-\d{1,19}$"

_PING_SECONDS = 15.0


class EventStream(StreamingResponse):
    """A `text/event-stream`, which takes one of a number of turns while it is sent."""

    media_type = "text/event-stream"

    # The OpenAPI document takes the status from the default of `status_code`.
    def __init__(self, content: AsyncIterator[str], turns: asyncio.Semaphore, status_code: int = 200) -> None:
        super().__init__(content, status_code, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Nothing is awaited between the question and the turn, which is taken here as only here it is sure to end.
        if self._turns.locked():
            raise Problem(
                "unavailable",
                "too many event streams are open: poll instead, or come back later",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
        async with self._turns:
            await super().__call__(scope, receive, send)


async def stream(services: Services, record: Record, last_event_id: str | None) -> Response:
    """The record's events after the given one, from the first without; it ends with the record's terminal state.

    Answers 204, which tells a browser not to come back, where nothing more will come.
    The answer itself is a `Problem` where too many streams are open.
    """
    after = last_event_id or "0-0"
    if record.state.is_terminal and not await read_events(services.stream_redis, record.id, after, wait_seconds=0.001):
        return Response(status_code=204)
    return EventStream(_lines(services, record.id, after), services.streams)


async def _lines(services: Services, record_id: str, after: str) -> AsyncIterator[str]:
    yield f"retry: {RETRY_SECONDS * 1000}\n\n"
    last_sent = time.monotonic()
    try:
        while True:
            events = await read_events(services.stream_redis, record_id, after)
            for event in events:
                yield _line(event)
                if State(event.data["state"]).is_terminal:
                    return
            if events:
                after, last_sent = events[-1].id, time.monotonic()
            elif time.monotonic() - last_sent > _PING_SECONDS:
                if await read_record(services.fast_redis, record_id) is None:
                    return  # deleted
                yield ": still here\n\n"
                last_sent = time.monotonic()
    except RedisError:
        # The client comes back with the id of what it saw last.
        return


def _line(event: Event) -> str:
    data = dict(event.data)
    if data["progress"]:
        data["progress"] = {name: value for name, value in data["progress"].items() if name != "request"}
    return f"id: {event.id}\ndata: {json.dumps(data)}\n\n"
