"""What the reconciler needs: records whose workers died, objects to delete, and when it last ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from service.core.record import State
from service.core.records.database import GARBAGE, LAST_ROUND, WEBHOOK_TRIES, WEBHOOKS, Database


class Upkeep:
    """Takes records from dead workers, and lists objects that no record needs any more."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._redis = database.redis

    def now(self) -> float:
        """Unix time in seconds by the clock of the Redis server."""
        seconds, microseconds = self._redis.time()
        return seconds + microseconds / 1e6

    def reap(self, record: str) -> State | None:
        """Take a record from a dead worker: running → queued (failed after too many attempts), cancelling → cancelled.

        Returns:
            The new state; None where nothing changed, since a living worker holds it or it is neither.
        """
        answer = self._database.run("reap", record)
        if answer is None:
            return None
        state = State(answer)
        self._database.count_end(record, state, poisoned=state is State.FAILED)
        return state

    def lock(self, name: str, holder: str, seconds: int) -> bool:
        """Take a lock, which ends by itself; whether the holder has it. It needs no memory, and so always works."""
        return bool(self._database.run("lock", name, holder, seconds))

    def due_webhook(self, hold_seconds: float) -> str | None:
        """Take the record whose webhook is due longest; others are not given it for so many seconds."""
        return cast(str | None, self._database.run("due_webhook", hold_seconds))

    def webhook_done(self, record: str) -> None:
        """Forget a record's webhook, which was delivered, or cannot be."""
        self._redis.zrem(WEBHOOKS, record)
        self._redis.hdel(WEBHOOK_TRIES, record)

    def webhook_failed(self, record: str, pauses: Sequence[float], share: float) -> int:
        """Have a webhook tried again after its next pause, times `share`, or give it up; returns the tries so far."""
        tries = int(self._redis.hincrby(WEBHOOK_TRIES, record, 1))
        if tries > len(pauses):
            self.webhook_done(record)
        else:
            self._redis.zadd(WEBHOOKS, {record: self.now() + share * pauses[tries - 1]})
        return tries

    def garbage(self) -> Mapping[str, str]:
        """Entry → id of a record whose objects are due for deletion; pass the entry to `collected` afterwards."""
        due = cast(list[str], self._redis.zrange(GARBAGE, "-inf", str(self.now()), byscore=True))
        return {entry: entry.rpartition(":")[2] for entry in due}

    def collected(self, entry: str) -> None:
        """Forget an entry of `garbage` whose objects are deleted."""
        self._redis.zrem(GARBAGE, entry)

    def finish_round(self) -> None:
        """Save that a round of reconciling is complete now."""
        self._database.run("finish_round")

    def last_round(self) -> float | None:
        """When any process last completed a round of reconciling."""
        at = cast(str | None, self._redis.get(LAST_ROUND))
        return None if at is None else float(at)
