"""Renders records as JSON for clients."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json

from service.core.object_keys import Kind
from service.core.record import Record, State

POLL_SECONDS = {State.QUEUED: 5, State.RUNNING: 2, State.CANCELLING: 1}
"""`Retry-After` of a record in each unfinished state."""

COLLECTION = {Kind.ADAPTER: "adapters", Kind.JOB: "jobs"}


@lru_cache(maxsize=4096)
def rfc3339(seconds: float) -> str:
    """Format a Unix time as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def path(record: Record) -> str:
    return f"/v1/{COLLECTION[record.kind]}/{record.id}"


def view(record: Record, queue_position: int | None = None) -> dict[str, Any]:
    """Render an adapter or a job as `service.api.schemas` describes it."""
    result = record.result or {}
    progress = dict(record.progress or {})
    resolved = result.get("request") or progress.pop("request", None) or {}
    progress.pop("request", None)
    common = {
        "id": record.id,
        "state": record.state,
        "created_at": rfc3339(record.created_at),
        "timestamps": {state: rfc3339(at) for state, at in record.transitions.items()},
        "attempt": record.attempt,
        "queue_position": queue_position if record.state == State.QUEUED else None,
        "progress": progress or None,
        "error": record.error,
        "notes": record.notes,
        "stored_bytes": record.stored_bytes,
    }
    own = _adapter(record, resolved) if record.kind == Kind.ADAPTER else _job(record, resolved)
    return {**common, **own}


def _adapter(record: Record, resolved: Mapping[str, Any]) -> dict[str, Any]:
    base = path(record)
    links = {"self": base, "events": f"{base}/events", "cancel": f"{base}/cancel"}
    if record.state == State.SUCCEEDED:
        links["artifact"] = f"{base}/artifact"
    return {
        "name": record.request["name"],
        "request": _overlaid(record.request, resolved),
        "loss": (record.result or record.checkpoint or {}).get("loss", []),
        "samples": [{"step": int(step), "link": f"{base}/samples/{step}"} for step in samples(record)],
        "card": (record.result or {}).get("card"),
        "links": links,
    }


def samples(record: Record) -> Mapping[str, str]:
    """Map each step to the object key of its sample sheet; empty if the record failed or was cancelled."""
    if record.state in {State.FAILED, State.CANCELLED}:
        return {}
    found: Mapping[str, str] = (record.result or record.checkpoint or {}).get("samples", {})
    return found


def _job(record: Record, resolved: Mapping[str, Any]) -> dict[str, Any]:
    base = path(record)
    result = record.result or {}
    links = {
        "self": base,
        "events": f"{base}/events",
        "cancel": f"{base}/cancel",
        "adapter": f"/v1/adapters/{record.request['adapter_id']}",
    }
    if record.state == State.SUCCEEDED:
        links |= {"dataset": f"{base}/dataset", "preview": f"{base}/preview"}
    return {
        "adapter_id": record.request["adapter_id"],
        "request": _overlaid(record.request, resolved),
        "counts": record.counts or result.get("counts"),
        "dataset": {name: result[name] for name in ("bytes", "sha256") if name in result} or None,
        "verdict": result.get("verdict"),
        "links": links,
    }


def _overlaid(request: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay the request with the values that a worker resolved, nested options one by one."""
    nested = {
        name: {**request[name], **value}
        for name, value in resolved.items()
        if isinstance(value, dict) and isinstance(request.get(name), dict)
    }
    return {**request, **resolved, **nested}


def answer(request: Request, record: Record, queue_position: int | None, status: int = 200) -> Response:
    """Answer with a record, with an `ETag` for cheap polling and `Retry-After` for its interval."""
    # The queue position changes without a new revision.
    position = f"-{queue_position}" if record.state == State.QUEUED else ""
    etag = f'"{record.revision}{position}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if record.state in POLL_SECONDS:
        headers["Retry-After"] = str(POLL_SECONDS[record.state])
    if status == 202:
        headers["Location"] = path(record)
    if request.method in {"GET", "HEAD"} and _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(to_json(view(record, queue_position)), status, headers, "application/json")


def _matches(presented: str | None, etag: str) -> bool:
    if presented is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in presented.split(",")}
    return etag in tags or "*" in tags
