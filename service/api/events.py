"""Sends progress as server-sent events, which resume after a broken connection.

The events are stored in the record's own Redis stream, whose ids are the events' ids; `Last-Event-ID` says where to
resume.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Header, Response
from fastapi.responses import StreamingResponse
from redis.exceptions import RedisError
from starlette.types import Receive, Scope, Send

from service.api.concurrency import ConcurrencyLimit
from service.api.problems import RETRY_SECONDS
from service.api.services import Services
from service.core.record import Event, Record, State
from service.core.records.events import last_event_id, read_events, read_record
from service.core.strict_json import to_json

ID_PATTERN = r"^[0-9]{1,19}-[0-9]{1,19}$"

LastEventId = Annotated[
    str | None, Header(pattern=ID_PATTERN, description="The `id` of the last event that was received.")
]

_EVENT = {
    "type": "object",
    "required": ["id", "data"],
    "properties": {
        "id": {"type": "string", "description": "Grows; `Last-Event-ID` resumes after it."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/ProgressEvent"},
        },
    },
}

DESCRIBED: dict[str, Any] = {
    "description": "Events whose `data` is JSON (`ProgressEvent`); every event tells the whole state.",
    "content": {"text/event-stream": {"schema": _EVENT}},
}

_PING_SECONDS = 15.0


class EventStream(StreamingResponse):
    """A `text/event-stream` response that holds a slot of the concurrency limit while it is sent."""

    media_type = "text/event-stream"

    # The OpenAPI document takes the status from the default of `status_code`.
    def __init__(
        self, content: AsyncIterator[str], limit: ConcurrencyLimit, key_id: str, status_code: int = 200
    ) -> None:
        super().__init__(content, status_code, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._limit, self._key_id = limit, key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Taken here, because only here it is certain to be released.
        with self._limit.slot(self._key_id):
            await super().__call__(scope, receive, send)


async def stream(services: Services, record: Record, seen: str | None) -> Response:
    """Stream the record's events after the last one seen, or all of them, until its terminal state.

    Answers 204, which stops a browser from reconnecting, if no events will follow.
    Sending the response raises a `Problem` if too many streams are open.
    """
    after = "0-0"
    if seen is not None:
        # An id beyond the last event would never be reached.
        after = min(seen, await last_event_id(services.stream_redis, record.id), key=_order)
    if record.state.is_terminal and not await read_events(services.stream_redis, record.id, after, wait_seconds=0.001):
        return Response(status_code=204)
    return EventStream(_lines(services, record.id, after), services.streams, record.key_id)


async def _lines(services: Services, record_id: str, after: str) -> AsyncIterator[str]:
    yield f"retry: {RETRY_SECONDS * 1000}\n\n"
    last_sent, ended = time.monotonic(), False
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
                record = await read_record(services.async_redis, record_id)
                if record is None or ended:
                    return  # deleted, or its last event has expired
                # The last event may have arrived since events were last read.
                ended = record.state.is_terminal
                yield ": still here\n\n"
                last_sent = time.monotonic()
    except RedisError:
        # The client reconnects with the id of the last event it saw.
        return


def _order(event_id: str) -> tuple[int, ...]:
    return tuple(map(int, event_id.split("-")))


def _line(event: Event) -> str:
    data = dict(event.data)
    if data["progress"]:
        data["progress"] = {name: value for name, value in data["progress"].items() if name != "request"}
    return f"id: {event.id}\ndata: {to_json(data)}\n\n"
