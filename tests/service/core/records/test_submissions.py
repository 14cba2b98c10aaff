"""Creating records on a real Redis: once per idempotency key, within quotas, and only with an adapter that stays."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from redis import Redis

from service.core.object_keys import Kind, new_id
from service.core.record import Record, State
from service.core.records.errors import (
    AdapterInUse,
    AdapterNotReady,
    CannotFollow,
    IdempotencyConflict,
    QuotaExceeded,
)
from service.core.records.store import RecordStore
from service.core.records.submissions import Idempotency
from tests.support.records import BRIEF, KEY, brought_to, create, found
from tests.support.servers import MakeSettings


def test_twenty_creates_with_one_idempotency_key_make_one_record(store: RecordStore) -> None:
    def post(_: int) -> tuple[Record, bool]:
        key = Idempotency("order 7", "f00d")
        job = new_id(Kind.JOB)
        return store.submissions.create(Kind.JOB, job, KEY, {"num_pairs": 4}, stored_bytes=3, idempotency=key)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(post, range(20)))
    assert len({record.id for record, _ in answers}) == 1
    assert sum(is_new for _, is_new in answers) == 1
    assert [record.id for record in store.records.page(Kind.JOB, KEY)[0]] == [answers[0][0].id]


def test_an_idempotency_key_belongs_to_one_request_of_one_client(store: RecordStore) -> None:
    first = create(store, idempotency=Idempotency("order 7", "f00d"))
    assert create(store, idempotency=Idempotency("order 7", "f00d")) == first
    with pytest.raises(IdempotencyConflict):
        create(store, idempotency=Idempotency("order 7", "beef"))
    assert create(store, key="k2", idempotency=Idempotency("order 7", "beef")) != first
    replayed = store.submissions.replay(KEY, Idempotency("order 7", "f00d"))
    assert replayed is not None
    assert replayed.id == first
    with pytest.raises(IdempotencyConflict):
        store.submissions.replay(KEY, Idempotency("order 7", "beef"))
    assert store.submissions.replay(KEY, Idempotency("order 8", "f00d")) is None


def test_creating_may_be_asked_twice(store: RecordStore) -> None:
    record = new_id(Kind.ADAPTER)
    for _ in range(2):
        assert store.submissions.create(Kind.ADAPTER, record, KEY, {}, stored_bytes=1)[1]
    assert len(store.records.page(Kind.ADAPTER, KEY)[0]) == 1
    assert store.states.ids(Kind.ADAPTER, State.QUEUED) == [record]


def test_the_limit_of_active_records_holds_against_twenty_at_once(
    redis_client: Redis, redis_settings: MakeSettings
) -> None:
    store = RecordStore(redis_client, redis_settings(max_active_per_key=5))

    def post(_: int) -> str | None:
        with suppress(QuotaExceeded):
            return create(store)
        return None

    with ThreadPoolExecutor(20) as pool:
        made = [record for record in pool.map(post, range(20)) if record]
    assert len(made) == 5
    create(store, key="k2")
    store.records.request_cancel(made[0])
    create(store)
    with pytest.raises(QuotaExceeded, match="active of this API key: 5 of 5"):
        create(store)


def test_stored_bytes_are_charged_until_they_are_freed(redis_client: Redis, redis_settings: MakeSettings) -> None:
    store = RecordStore(redis_client, redis_settings(max_stored_bytes_per_key=100))
    first = create(store, stored_bytes=60)
    with pytest.raises(QuotaExceeded, match="60 of 100"):
        create(store, stored_bytes=41)
    second = create(store, stored_bytes=40)
    store.records.request_cancel(second)
    store.claims.claim(first, "w")
    store.claims.succeed(first, "w", {}, 99)
    with pytest.raises(QuotaExceeded):
        create(store, stored_bytes=2)
    store.records.remove(first)
    create(store, stored_bytes=100)


def test_objects_of_a_reserved_record_are_garbage_unless_it_is_created(store: RecordStore) -> None:
    kept, lost = new_id(Kind.ADAPTER), new_id(Kind.ADAPTER)
    for record in (kept, lost):
        store.submissions.reserve(record, seconds=0)
    store.submissions.create(Kind.ADAPTER, kept, KEY, {})
    assert list(store.upkeep.garbage().values()) == [lost]
    store.submissions.reserve(new_id(Kind.ADAPTER), seconds=60)
    assert list(store.upkeep.garbage().values()) == [lost]


def test_objects_of_a_cancelled_record_are_deleted_again_when_late_writes_are_over(brief: RecordStore) -> None:
    record = brought_to(brief, State.CANCELLED)
    assert list(brief.upkeep.garbage().values()) == [record]
    for entry in brief.upkeep.garbage():
        brief.upkeep.collected(entry)
    assert not brief.upkeep.garbage()
    time.sleep(2.5 * BRIEF)
    assert list(brief.upkeep.garbage().values()) == [record]


def test_an_adapter_stays_while_unfinished_jobs_need_it(store: RecordStore) -> None:
    adapter = brought_to(store, State.SUCCEEDED)
    first, second = (create(store, Kind.JOB, adapter=adapter) for _ in range(2))
    with pytest.raises(AdapterInUse) as refusal:
        store.records.remove(adapter)
    assert refusal.value.jobs == sorted([first, second])
    store.records.request_cancel(first)
    store.claims.claim(second, "w")
    with pytest.raises(AdapterInUse, match=second):
        store.records.remove(adapter)
    assert store.claims.fail(second, "w", {"code": "x", "detail": "x"})
    assert store.records.remove(adapter)


def test_a_job_needs_an_adapter_of_its_key_that_has_succeeded(store: RecordStore) -> None:
    for state in State:
        adapter = brought_to(store, state)
        if state is State.SUCCEEDED:
            create(store, Kind.JOB, adapter=adapter)
        else:
            with pytest.raises(AdapterNotReady, match=state):
                create(store, Kind.JOB, adapter=adapter)
        with pytest.raises(AdapterNotReady, match="missing"):
            create(store, Kind.JOB, key="k2", adapter=adapter)
    with pytest.raises(AdapterNotReady, match="missing"):
        create(store, Kind.JOB, adapter=new_id(Kind.ADAPTER))


def test_a_record_is_followed_by_one_other_that_has_succeeded_or_may_yet(store: RecordStore) -> None:
    for state in State:
        first = brought_to(store, State.SUCCEEDED)
        follower = brought_to(store, state, follows=first)
        if state in {State.QUEUED, State.RUNNING, State.SUCCEEDED}:
            with pytest.raises(CannotFollow, match=f"{follower}, which is {state}"):
                create(store, follows=first)
        else:
            assert create(store, follows=first)
            with pytest.raises(CannotFollow):
                create(store, follows=first)
    first = brought_to(store, State.SUCCEEDED)
    assert store.records.remove(brought_to(store, State.SUCCEEDED, follows=first))
    assert create(store, follows=first)
    assert store.records.remove(first)
    with pytest.raises(CannotFollow, match="gone"):
        create(store, follows=first)
    assert store.records.get(first) is None


def test_of_followers_that_come_at_the_same_time_one_is_made(store: RecordStore) -> None:
    first = brought_to(store, State.SUCCEEDED)

    def follow(_: int) -> str | None:
        with suppress(CannotFollow):
            return create(store, follows=first)
        return None

    with ThreadPoolExecutor(20) as pool:
        assert len([made for made in pool.map(follow, range(20)) if made]) == 1


def test_no_job_is_made_whose_adapter_is_removed_at_the_same_time(store: RecordStore) -> None:
    for _ in range(10):
        adapter = brought_to(store, State.SUCCEEDED)
        with ThreadPoolExecutor(2) as pool:
            made = pool.submit(create, store, Kind.JOB, adapter=adapter)
            removed = pool.submit(store.records.remove, adapter)
        assert isinstance(made.exception(), AdapterNotReady) == (removed.exception() is None)
        if made.exception() is None:
            store.records.request_cancel(made.result())


def test_a_key_has_no_more_records_than_its_quota_finished_ones_included(
    redis_client: Redis, redis_settings: MakeSettings
) -> None:
    store = RecordStore(redis_client, redis_settings(max_records_per_key=3))
    made = [create(store, kind) for kind in (Kind.ADAPTER, Kind.JOB, Kind.ADAPTER)]
    for record in made:
        store.records.request_cancel(record)
    with pytest.raises(QuotaExceeded, match="all of this API key: 3 of 3"):
        create(store)
    create(store, key="k2")
    assert store.records.remove(made[0])
    create(store)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_without_a_result_nothing_stays_stored_or_charged(
    redis_client: Redis, redis_settings: MakeSettings, state: State
) -> None:
    store = RecordStore(redis_client, redis_settings(max_stored_bytes_per_key=100))
    record = create(store, stored_bytes=100)
    store.claims.claim(record, "w")
    if state is State.CANCELLED:
        store.records.request_cancel(record)
    store.claims.fail(record, "w", {"code": "x", "detail": "x"})
    assert found(store, record).state is state
    assert store.upkeep.garbage() == {record: record}
    create(store, stored_bytes=100)
