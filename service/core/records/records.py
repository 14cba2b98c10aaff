"""Single records: read them with their events, list those of an API key, cancel and remove them."""

from __future__ import annotations

from typing import cast

from service.core.object_keys import Kind
from service.core.record import Event, Record, State, parse_record
from service.core.records.database import Database, events_key, record_key
from service.core.records.errors import AdapterInUse
from service.core.records.events import Entries, parse_events
from service.core.scripts import NAMESPACE


class Records:
    """Reads records, and changes them as their users ask."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, record: str) -> Record | None:
        fields = cast(dict[str, str], self._database.redis.hgetall(record_key(record)))
        return parse_record(fields) if fields else None

    def page(
        self, kind: Kind, key_id: str, *, state: State | None = None, after: str | None = None, limit: int = 20
    ) -> tuple[list[Record], str | None]:
        """A page of an API key's records, newest first, and the cursor of the next page (None at the end).

        A cursor is the id of the last record seen, so pages neither skip nor repeat while records come and go.
        """
        redis = self._database.redis
        index = f"{NAMESPACE}index:{kind}:{key_id}" + (f":{state}" if state else "")
        newest = f"({after}" if after else "+"
        ids = cast(list[str], redis.zrevrangebylex(index, newest, "-", start=0, num=limit + 1))
        with redis.pipeline(transaction=False) as pipe:
            for record in ids[:limit]:
                pipe.hgetall(record_key(record))
            found = [parse_record(fields) for fields in pipe.execute() if fields]
        return found, ids[limit - 1] if len(ids) > limit else None

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
