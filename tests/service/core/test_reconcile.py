"""What is put right, on real servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from redis import Redis
from structlog.testing import capture_logs
from structlog.typing import EventDict

from service.core import object_keys
from service.core.messaging import Dispatcher, pending_ids
from service.core.object_keys import Kind, new_id
from service.core.reconcile import reconcile, reconcile_until
from service.core.record import Record, State
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore, StorageError
from tests.support.network import Passage, between
from tests.support.servers import MakeSettings, S3Server
from tests.support.waiting import wait_until

LEASE = 0.3
DEAD = 1.2 * LEASE


@pytest.fixture
def settings(server_settings: MakeSettings) -> Settings:
    return server_settings(lease_seconds=LEASE, reconcile_seconds=0.2, max_attempts=2, max_deaths=2)


@pytest.fixture
def store(redis_client: Redis, settings: Settings) -> RecordStore:
    return RecordStore(redis_client, settings)


def create(store: RecordStore, kind: Kind = Kind.ADAPTER) -> str:
    return store.submissions.create(kind, new_id(kind), "k1", {"num_pairs": 1}, stored_bytes=1)[0].id


def found(store: RecordStore, record: str) -> Record:
    read = store.records.get(record)
    assert read is not None
    return read


def test_a_lost_message_is_sent_again_once(
    store: RecordStore, dispatcher: Dispatcher, objects: ObjectStore, settings: Settings, redis_client: Redis
) -> None:
    adapter, job = create(store), create(store, Kind.JOB)
    time.sleep(settings.reconcile_seconds)
    for _ in range(2):
        assert reconcile(store, dispatcher, objects, settings)
        assert pending_ids(redis_client) == {adapter, job}
        assert redis_client.llen("pairforge:celery:train") == redis_client.llen("pairforge:celery:generate") == 1


def test_who_has_just_saved_a_record_sends_its_message_itself(
    store: RecordStore, dispatcher: Dispatcher, objects: ObjectStore, server_settings: MakeSettings, redis_client: Redis
) -> None:
    create(store)
    reconcile(store, dispatcher, objects, server_settings(reconcile_seconds=60))
    assert pending_ids(redis_client) == set()


def test_what_a_dead_worker_held_is_queued_and_sent_until_it_was_tried_too_often(
    store: RecordStore, dispatcher: Dispatcher, objects: ObjectStore, settings: Settings, redis_client: Redis
) -> None:
    adapter = create(store)
    for attempt in (1, 2):
        claimed = store.claims.claim(adapter, f"w{attempt}")
        assert claimed is not None
        reconcile(store, dispatcher, objects, settings)
        assert found(store, adapter).state is State.RUNNING
        time.sleep(DEAD)
        reconcile(store, dispatcher, objects, settings)
        assert found(store, adapter).attempt == attempt
        if attempt == 1:
            assert found(store, adapter).state is State.QUEUED
            time.sleep(settings.reconcile_seconds)
            reconcile(store, dispatcher, objects, settings)
            assert pending_ids(redis_client) == {adapter}
    read = found(store, adapter)
    assert read.state is State.FAILED
    assert read.error is not None
    assert read.error["code"] == "attempts_exhausted"


def test_what_a_dead_worker_should_have_cancelled_is_cancelled_and_deleted(
    store: RecordStore, dispatcher: Dispatcher, objects: ObjectStore, settings: Settings
) -> None:
    job, other = create(store, Kind.JOB), create(store, Kind.JOB)
    for record in (job, other):
        objects.put(object_keys.block(record, 0, "w"), b"zip")
        store.claims.claim(record, "w")
    store.records.request_cancel(job)
    assert found(store, job).state is State.CANCELLING
    time.sleep(DEAD)
    store.claims.renew(other, "w")
    reconcile(store, dispatcher, objects, settings)
    assert found(store, job).state is State.CANCELLED
    assert [stored.key for stored in objects.list("jobs/")] == [object_keys.block(other, 0, "w")]
    objects.put(object_keys.block(job, 1, "w"), b"written late")
    time.sleep(2 * LEASE)
    reconcile(store, dispatcher, objects, settings)
    assert objects.list(object_keys.prefix(job)) == []
    assert not store.upkeep.garbage()


def test_what_has_expired_goes_with_its_objects(
    store: RecordStore, dispatcher: Dispatcher, objects: ObjectStore, server_settings: MakeSettings
) -> None:
    old, active = create(store), create(store)
    for record in (old, active):
        objects.put(object_keys.inputs(record), b"{}")
    store.claims.claim(old, "w")
    store.claims.fail(old, "w", {"code": "usage", "detail": "too dark"})
    time.sleep(0.1)
    days = timedelta(seconds=0.05) / timedelta(days=1)
    reconcile(store, dispatcher, objects, server_settings(retention_days=days))
    assert store.records.get(old) is None
    assert store.records.get(active) is not None
    assert [stored.key for stored in objects.list("adapters/")] == [object_keys.inputs(active)]


def test_what_was_cancelled_goes_after_some_hours(
    store: RecordStore, dispatcher: Dispatcher, objects: ObjectStore, settings: Settings, redis_client: Redis
) -> None:
    young, old, failed = create(store), create(store), create(store)
    store.claims.claim(failed, "w")
    store.claims.fail(failed, "w", {"code": "usage", "detail": "too dark"})
    for record in (young, old):
        store.records.request_cancel(record)
    for record, state in ((old, State.CANCELLED), (failed, State.FAILED)):
        long_ago = store.upkeep.now() - timedelta(hours=7).total_seconds()
        redis_client.zadd(f"pairforge:state:adapter:{state}", {record: long_ago}, xx=True)
    reconcile(store, dispatcher, objects, settings)
    assert [store.records.get(record) is None for record in (young, old, failed)] == [False, True, False]


def test_objects_that_never_became_a_record_are_deleted(
    store: RecordStore, dispatcher: Dispatcher, objects: ObjectStore, settings: Settings
) -> None:
    adapter = new_id(Kind.ADAPTER)
    store.submissions.reserve(adapter, seconds=0)
    objects.put(object_keys.inputs(adapter), b"{}")
    reconcile(store, dispatcher, objects, settings)
    assert objects.list("adapters/") == []


def test_what_could_not_be_deleted_is_deleted_later(
    store: RecordStore, dispatcher: Dispatcher, objects: ObjectStore, settings: Settings, s3_server: S3Server
) -> None:
    job = create(store, Kind.JOB)
    objects.put(object_keys.block(job, 0, "w"), b"zip")
    store.records.request_cancel(job)
    s3_server.kill()
    with pytest.raises(StorageError):
        reconcile(store, dispatcher, objects, settings)
    s3_server.start()
    assert reconcile(store, dispatcher, objects, settings)
    assert objects.list("jobs/") == []


def test_without_the_store_what_needs_none_is_put_right(
    store: RecordStore,
    dispatcher: Dispatcher,
    objects: ObjectStore,
    settings: Settings,
    s3_server: S3Server,
    redis_client: Redis,
) -> None:
    waiting, held = create(store, Kind.JOB), create(store)
    store.claims.claim(held, "dead")
    time.sleep(DEAD)
    s3_server.kill()
    with pytest.raises(StorageError):
        reconcile(store, dispatcher, objects, settings)
    assert found(store, held).state is State.QUEUED
    assert pending_ids(redis_client) == {waiting, held}
    assert store.upkeep.last_round() is None


def test_what_cannot_be_deleted_does_not_keep_others_from_it(
    store: RecordStore,
    dispatcher: Dispatcher,
    server_settings: MakeSettings,
    s3_server: S3Server,
) -> None:
    stuck, other = sorted(create(store, Kind.JOB) for _ in range(2))

    def refuses(method: str, path: str) -> Passage:
        return Passage.ASTRAY if stuck in path else Passage.WHOLE

    with between(s3_server, refuses) as endpoint:
        settings = server_settings(s3_endpoint_url=endpoint)
        objects = ObjectStore(settings)
        objects.ensure_bucket()
        for job in (stuck, other):
            store.records.request_cancel(job)
        (s3_server.objects / "pairforge" / object_keys.block(other, 0, "w")).parent.mkdir(parents=True)
        (s3_server.objects / "pairforge" / object_keys.block(other, 0, "w")).touch()
        assert reconcile(store, dispatcher, objects, settings)
        assert objects.list(object_keys.prefix(other)) == []
        assert stuck in store.upkeep.garbage()
        assert other not in store.upkeep.garbage()
        objects.close()


def test_a_lost_bucket_is_made_again(store: RecordStore, dispatcher: Dispatcher, server_settings: MakeSettings) -> None:
    settings = server_settings()
    objects = ObjectStore(settings)
    assert reconcile(store, dispatcher, objects, settings)
    assert objects.ready()
    assert store.upkeep.last_round() == pytest.approx(store.upkeep.now(), abs=5)
    objects.close()


@contextmanager
def reconciling(one_round: Callable[[], bool]) -> Iterator[list[str]]:
    """Rounds that a thread makes meanwhile; the events that they tell."""
    stop, told = threading.Event(), list[str]()

    def tell(_: object, __: str, event: EventDict) -> EventDict:
        told.append(event["event"])
        return event

    thread = threading.Thread(target=reconcile_until, args=(stop, one_round, 0.05))
    with capture_logs([tell]):
        thread.start()
        try:
            yield told
        finally:
            stop.set()
            thread.join()


def test_reconciling_goes_on_after_a_fault_of_ours(
    store: RecordStore, dispatcher: Dispatcher, objects: ObjectStore, settings: Settings, redis_client: Redis
) -> None:
    redis_client.lpush("pairforge:celery:train", "no message of ours")
    adapter = create(store)
    time.sleep(settings.reconcile_seconds)
    with reconciling(lambda: reconcile(store, dispatcher, objects, settings)) as told:
        wait_until(lambda: told.count("reconcile_failed") >= 2)
        assert store.upkeep.last_round() is None
        redis_client.delete("pairforge:celery:train")
        wait_until(lambda: pending_ids(redis_client) == {adapter})


def test_one_process_at_a_time_reconciles(
    store: RecordStore, dispatcher: Dispatcher, objects: ObjectStore, settings: Settings, redis_client: Redis
) -> None:
    redis_client.set("pairforge:reconciler", "another", ex=60)
    assert not reconcile(store, dispatcher, objects, settings)
    assert redis_client.get("pairforge:reconciler") == "another"
    redis_client.delete("pairforge:reconciler")
    assert reconcile(store, dispatcher, objects, settings)
    assert reconcile(store, dispatcher, objects, settings)


def test_reconciling_goes_on_after_an_outage(
    store: RecordStore, dispatcher: Dispatcher, objects: ObjectStore, settings: Settings, s3_server: S3Server
) -> None:
    job = create(store, Kind.JOB)
    objects.put(object_keys.block(job, 0, "w"), b"zip")
    store.records.request_cancel(job)
    s3_server.kill()
    with reconciling(lambda: reconcile(store, dispatcher, objects, settings)) as told:
        wait_until(lambda: "reconcile_interrupted" in told)
        s3_server.start()
        wait_until(lambda: objects.list("jobs/") == [])
