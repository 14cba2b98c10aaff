"""Records of adapters and jobs: the truth about what was asked for, how far it is and what came of it.

A record is a hash in Redis. Each change of state is one script that checks the previous state; what a worker writes is
fenced: it only counts while the worker holds the record. Workers hold a record by a lease that they renew; one whose
lease is dead may be taken over. The methods that write return whether they did, so that a worker knows it has lost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio
from redis import Redis

from service.core.object_keys import Kind, kind_of
from service.core.record import TERMINAL, Event, Json, Record, State, parse_json, parse_record
from service.core.scripts import NAMESPACE, Scripts
from service.core.settings import Settings
from service.core.telemetry import Telemetry

__all__ = ["TERMINAL", "Event", "Record", "State"]  # what the store speaks of, for those who use it
__all__ += ["AdapterInUse", "AdapterNotReady", "Idempotency", "IdempotencyConflict", "QuotaExceeded", "RecordStore"]
__all__ += ["last_event_id", "read_events", "read_record"]

Strings = list[str]
Events = list[Event]
Scores = list[tuple[str, float]]


class QuotaExceeded(Exception):  # noqa: N818  says what happened, as the errors of service.core.errors do
    """A key has used up what it may have; `quota` is "active" or "all" (records), or "stored_bytes"."""

    def __init__(self, quota: str, used: int, limit: int) -> None:
        self.quota, self.used, self.limit = quota, used, limit
        super().__init__(f"{quota} of this key: {used} of {limit} in use")


class AdapterNotReady(Exception):  # noqa: N818  as above
    """The adapter that a job needs is not one of the key's (`state` None), or has not succeeded."""

    def __init__(self, state: State | None) -> None:
        self.state = state
        super().__init__(f"the adapter is {state or 'missing'}")


class AdapterInUse(Exception):  # noqa: N818  as above
    """Unfinished jobs need the adapter."""

    def __init__(self, jobs: Sequence[str]) -> None:
        self.jobs = sorted(jobs)
        super().__init__(f"needed by {', '.join(self.jobs)}")


class IdempotencyConflict(Exception):  # noqa: N818  as above
    """The idempotency key was used before, for another request."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's idempotency key, and the hexadecimal hash of what it was sent with."""

    key: str
    fingerprint: str

    @property
    def digest(self) -> str:
        """The key as a word of known alphabet and length."""
        return hashlib.sha256(self.key.encode()).hexdigest()


class RecordStore:
    """All records. Every method may raise `redis.exceptions.RedisError`: the server cannot be reached.

    Args:
        telemetry: told of the records that end by this store's methods.
    """

    def __init__(self, redis: Redis, settings: Settings, telemetry: Telemetry | None = None) -> None:
        self.redis = redis
        self._settings = settings
        self._telemetry = telemetry
        self._quotas = {
            "active": settings.max_active_per_key,
            "stored_bytes": settings.max_stored_bytes_per_key,
            "all": settings.max_records_per_key,
        }
        self._scripts = Scripts(redis, settings.lease_seconds, settings.max_attempts)

    # What the API writes

    def reserve(self, record: str, seconds: int = 3600) -> None:
        """Announce objects for a record that is yet to be created: they are deleted unless it is within `seconds`."""
        now = self.redis.time()[0]
        self.redis.zadd(_GARBAGE, {record: now + seconds})

    def create(
        self,
        kind: Kind,
        record: str,
        key_id: str,
        request: Json,
        *,
        notes: Sequence[str] = (),
        stored_bytes: int = 0,
        idempotency: Idempotency | None = None,
        adapter: str | None = None,
        request_id: str = "",
    ) -> tuple[Record, bool]:
        """Create a queued record, unless the idempotency key has made one before: then that one.

        Args:
            adapter: which a job needs; it cannot be removed until the job has ended.
            request_id: of who asks, for logs.

        Returns:
            The record, and whether it is new.

        Raises:
            QuotaExceeded, IdempotencyConflict, AdapterNotReady: nothing was created.
        """
        limits = self._settings
        outcome, value = self._scripts.run(
            "create",
            *(record, kind, key_id, json.dumps(request), json.dumps(list(notes)), stored_bytes),
            *((idempotency.digest, idempotency.fingerprint) if idempotency else ("", "")),
            *(limits.idempotency_seconds, *self._quotas.values()),
            *(adapter or "", request_id),
        )
        if outcome == "conflict":
            raise IdempotencyConflict
        if outcome == "adapter":
            raise AdapterNotReady(State(value) if value else None)
        if outcome in self._quotas:
            raise QuotaExceeded(outcome, int(value), self._quotas[outcome])
        return _of_pairs(value), outcome == "created"

    def require_room(self, key_id: str, idempotency_key: str | None) -> None:
        """Refuse what `create` would refuse whatever its size, before any work is done for it.

        An idempotency key that has made a record may be asked for it again.

        Raises:
            QuotaExceeded: a quota is used up.
        """
        if idempotency_key is not None and self.redis.exists(_remembered(key_id, Idempotency(idempotency_key, ""))):
            return
        if (full := self._scripts.run("room", key_id, *self._quotas.values())) is not None:
            raise QuotaExceeded(full[0], int(full[1]), self._quotas[full[0]])

    def replay(self, key_id: str, idempotency: Idempotency) -> Record | None:
        """The record that an idempotency key has made; to ask before uploads are stored.

        Raises:
            IdempotencyConflict: it was made by another request.
        """
        entry = cast(str | None, self.redis.get(_remembered(key_id, idempotency)))
        if entry is None:
            return None
        fingerprint, record = entry.split(" ")
        if fingerprint != idempotency.fingerprint:
            raise IdempotencyConflict
        return self.get(record)

    def request_cancel(self, record: str) -> State | None:
        """From queued to cancelled, from running to cancelling; the state now, None where there is no such record."""
        answer = self._scripts.run("cancel", record)
        if answer is None:
            return None
        state, changed = State(answer[0]), bool(answer[1])
        if changed:
            self._entered(record, state)
        return state

    def remove(self, record: str) -> bool:
        """Forget a record in a terminal state; its objects follow soon (see `garbage`).

        Raises:
            AdapterInUse: it stays.
        """
        outcome = self._scripts.run("remove", record)
        if isinstance(outcome, list):
            raise AdapterInUse(outcome)
        return bool(outcome)

    # What a worker writes

    def claim(self, record: str, owner: str) -> Record | None:
        """Take a record that is queued, or running with a dead lease.

        None where there is nothing to do: it is terminal, or held by someone alive. A record that was given up by its
        user and its worker becomes cancelled; one that was started too often without progress becomes failed.

        Args:
            owner: a name that no other execution has.
        """
        return self._claimed(record, owner, joining=False)

    def join(self, record: str, owner: str) -> Record | None:
        """As `claim`, but a job that others hold is held with them."""
        return self._claimed(record, owner, joining=True)

    def renew(self, record: str, owner: str) -> State | None:
        """Extend the lease by its full length; the record's state, None where the lease is lost."""
        return _state(self._scripts.run("renew", record, owner))

    def report(self, record: str, owner: str, progress: Json, counts: Json | None = None) -> bool:
        """Show how far the work is, as an event too."""
        return bool(
            self._scripts.run("report", record, owner, json.dumps(progress), json.dumps(counts) if counts else "")
        )

    def save_checkpoint(self, record: str, owner: str, checkpoint: Json) -> bool:
        """Point at what to resume from; the objects it names are stored already."""
        return bool(self._scripts.run("checkpoint", record, owner, json.dumps(checkpoint)))

    def release(self, record: str, owner: str) -> bool:
        """Hand the work over, through no fault of its own: running → queued; this attempt does not count."""
        return self._left(record, owner, counts=False)

    def retry(self, record: str, owner: str, reason: str = "") -> bool:
        """Give the work back after a passing failure: running → queued; this attempt counts.

        Args:
            reason: a sentence for the user, should it have been the last attempt.
        """
        return self._left(record, owner, counts=True, reason=reason)

    def succeed(self, record: str, owner: str, result: Json, stored_bytes: int) -> bool:
        """From running to succeeded. A job's owner must hold its judge.

        Args:
            stored_bytes: of all its objects, uploads included.
        """
        return self._finished(record, owner, State.SUCCEEDED, json.dumps(result), stored_bytes)

    def fail(self, record: str, owner: str, error: Json) -> bool:
        """From running to failed, from cancelling to cancelled.

        Args:
            error: {"code", "detail", "problems"}.
        """
        return self._finished(record, owner, State.FAILED, json.dumps(error), "")

    def mark_cancelled(self, record: str, owner: str) -> bool:
        """From cancelling to cancelled; its objects are deleted soon (see `garbage`)."""
        return self._finished(record, owner, State.CANCELLED, "", "")

    def _claimed(self, record: str, owner: str, *, joining: bool) -> Record | None:
        answer = self._scripts.run("claim", record, owner, int(joining))
        if isinstance(answer, str):
            self._entered(record, State(answer), poisoned=answer == State.FAILED)
            return None
        return None if answer is None else _of_pairs(answer)

    def _left(self, record: str, owner: str, *, counts: bool, reason: str = "") -> bool:
        state = _state(self._scripts.run("leave", record, owner, int(counts), reason))
        self._entered(record, state)
        return state is not None

    def _finished(self, record: str, owner: str, target: State, told: str, stored_bytes: int | str) -> bool:
        state = _state(self._scripts.run("finish", record, owner, target, told, stored_bytes))
        self._entered(record, state)
        return state is not None

    def _entered(self, record: str, state: State | None, *, poisoned: bool = False) -> None:
        """Count an end that was brought about here."""
        kind = kind_of(record)
        if self._telemetry is not None and state in TERMINAL and kind is not None:
            self._telemetry.ended(kind, state, poisoned=poisoned)

    # Blocks of a job's candidates, and the judge that takes them in order

    def claim_block(
        self, job: str, owner: str, *, ahead: int, stop: int | None = None, besides: int | None = None
    ) -> int | None:
        """The lowest block that is neither done nor in the hands of someone alive; None where there is none now.

        A block that was taken too often without being finished fails the job.

        Args:
            ahead: blocks to look at, from the first that is not judged.
            stop: number of blocks that the job may have at most.
            besides: a block that the owner has already and is about to finish; without it that is the one it is given.
        """
        optional = ("" if value is None else value for value in (stop, besides))
        block = self._scripts.run("claim_block", job, owner, ahead, *optional)
        if block == State.FAILED:
            self._entered(job, State.FAILED, poisoned=True)
            return None
        return None if block is None else int(block)

    def finish_block(self, job: str, block: int, owner: str, key: str) -> bool:
        """Note the stored object of a block that `owner` still has."""
        return bool(self._scripts.run("finish_block", job, owner, block, key))

    def blocks_done(self, job: str) -> dict[int, str]:
        """Number → object key of every finished block, judged or not."""
        return self._of_blocks(job, "done:")

    def verdicts(self, job: str) -> dict[int, str]:
        """Number → object key of the verdict on every judged block."""
        return self._of_blocks(job, "verdict:")

    def claim_judge(self, job: str, owner: str) -> bool:
        """Become the only one who judges, unless someone alive does."""
        return bool(self._scripts.run("claim_judge", job, owner))

    def save_judged(self, job: str, owner: str, judged: Json, verdict: str) -> bool:
        """Note how far judging is; only its holder may.

        Args:
            judged: {"next_block": int, …}; blocks before it are not needed for judging again.
            verdict: key of the stored verdict on the last block before it.
        """
        return bool(self._scripts.run("save_judged", job, owner, json.dumps(judged), judged["next_block"], verdict))

    def judged(self, job: str) -> Json | None:
        """What `save_judged` noted last."""
        return parse_json(cast(str | None, self.redis.hget(f"{NAMESPACE}blocks:{job}", "judged")))

    # What anyone reads

    def get(self, record: str) -> Record | None:
        fields = self._hash(record)
        return parse_record(fields) if fields else None

    def list(
        self, kind: Kind, key_id: str, *, state: State | None = None, after: str | None = None, limit: int = 20
    ) -> tuple[list[Record], str | None]:
        """A page of a key's records, newest first, and the cursor of the next page (None at the end).

        A cursor is the id of the last record seen, so pages neither skip nor repeat while records come and go.
        """
        index = f"{NAMESPACE}index:{kind}:{key_id}" + (f":{state}" if state else "")
        newest = f"({after}" if after else "+"
        ids = cast(list[str], self.redis.zrevrangebylex(index, newest, "-", start=0, num=limit + 1))
        with self.redis.pipeline(transaction=False) as pipe:
            for record in ids[:limit]:
                pipe.hgetall(_record_key(record))
            found = [parse_record(fields) for fields in pipe.execute() if fields]
        return found, ids[limit - 1] if len(ids) > limit else None

    def in_state(self, kind: Kind, state: State) -> Strings:
        """Ids, those first that entered the state first."""
        return cast(Strings, self.redis.zrange(_state_key(kind, state), 0, -1))

    def counts(self) -> dict[tuple[Kind, State], int]:
        """How many records are in each state."""
        cells = [(kind, state) for kind in Kind for state in State]
        with self.redis.pipeline(transaction=False) as pipe:
            for kind, state in cells:
                pipe.zcard(_state_key(kind, state))
            return dict(zip(cells, pipe.execute(), strict=True))

    def queue_position(self, record: str) -> int | None:
        """How many of its kind are queued before it; None where it is not queued."""
        kind = cast(str | None, self.redis.hget(_record_key(record), "kind"))
        return None if kind is None else cast(int | None, self.redis.zrank(_state_key(kind, State.QUEUED), record))

    def oldest_queued(self, kind: Kind) -> float | None:
        """When the record that has been queued longest was queued."""
        first = cast(Scores, self.redis.zrange(_state_key(kind, State.QUEUED), 0, 0, withscores=True))
        return first[0][1] if first else None

    def events(self, record: str, after: str = "0", limit: int = 1000) -> Events:
        """Events later than the one with id `after`, oldest first."""
        entries = self.redis.xrange(f"{NAMESPACE}events:{record}", min=f"({after}", count=limit)
        return _events(cast(_Entries, entries))

    # What the reconciler needs

    def now(self) -> float:
        """Unix time by the clock of the Redis server."""
        seconds, microseconds = self.redis.time()
        return seconds + microseconds / 1e6

    def queued_before(self, kind: Kind, before: float) -> Strings:
        return cast(Strings, self.redis.zrange(_state_key(kind, State.QUEUED), "-inf", str(before), byscore=True))

    def reap(self, record: str) -> State | None:
        """Take a record from the dead: running → queued (failed after too many attempts), cancelling → cancelled.

        Returns:
            The new state; None where somebody holds it or nobody needs to.
        """
        state = _state(self._scripts.run("reap", record))
        self._entered(record, state, poisoned=state is State.FAILED)
        return state

    def expired(self, before: float, states: Iterable[State] = TERMINAL) -> Strings:
        """Ids of records that ended in one of the states before a time."""
        with self.redis.pipeline(transaction=False) as pipe:
            for kind in Kind:
                for state in states:
                    pipe.zrange(_state_key(kind, state), "-inf", str(before), byscore=True)
            return [record for found in pipe.execute() for record in found]

    def garbage(self) -> Mapping[str, str]:
        """Entry → id of a record whose objects are to be deleted by now; `collected` takes the entry."""
        due = cast(Strings, self.redis.zrange(_GARBAGE, "-inf", str(self.now()), byscore=True))
        return {entry: entry.rpartition(":")[2] for entry in due}

    def note_round(self) -> None:
        """A round of reconciling came to its end."""
        self.redis.set(_LAST_ROUND, self.now())

    def last_round(self) -> float | None:
        """When a round of reconciling came to its end last, by any process."""
        at = cast(str | None, self.redis.get(_LAST_ROUND))
        return None if at is None else float(at)

    def collected(self, entry: str) -> None:
        self.redis.zrem(_GARBAGE, entry)

    def _of_blocks(self, job: str, what: str) -> dict[int, str]:
        fields = cast(dict[str, str], self.redis.hgetall(f"{NAMESPACE}blocks:{job}"))
        found = {int(name.removeprefix(what)): key for name, key in fields.items() if name.startswith(what)}
        return dict(sorted(found.items()))

    def _hash(self, record: str) -> dict[str, str]:
        return cast(dict[str, str], self.redis.hgetall(_record_key(record)))


async def read_record(redis: redis.asyncio.Redis, record: str) -> Record | None:
    """As `RecordStore.get`."""
    fields = await cast(Any, redis.hgetall(_record_key(record)))
    return parse_record(fields) if fields else None


async def read_events(
    redis: redis.asyncio.Redis, record: str, after: str = "0", *, wait_seconds: float = 2.0
) -> list[Event]:
    """As `RecordStore.events`, but waits a while for the next event where there is none yet.

    Args:
        wait_seconds: less than `connections.TIMEOUT`.
    """
    name = f"{NAMESPACE}events:{record}"
    answer = await cast(Any, redis.xread({name: after}, count=1000, block=max(1, round(wait_seconds * 1000))))
    return [event for _, entries in answer for event in _events(entries)]


async def last_event_id(redis: redis.asyncio.Redis, record: str) -> str:
    """The id of the record's latest event, "0-0" where there is none."""
    entries = await cast(Any, redis.xrevrange(f"{NAMESPACE}events:{record}", count=1))
    return str(entries[0][0]) if entries else "0-0"


_GARBAGE = f"{NAMESPACE}garbage"
_LAST_ROUND = f"{NAMESPACE}last_round"

_Entries = list[tuple[str, dict[str, str]]]


def _record_key(record: str) -> str:
    return f"{NAMESPACE}record:{record}"


def _remembered(key_id: str, idempotency: Idempotency) -> str:
    return f"{NAMESPACE}idempotency:{key_id}:{idempotency.digest}"


def _of_pairs(pairs: Strings) -> Record:
    return parse_record(dict(zip(pairs[::2], pairs[1::2], strict=True)))


def _state_key(kind: str, state: State) -> str:
    return f"{NAMESPACE}state:{kind}:{state}"


def _events(entries: _Entries) -> list[Event]:
    return [Event(entry, json.loads(fields["data"])) for entry, fields in entries]


def _state(value: str | None) -> State | None:
    return None if value is None else State(value)
