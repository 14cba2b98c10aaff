"""Renders records as JSON for clients."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json

from service.core.object_keys import Kind, dataset_name
from service.core.options.methods import DEFAULT_METHOD
from service.core.record import Record, State

POLL_SECONDS = {State.QUEUED: 5, State.RUNNING: 2, State.CANCELLING: 1}
"""`Retry-After` of a record in each unfinished state."""

CURVE_POINTS = 200
"""Most points of a curve, which are enough for a picture, unless the whole is asked for."""

COLLECTION = {Kind.ADAPTER: "adapters", Kind.JOB: "jobs"}


@lru_cache(maxsize=4096)
def rfc3339(seconds: float) -> str:
    """Format a Unix time as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def path(record: Record) -> str:
    return f"/v1/{COLLECTION[record.kind]}/{record.id}"


def summary(record: Record, queue_position: int | None = None) -> dict[str, Any]:
    """Render an adapter or a job for a list, without curves, cards and notes."""
    progress = dict(record.progress or {})
    resolved = progress.pop("request", None) or {}
    common = {
        "id": record.id,
        "state": record.state,
        "created_at": rfc3339(record.created_at),
        "timestamps": {state: rfc3339(at) for state, at in record.transitions.items()},
        "attempt": record.attempt,
        "queue_position": queue_position,
        "progress": progress or None,
        "error": record.error,
        "stored_bytes": record.stored_bytes,
        "metadata": record.request.get("metadata", {}),
        "request": _overlaid(record.request, (record.result or {}).get("request") or resolved),
        "links": _links(record),
    }
    return {**common, **(_adapter(record) if record.kind == Kind.ADAPTER else _job(record))}


def view(record: Record, queue_position: int | None = None, *, whole_curve: bool = False) -> dict[str, Any]:
    """Render an adapter or a job as `service.api.schemas` describes it."""
    whole = {**summary(record, queue_position), "notes": record.notes}
    return {**whole, **_trained(record, whole_curve=whole_curve)} if record.kind == Kind.ADAPTER else whole


def _adapter(record: Record) -> dict[str, Any]:
    request = record.request
    types = [each["name"] for each in request.get("defects", [])] or [request["defect"]]
    return {"name": request["name"], "method": request.get("method", DEFAULT_METHOD), "defects": types}


def _links(record: Record) -> dict[str, str]:
    """Link to what can be done with a record in its state."""
    base = path(record)
    links = {"self": base, "events": f"{base}/events"}
    if not record.state.is_terminal:
        links["cancel"] = f"{base}/cancel"
    if record.kind == Kind.JOB:
        links["adapter"] = f"/v1/adapters/{record.request['adapter_id']}"
    if record.kind == Kind.JOB and record.state not in {State.FAILED, State.CANCELLED}:
        links["pairs"] = f"{base}/pairs"
    if record.state == State.SUCCEEDED:
        results = ["artifact"] if record.kind == Kind.ADAPTER else ["dataset", "preview", "selections"]
        if "verdict" in (record.result or {}):
            results.append("evaluation")
        links |= {result: f"{base}/{result}" for result in results}
    return links


def _trained(record: Record, *, whole_curve: bool) -> dict[str, Any]:
    curve = (record.result or record.checkpoint or {}).get("loss", [])
    card = (record.result or {}).get("card")
    if not whole_curve:
        curve = thinned(curve)
        card = card and {name: thinned(value) if name in _CURVES else value for name, value in card.items()}
    base = path(record)
    return {
        "loss": curve,
        "samples": [{"step": int(step), "link": f"{base}/samples/{step}"} for step in samples(record)],
        "card": card,
    }


_CURVES = {"loss_curve", "held_out_curve"}
"""Fields of a card that grow with the steps of a training."""


def thinned(curve: list[Any]) -> list[Any]:
    """Thin a curve to at most `CURVE_POINTS` points, evenly spread, always with the last one."""
    stride = -(-len(curve) // CURVE_POINTS) or 1
    return curve[::-1][::stride][::-1]


def samples(record: Record) -> Mapping[str, str]:
    """Map each step to the object key of its sample sheet; empty if the record failed or was cancelled."""
    if record.state in {State.FAILED, State.CANCELLED}:
        return {}
    found: Mapping[str, str] = (record.result or record.checkpoint or {}).get("samples", {})
    return found


def _job(record: Record) -> dict[str, Any]:
    result = record.result or {}
    return {
        "adapter_id": record.request["adapter_id"],
        "counts": record.counts or result.get("counts"),
        "dataset": _dataset(record),
        "partial": result.get("partial"),
        "verdict": result.get("verdict"),
    }


def _dataset(record: Record) -> dict[str, Any] | None:
    result = record.result
    if result is None or "sha256" not in result:
        return None
    name = result.get("name") or dataset_name("", record.id)  # earlier versions stored none
    return {"name": name, "bytes": result["bytes"], "sha256": result["sha256"]}


def _overlaid(request: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay the request with the values that a worker resolved, nested options one by one."""
    nested = {
        name: {**request[name], **value}
        for name, value in resolved.items()
        if isinstance(value, dict) and isinstance(request.get(name), dict)
    }
    return {**request, **resolved, **nested}


def answer(
    request: Request, record: Record, queue_position: int | None, status: int = 200, *, whole_curve: bool = False
) -> Response:
    """Answer with a record, with an `ETag` for cheap polling and `Retry-After` for its interval."""
    # The queue position changes without a new revision.
    position = "" if queue_position is None else f"-{queue_position}"
    etag = f'"{record.revision}{position}{"-whole" if whole_curve else ""}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if record.state in POLL_SECONDS:
        headers["Retry-After"] = str(POLL_SECONDS[record.state])
    if status == 202:
        headers["Location"] = path(record)
    if request.method in {"GET", "HEAD"} and _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    body = to_json(view(record, queue_position, whole_curve=whole_curve), inf_nan_mode="null")
    return Response(body, status, headers, "application/json")


def _matches(presented: str | None, etag: str) -> bool:
    if presented is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in presented.split(",")}
    return etag in tags or "*" in tags
