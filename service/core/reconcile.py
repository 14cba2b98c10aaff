"""Repairs what killed processes leave behind: lost messages, expired leases, objects without a record.

Any number of processes may call this at any time; one at a time does the work. Every step can be repeated, so nothing
is lost if a process dies during a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Event
from uuid import uuid4

import structlog
from botocore.exceptions import ClientError
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from service.core import object_keys
from service.core.messaging import Dispatcher, pending_ids
from service.core.object_keys import Kind
from service.core.record import State
from service.core.records.errors import AdapterInUse
from service.core.records.store import RecordStore
from service.core.scripts import NAMESPACE
from service.core.settings import Settings
from service.core.storage import ObjectStore, StorageError

log = structlog.stdlib.get_logger(__name__)

HELD_SECONDS = 60
"""How long a round may take before another process may begin one."""

STALE_UPLOAD = timedelta(hours=24)
"""Age at which a multipart upload is aborted; longer than any takes."""

CANCELLED_KEPT = timedelta(hours=6)
"""Longest time that a cancelled record is kept; its files are already deleted."""

HOUSEKEEPING_SECONDS = 600
"""Seconds between two rounds of housekeeping, which nobody waits for."""


def reconcile(store: RecordStore, dispatcher: Dispatcher, storage: ObjectStore, settings: Settings) -> bool:
    """Do one round, unless another process is doing one.

    Returns:
        Whether this process did it.

    Raises:
        redis.exceptions.RedisError, kombu.exceptions.OperationalError, StorageError: a server cannot be reached. The
            steps before it are done; the next round does the rest.
    """
    redis, holder = store.redis, uuid4().hex
    if not store.upkeep.lock("reconciler", holder, HELD_SECONDS):
        return False
    try:
        freed = _reap(store)
        housekeeping = store.upkeep.lock("housekeeping", holder, HOUSEKEEPING_SECONDS)
        if housekeeping:
            _expire(store, settings)
        # After what frees memory: messages need some.
        for record in freed:
            dispatcher.send_one(record)
        _send_again(store, dispatcher, settings)
        storage.ensure_bucket()
        _collect(store, storage)
        if housekeeping:
            storage.abort_stale_uploads(datetime.now(UTC) - STALE_UPLOAD)
        store.upkeep.finish_round()
    finally:
        if redis.get(f"{NAMESPACE}reconciler") == holder:
            redis.delete(f"{NAMESPACE}reconciler")
    return True


def reconcile_until(stop: Event, round_of_it: Callable[[], bool], seconds: float) -> None:
    """Call `round_of_it` every `seconds` until `stop` is set; errors are logged, and the next round follows.

    To be run in a thread of its own. `RecordStore.upkeep.last_round` is the time of the last complete round.
    """
    while not stop.wait(seconds):
        try:
            round_of_it()
        except (RedisError, OperationalError, StorageError) as error:
            log.warning("reconcile_interrupted", error=repr(error))
        except Exception:  # the next round must follow: nothing else repairs what is lost
            log.exception("reconcile_failed")


def _reap(store: RecordStore) -> list[str]:
    """Take records from dead workers; returns those that are queued again."""
    queued = []
    for record in _in_states(store, State.RUNNING, State.CANCELLING):
        if state := store.upkeep.reap(record):
            log.warning("lease_dead", record=record, state=state)
            if state is State.QUEUED:
                queued.append(record)
    return queued


def _in_states(store: RecordStore, *states: State) -> Iterator[str]:
    for kind in Kind:
        for state in states:
            yield from store.states.ids(kind, state)


def _send_again(store: RecordStore, dispatcher: Dispatcher, settings: Settings) -> None:
    # A process that creates or releases a record sends its message a moment later.
    before = store.upkeep.now() - settings.reconcile_seconds
    waiting = [record for kind in Kind for record in store.states.queued_before(kind, before)]
    if not waiting:
        return
    pending = pending_ids(store.redis)
    for name in waiting:
        if name not in pending and (record := store.records.get(name)) is not None:
            dispatcher.send(record)
            log.warning("message_sent_again", record=name)


def _expire(store: RecordStore, settings: Settings) -> None:
    now, kept = store.upkeep.now(), timedelta(days=settings.retention_days)
    ended = store.states.ended_before(now - kept.total_seconds())
    ended += store.states.ended_before(now - min(kept, CANCELLED_KEPT).total_seconds(), [State.CANCELLED])
    for record in ended:
        with suppress(AdapterInUse):
            if store.records.remove(record):
                log.info("record_expired", record=record)


def _collect(store: RecordStore, storage: ObjectStore) -> None:
    for entry, record in store.upkeep.garbage().items():
        try:
            storage.delete_prefix(object_keys.prefix(record))
        except (StorageError, ClientError) as error:
            storage.ready()  # raises if the whole store has failed and not only this record
            log.warning("collect_postponed", record=record, error=repr(error))
        else:
            store.upkeep.collected(entry)
