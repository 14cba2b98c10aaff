"""Creating records: within the quotas of an API key, and once per idempotency key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from service.core.object_keys import Kind
from service.core.record import Json, Record, State, parse_record
from service.core.records.database import GARBAGE, Database, record_from_pairs, record_key
from service.core.records.errors import AdapterNotReady, CannotFollow, IdempotencyConflict, QuotaExceeded, TooFast
from service.core.scripts import NAMESPACE
from service.core.settings import Settings
from service.core.strict_json import to_json


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's idempotency key, and the hexadecimal hash of the request it was sent with."""

    key: str
    fingerprint: str

    @property
    def digest(self) -> str:
        """The key in a fixed alphabet and length."""
        return hashlib.sha256(self.key.encode()).hexdigest()


class Submissions:
    """Creates queued records."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._idempotency_seconds = settings.idempotency_seconds
        self._quotas = {
            "active": settings.max_active_per_key,
            "stored_bytes": settings.max_stored_bytes_per_key,
            "all": settings.max_records_per_key,
            "work": settings.max_work_per_key,
        }
        self._per_minute = settings.max_creates_per_minute_per_key

    def reserve(self, record: str, seconds: int = 3600) -> None:
        """Have the objects of a record that is not created within `seconds` deleted; to call before they are stored."""
        redis = self._database.redis
        redis.zadd(GARBAGE, {record: redis.time()[0] + seconds})

    def create(  # noqa: PLR0913  a record has many parts, all of which one script writes
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
        follows: str | None = None,
        request_id: str = "",
        workers: int = 1,
        work: int = 0,
    ) -> tuple[Record, bool]:
        """Create a queued record, or return the one that the idempotency key has created before.

        Args:
            adapter: the adapter that a job needs; it cannot be removed until the job has ended.
            follows: the job that a job goes on after; at most one that succeeds, or may yet, does so.
            request_id: of the HTTP request, for logs.
            workers: most workers that may share it.
            work: see `service.core.work`.

        Returns:
            The record, and whether it is new.

        Raises:
            QuotaExceeded, IdempotencyConflict, AdapterNotReady, CannotFollow: nothing was created.
        """
        outcome, value = self._database.run(
            "create",
            *(record, kind, key_id, to_json(request), to_json(list(notes)), stored_bytes),
            *((idempotency.digest, idempotency.fingerprint) if idempotency else ("", "")),
            *(self._idempotency_seconds, *(self._quotas[name] for name in ("active", "stored_bytes", "all"))),
            *(adapter or "", request_id, workers, work, self._quotas["work"], int("webhook" in request), follows or ""),
        )
        if outcome == "conflict":
            raise IdempotencyConflict
        if outcome == "adapter":
            raise AdapterNotReady(State(value) if value else None)
        if outcome == "before":
            raise CannotFollow(value[0], State(value[1])) if value else CannotFollow
        if outcome in self._quotas:
            raise QuotaExceeded(outcome, int(value), self._quotas[outcome])
        return record_from_pairs(value), outcome == "created"

    def require_rate(self, key_id: str) -> None:
        """Count one request to create a record.

        Raises:
            TooFast: the key has sent too many in the last minute.
        """
        if (wait := self._database.run("rate", key_id, self._per_minute)) is not None:
            raise TooFast(self._per_minute, float(wait))

    def require_quota(self, key_id: str, idempotency_key: str | None) -> None:
        """Refuse early what `create` would refuse at any size, so that no upload is received in vain.

        An idempotency key that has created a record passes: that record is answered again.

        Raises:
            QuotaExceeded: a quota is used up.
        """
        redis = self._database.redis
        if idempotency_key is not None and redis.exists(_idempotency_name(key_id, Idempotency(idempotency_key, ""))):
            return
        if (full := self._database.run("quota", key_id, *self._quotas.values())) is not None:
            raise QuotaExceeded(full[0], int(full[1]), self._quotas[full[0]])

    def replay(self, key_id: str, idempotency: Idempotency) -> Record | None:
        """The record that an idempotency key has created; to look up before uploads are stored.

        Raises:
            IdempotencyConflict: it was created by another request.
        """
        redis = self._database.redis
        entry = cast(str | None, redis.get(_idempotency_name(key_id, idempotency)))
        if entry is None:
            return None
        fingerprint, record = entry.split(" ")
        if fingerprint != idempotency.fingerprint:
            raise IdempotencyConflict
        fields = cast(dict[str, str], redis.hgetall(record_key(record)))
        return parse_record(fields) if fields else None


def _idempotency_name(key_id: str, idempotency: Idempotency) -> str:
    return f"{NAMESPACE}idempotency:{key_id}:{idempotency.digest}"
