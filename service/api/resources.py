"""Operations that adapters and jobs share: read, list, cancel, delete."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Header, Query, Request, Response
from structlog.contextvars import bind_contextvars

from service.api import representations, schemas
from service.api.problems import Problem
from service.api.services import Services
from service.core import object_keys
from service.core.object_keys import Kind
from service.core.record import Record, State
from service.core.records.events import read_record
from service.core.strict_json import to_json

PICTURE_HEADERS = {"Cache-Control": "private, max-age=3600", "Vary": "Authorization, X-API-Key"}
"""Of pictures, which never change: a browser may keep them, but for the key that asked."""

Limit = Annotated[int, Query(ge=1, le=100, description="Records per page.")]
_CURSOR = "The `next_cursor` of the previous page."
_ADAPTER_ID, _JOB_ID = r"^adp_[0-9a-z]{26}$", r"^job_[0-9a-z]{26}$"
AdapterCursor = Annotated[str | None, Query(pattern=_ADAPTER_ID, description=_CURSOR)]
JobCursor = Annotated[str | None, Query(pattern=_JOB_ID, description=_CURSOR)]
_AFTER = "An earlier name of `cursor`."
AfterAdapter = Annotated[str | None, Query(pattern=_ADAPTER_ID, description=_AFTER, deprecated=True)]
AfterJob = Annotated[str | None, Query(pattern=_JOB_ID, description=_AFTER, deprecated=True)]
OfAdapter = Annotated[str | None, Query(pattern=_ADAPTER_ID, description="Only jobs of this adapter.")]
OfState = Annotated[State | None, Query(description="Only records in this state.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Any text. For a day, the same request sent with it returns the first one's record.",
    ),
]


Redirect = Annotated[bool, Query(description="Whether to redirect to the file, or to answer with a link to it.")]
ACCEPTED: dict[str, Any] = {
    "Location": {"description": "Path of the record.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds after which to look again.", "schema": {"type": "integer"}},
    "ETag": {"description": "Identifies the present state.", "schema": {"type": "string"}},
    "Idempotency-Replayed": {
        "description": "`true` if the same request has created the record before.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}

LINKED: dict[int | str, dict[str, Any]] = {
    200: {"model": schemas.Link, "description": "The link, with `redirect=false`."},
    303: {
        "description": "A temporary link that needs no API key.",
        "headers": {"Location": {"description": "The link.", "schema": {"type": "string", "format": "uri"}}},
    },
}


async def owned(services: Services, kind: Kind, record_id: str, key_id: str) -> Record:
    """Read a record of this kind that belongs to the key.

    Raises:
        Problem: there is none; the response does not reveal whether another key owns it.
    """
    record = await read_record(services.async_redis, record_id) if object_keys.kind_of(record_id) == kind else None
    if record is None or record.key_id != key_id:
        raise Problem(f"{kind}_not_found", f"no {kind} has the id {record_id!r:.60}; it may have been deleted")
    bind_contextvars(record=record.id)
    return record


async def queue_position(services: Services, record: Record) -> int | None:
    if record.state != State.QUEUED:
        return None
    return await to_thread.run_sync(services.store.states.queue_position, record.id)


async def accepted(request: Request, services: Services, record: Record, *, replayed: bool = False) -> Response:
    """Answer 202 with the record that a request has created, now or before."""
    bind_contextvars(record=record.id)
    # Where a worker has it already, nothing is before it.
    answer = representations.answer(request, record, await queue_position(services, record) or 0, 202)
    if replayed:
        answer.headers["Idempotency-Replayed"] = "true"
    return answer


async def read(
    request: Request, services: Services, kind: Kind, record_id: str, key_id: str, *, whole_curve: bool = False
) -> Response:
    record = await owned(services, kind, record_id, key_id)
    position = await queue_position(services, record)
    return representations.answer(request, record, position, whole_curve=whole_curve)


def page(
    services: Services,
    kind: Kind,
    key_id: str,
    *,
    state: State | None,
    cursor: str | None,
    limit: int,
    adapter: str | None = None,
) -> Response:
    """Answer with a page of the key's records, newest first; to be called in a thread."""
    records, cursor = services.store.records.page(kind, key_id, state=state, adapter=adapter, after=cursor, limit=limit)
    data = [representations.summary(record, _position(services, record)) for record in records]
    return Response(to_json({"data": data, "next_cursor": cursor}), media_type="application/json")


def _position(services: Services, record: Record) -> int | None:
    return services.store.states.queue_position(record.id) if record.state == State.QUEUED else None


async def cancel(request: Request, services: Services, kind: Kind, record_id: str, key_id: str) -> Response:
    """Cancel a queued record at once, or ask the worker to stop a running one. Repeating it does no harm.

    Raises:
        Problem: the record has succeeded or failed.
    """
    await owned(services, kind, record_id, key_id)
    state = await to_thread.run_sync(services.store.records.request_cancel, record_id)
    if state in {State.SUCCEEDED, State.FAILED}:
        raise Problem("already_finished", f"the {kind} has already {state}; delete it to free its storage")
    record = await owned(services, kind, record_id, key_id)
    return representations.answer(request, record, None, 202 if state == State.CANCELLING else 200)


async def delete(services: Services, kind: Kind, record_id: str, key_id: str) -> Response:
    """Delete a finished record; the reconciler deletes what it stored.

    Raises:
        Problem: it has not finished, or another request has deleted it.
    """
    await owned(services, kind, record_id, key_id)
    while not await to_thread.run_sync(services.store.records.remove, record_id):
        # It was deleted or was unfinished; it may have finished since.
        record = await owned(services, kind, record_id, key_id)
        if not record.state.is_terminal:
            raise Problem("not_finished", f"the {kind} is {record.state}: cancel it first")
    return Response(status_code=204)


@dataclass(frozen=True, slots=True)
class File:
    """A stored file to download; a small one is read for its size and hash, which are None here."""

    key: str
    name: str
    content_type: str
    bytes: int | None = None
    sha256: str | None = None


async def signed(services: Services, file: File, *, redirect: bool, head: bool) -> Response:
    """Redirect to a temporary link that needs no API key, or answer with it.

    Args:
        head: the link is for a `HEAD`, since links hold for one method.
    """
    seconds = services.settings.link_seconds

    def sign() -> str:
        return services.storage.signed_link(
            file.key, filename=file.name, content_type=file.content_type, expires=seconds, head=head and redirect
        )

    link, headers = await to_thread.run_sync(sign), {"Cache-Control": "private, no-store"}
    if redirect:
        return Response(status_code=303, headers={"Location": link, **headers})
    size, digest = file.bytes, file.sha256
    if digest is None:
        content = await to_thread.run_sync(services.storage.get, file.key)
        size, digest = len(content), hashlib.sha256(content).hexdigest()
    facts = {"name": file.name, "bytes": size, "sha256": digest}
    body = {"url": link, "expires_at": representations.rfc3339(time.time() + seconds), **facts}
    return Response(to_json(body), headers=headers, media_type="application/json")


def require_result(record: Record, what: str) -> dict[str, Any]:
    """Return the result of a record that has succeeded.

    Raises:
        Problem: it has not succeeded; the code says whether waiting helps.
    """
    if record.state == State.SUCCEEDED and record.result is not None:
        return record.result
    if record.state.is_terminal:
        raise Problem("no_result", f"the {record.kind} ended in state {record.state}, so it has no {what}")
    headers = {"Retry-After": str(representations.POLL_SECONDS[record.state])}
    raise Problem(
        "not_finished",
        f"the {record.kind} is {record.state}; its {what} is available once it has succeeded",
        headers=headers,
    )
