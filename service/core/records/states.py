"""Records by state: queues, counts, and which records have been in a state for how long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from service.core.object_keys import Kind
from service.core.record import TERMINAL, State
from service.core.records.database import Database, state_key


class States:
    """Finds records by the state that they are in."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._redis = database.redis

    def ids(self, kind: Kind, state: State) -> list[str]:
        """Records in a state, by the time they entered it."""
        return cast(list[str], self._redis.zrange(state_key(kind, state), 0, -1))

    def counts(self) -> dict[tuple[Kind, State], int]:
        """How many records are in each state."""
        cells = [(kind, state) for kind in Kind for state in State]
        with self._redis.pipeline(transaction=False) as pipe:
            for kind, state in cells:
                pipe.zcard(state_key(kind, state))
            return dict(zip(cells, pipe.execute(), strict=True))

    def queue_position(self, record: str) -> int | None:
        """How many records of its kind start before it, if none is added; None where it is not queued."""
        return cast(int | None, self._database.run("queue_position", record))

    def oldest_queued(self, kind: Kind) -> float | None:
        """When the record that has been due longest was queued, or due again after a failure."""
        first = self._redis.zrange(state_key(kind, State.QUEUED), 0, 0, withscores=True)
        return cast(list[tuple[str, float]], first)[0][1] if first else None

    def queued_before(self, kind: Kind, before: float) -> list[str]:
        return cast(list[str], self._redis.zrange(state_key(kind, State.QUEUED), "-inf", str(before), byscore=True))

    def ended_before(self, before: float, states: Iterable[State] = TERMINAL) -> list[str]:
        """Records that entered one of the states before a time."""
        with self._redis.pipeline(transaction=False) as pipe:
            for kind in Kind:
                for state in states:
                    pipe.zrange(state_key(kind, state), "-inf", str(before), byscore=True)
            return [record for found in pipe.execute() for record in found]
