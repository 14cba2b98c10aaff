"""Single records: read them with their events, list those of an API key, cancel and remove them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from service.core.object_keys import Kind
from service.core.record import Event, Record, State, parse_record
from service.core.records.database import Database, events_key, record_key
from service.core.records.errors import AdapterInUse
from service.core.records.events import Entries, parse_events
from service.core.scripts import NAMESPACE

_COMMON = (
    *("id", "kind", "key_id", "state", "request", "created_at", "owner", "lease_until", "attempt", "strikes", "deaths"),
    *("stored_bytes", "revision", "request_id", "progress", "counts", "error", *(f"at:{state}" for state in State)),
)
SUMMARY = {Kind.ADAPTER: _COMMON, Kind.JOB: (*_COMMON, "notes", "result")}
"""Fields that a list needs."""


class Records:
    """Reads records, and changes them as their users ask."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, record: str) -> Record | None:
        fields = cast(dict[str, str], self._database.redis.hgetall(record_key(record)))
        return parse_record(fields) if fields else None

    def page(
        self,
        kind: Kind,
        key_id: str,
        *,
        state: State | None = None,
        adapter: str | None = None,
        after: str | None = None,
        limit: int = 20,
    ) -> tuple[list[Record], str | None]:
        """A page of an API key's records, newest first, and the cursor of the next page (None at the end).

        Adapters come without notes, checkpoint and result, jobs without checkpoint.

        A cursor is the id of the last record seen, so pages neither skip nor repeat while records come and go.
        """
        ids = self._newest(kind, key_id, state or adapter, after, limit + 1)
        if state and adapter:
            wanted, ids = ids, []
            while wanted and len(ids) <= limit:
                of_adapter = self._among(f"{NAMESPACE}index:{kind}:{key_id}:{adapter}", wanted)
                ids += of_adapter
                wanted = self._newest(kind, key_id, state, wanted[-1], limit + 1)
        return self._summaries(kind, ids[:limit]), ids[limit - 1] if len(ids) > limit else None

    def _newest(self, kind: Kind, key_id: str, of: str | None, after: str | None, number: int) -> list[str]:
        """Ids of a key's records, newest first; `of` is a state or an adapter."""
        index = f"{NAMESPACE}index:{kind}:{key_id}" + (f":{of}" if of else "")
        newest = f"({after}" if after else "+"
        return cast(list[str], self._database.redis.zrevrangebylex(index, newest, "-", start=0, num=number))

    def _among(self, index: str, ids: Sequence[str]) -> list[str]:
        scores = self._database.redis.zmscore(index, list(ids))
        return [record for record, score in zip(ids, scores, strict=True) if score is not None]

    def _summaries(self, kind: Kind, ids: Sequence[str]) -> list[Record]:
        """Read records without their curves and cards, of which a hundred would be megabytes."""
        names = list(SUMMARY[kind])
        with self._database.redis.pipeline(transaction=False) as pipe:
            for record in ids:
                pipe.hmget(record_key(record), names)
            rows = pipe.execute()
        found = ({name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows)
        return [parse_record(fields) for fields in found if fields]

    def events(self, record: str, after: str = "0", limit: int = 1000) -> list[Event]:
        """Events later than the one with id `after`, oldest first."""
        entries = self._database.redis.xrange(events_key(record), min=f"({after}", count=limit)
        return parse_events(cast(Entries, entries))

    def request_cancel(self, record: str) -> State | None:
        """From queued to cancelled, from running to cancelling; the state now, None where the record is unknown."""
        answer = self._database.run("cancel", record)
        if answer is None:
            return None
        state, changed = State(answer[0]), bool(answer[1])
        if changed:
            self._database.count_end(record, state)
        return state

    def remove(self, record: str) -> bool:
        """Delete a record in a terminal state; its objects are deleted soon (see `Upkeep.garbage`).

        Raises:
            AdapterInUse: the record stays.
        """
        outcome = self._database.run("remove", record)
        if isinstance(outcome, list):
            raise AdapterInUse(outcome)
        return bool(outcome)
