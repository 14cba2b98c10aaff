"""The record of an adapter or a job, and how it is parsed from Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from service.core.object_keys import Kind
from service.core.strict_json import from_json

Json = dict[str, Any]


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True)
class Record:
    """One adapter or job. Times are Unix times in seconds by the clock of the Redis server.

    Attributes:
        transitions: state → time of the last entry into it.
        request: the request, with a seed.
        progress, counts, result, error, checkpoint: JSON as written by the workers; None until first written.
        owner: attempt that claimed or finished it last.
        lease_until: end of the longest lease on it; None if nobody holds one.
        attempt: number of starts so far.
        strikes: number of starts since the last progress whose worker did not die.
        deaths: number of starts since then whose worker died.
        stored_bytes: size of its objects, counted against its key's quota.
        revision: grows with every visible change.
        notes: sentences on the uploads.
        request_id: id of the request that created it, for logs.
    """

    id: str
    kind: Kind
    key_id: str
    state: State
    created_at: float
    transitions: dict[str, float]
    request: Json
    progress: Json | None
    counts: Json | None
    result: Json | None
    error: Json | None
    owner: str | None
    lease_until: float | None
    attempt: int
    strikes: int
    deaths: int
    checkpoint: Json | None
    stored_bytes: int
    revision: int
    notes: list[str]
    request_id: str | None

    @property
    def is_selection(self) -> bool:
        """Return whether it is a job that puts approved pairs of another job together."""
        return "selection" in self.request


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a record.

    Attributes:
        id: grows from event to event of a record; reading resumes after an id.
        data: {"state", "revision", "attempt", "at", "progress", "counts", "error"} at the time of the event.
    """

    id: str
    data: Json


def parse_record(fields: Mapping[str, str]) -> Record:
    """Parse a record from its Redis hash."""
    lease = fields.get("lease_until")
    return Record(
        id=fields["id"],
        kind=Kind(fields["kind"]),
        key_id=fields["key_id"],
        state=State(fields["state"]),
        created_at=float(fields["created_at"]),
        transitions={name.removeprefix("at:"): float(time) for name, time in fields.items() if name.startswith("at:")},
        request=from_json(fields["request"]),
        progress=parse_json(fields.get("progress")),
        counts=parse_json(fields.get("counts")),
        result=parse_json(fields.get("result")),
        error=parse_json(fields.get("error")),
        owner=fields.get("owner"),
        lease_until=None if lease is None else float(lease),
        attempt=int(fields["attempt"]),
        strikes=int(fields["strikes"]),
        deaths=int(fields.get("deaths", 0)),
        checkpoint=parse_json(fields.get("checkpoint")),
        stored_bytes=int(fields["stored_bytes"]),
        revision=int(fields["revision"]),
        notes=from_json(fields.get("notes", "[]")),
        request_id=fields.get("request_id"),
    )


def parse_json(text: str | None) -> Json | None:
    """Parse a JSON field that may be missing."""
    return None if text is None else cast(Json, from_json(text))
