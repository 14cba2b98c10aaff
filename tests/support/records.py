"""Records brought into the states that tests need."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from service.core.object_keys import Kind, new_id
from service.core.record import Record, State
from service.core.records.store import RecordStore

KEY = "k1"
BRIEF = 0.3
DEAD = 1.2 * BRIEF
"""After this many seconds a brief lease is dead."""

Operation = Callable[[RecordStore, str], Any]


def create(store: RecordStore, kind: Kind = Kind.ADAPTER, key: str = KEY, **options: Any) -> str:
    return store.submissions.create(kind, new_id(kind), key, {"name": "tile"}, **options)[0].id


def found(store: RecordStore, record: str) -> Record:
    read = store.records.get(record)
    assert read is not None
    return read


def brought_to(store: RecordStore, state: State, **options: Any) -> str:
    """A new adapter in a state; while it is not terminal, its owner is "w"."""
    record = create(store, **options)
    if state is State.QUEUED:
        return record
    store.claims.claim(record, "w")
    if state in {State.CANCELLING, State.CANCELLED}:
        store.records.request_cancel(record)
    endings: dict[State, Operation] = {
        State.SUCCEEDED: lambda store, record: store.claims.succeed(record, "w", {}, 0),
        State.FAILED: lambda store, record: store.claims.fail(record, "w", {"code": "x", "detail": "x"}),
        State.CANCELLED: lambda store, record: store.claims.mark_cancelled(record, "w"),
    }
    if state in endings:
        assert endings[state](store, record)
    return record


OPERATIONS: dict[str, Operation] = {
    "claim": lambda store, record: store.claims.claim(record, "v"),
    "join": lambda store, record: store.claims.join(record, "v"),
    "renew": lambda store, record: store.claims.renew(record, "w"),
    "report": lambda store, record: store.claims.report(record, "w", {}),
    "save_checkpoint": lambda store, record: store.claims.save_checkpoint(record, "w", {}),
    "release": lambda store, record: store.claims.release(record, "w"),
    "retry": lambda store, record: store.claims.retry(record, "w"),
    "succeed": lambda store, record: store.claims.succeed(record, "w", {}, 0),
    "fail": lambda store, record: store.claims.fail(record, "w", {}),
    "mark_cancelled": lambda store, record: store.claims.mark_cancelled(record, "w"),
    "request_cancel": lambda store, record: store.records.request_cancel(record),
    "reap": lambda store, record: store.upkeep.reap(record),
}


def changes(store: RecordStore, operations: dict[str, Operation], pause: float = 0) -> set[tuple[str, State, State]]:
    """(operation, state before, state after) wherever an operation changed the state."""
    cases = [(name, before, brought_to(store, before)) for name in operations for before in State]
    time.sleep(pause)
    for name, _, record in cases:
        operations[name](store, record)
    ends = [(name, before, found(store, record).state) for name, before, record in cases]
    return {(name, before, after) for name, before, after in ends if after is not before}
