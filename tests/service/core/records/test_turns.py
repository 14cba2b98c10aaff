"""Which record is next, on a real Redis: keys take turns, failures wait, and nobody waits for what is gone."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from service.core.object_keys import Kind, new_id
from service.core.record import State
from service.core.records.store import RecordStore
from tests.support.records import DEAD, create, found
from tests.support.servers import MakeSettings


def taken(store: RecordStore, owner: str, kind: Kind = Kind.ADAPTER) -> str | None:
    record, _ = store.claims.next(kind, owner)
    return None if record is None else record.id


def drained(store: RecordStore, kind: Kind = Kind.ADAPTER) -> list[str]:
    """All records in the order in which one worker takes them, each finished before the next."""
    order: list[str] = []
    while (record := taken(store, f"w{len(order)}", kind)) is not None:
        assert store.claims.fail(record, f"w{len(order)}", {"code": "usage", "detail": ""})
        order.append(record)
    return order


def test_the_oldest_is_next(store: RecordStore) -> None:
    made = [create(store) for _ in range(3)]
    assert drained(store) == sorted(made)


def test_keys_take_turns(store: RecordStore) -> None:
    many = sorted(create(store, key="many") for _ in range(4))
    few = sorted(create(store, key="few") for _ in range(2))
    assert drained(store) == [many[0], few[0], many[1], few[1], many[2], many[3]]


def test_a_key_with_a_worker_waits_for_those_without(store: RecordStore) -> None:
    many, few = [create(store, key="many") for _ in range(3)], create(store, key="few")
    assert taken(store, "a") in many
    assert taken(store, "b") == few
    assert taken(store, "c") in many


def test_positions_are_the_order_in_which_records_start(store: RecordStore) -> None:
    made = [create(store, key=key) for key in "aaaabbca"]
    first = taken(store, "w")
    assert first is not None
    assert store.states.queue_position(first) is None
    positions = {record: store.states.queue_position(record) for record in made if record != first}
    assert store.claims.fail(first, "w", {"code": "usage", "detail": ""})
    order = drained(store)
    assert [positions[record] for record in order] == list(range(len(order)))


def test_thousands_of_cancelled_records_delay_nothing(redis_client: Redis, redis_settings: MakeSettings) -> None:
    store = RecordStore(redis_client, redis_settings(max_records_per_key=10_000))
    for _ in range(1000):
        store.records.request_cancel(create(store, Kind.JOB))
    wanted = create(store, Kind.JOB, key="another")
    assert store.states.queue_position(wanted) == 0
    began = time.monotonic()
    assert taken(store, "w", Kind.JOB) == wanted
    assert time.monotonic() - began < 0.5


def test_a_job_is_shared_by_as_many_workers_as_it_wants(store: RecordStore) -> None:
    shared, later = (
        store.submissions.create(Kind.JOB, new_id(Kind.JOB), "k1", {"num_pairs": 32}, workers=workers)[0].id
        for workers in (2, 1)
    )
    assert [taken(store, owner, Kind.JOB) for owner in "abcd"] == [shared, shared, later, None]


def test_a_job_that_needs_nobody_else_is_not_joined(store: RecordStore) -> None:
    job = store.submissions.create(Kind.JOB, new_id(Kind.JOB), "k1", {"num_pairs": 32}, workers=2)[0].id
    assert [taken(store, owner, Kind.JOB) for owner in "ab"] == [job, job]
    assert store.claims.leave_to_others(job, "b")
    assert taken(store, "c", Kind.JOB) is None


def test_a_failure_waits_ever_longer_while_others_go_on(redis_client: Redis, redis_settings: MakeSettings) -> None:
    store = RecordStore(redis_client, redis_settings(retry_seconds=0.2))
    failing = create(store)
    for pause in (0.2, 0.4):
        assert taken(store, "w") == failing
        assert store.claims.retry(failing, "w", "The disk is full.")
        began = time.monotonic()
        other = create(store)
        assert drained(store) == [other]
        while taken(store, "w") is None:
            time.sleep(0.01)
        assert pause * 0.9 < time.monotonic() - began < pause + 0.3
        assert store.claims.release(failing, "w")
        store.redis.hset(f"pairforge:record:{failing}", "strikes", 1)


def test_the_last_failure_ends_the_record_at_once(store: RecordStore) -> None:
    record = create(store)
    for number in range(3):
        assert store.claims.claim(record, f"w{number}") is not None
        assert store.claims.retry(record, f"w{number}", "The disk is full.")
    assert found(store, record).state is State.FAILED


def test_deaths_of_workers_are_no_failures(redis_client: Redis, redis_settings: MakeSettings) -> None:
    store = RecordStore(redis_client, redis_settings(max_attempts=1, max_deaths=5, retry_seconds=0.1))
    record = create(store)
    for number in range(5):
        while taken(store, f"host-1-{number}") is None:
            time.sleep(0.01)
        assert found(store, record).attempt == number + 1
        ends = State.QUEUED if number < 4 else State.FAILED
        assert store.claims.abandon("host-1-") == {record: ends}
    error = found(store, record).error
    assert error is not None
    assert error["detail"] == "Given up after 5 starts that ended without progress."


def test_only_what_the_dead_held_is_freed(store: RecordStore) -> None:
    mine, other = create(store), create(store)
    assert [taken(store, "host-1-a"), taken(store, "host-12-b")] == sorted([mine, other])
    assert store.claims.abandon("host-1-") == {mine: State.QUEUED}
    assert found(store, other).state is State.RUNNING
    assert taken(store, "w") == mine


def test_a_record_that_is_cancelled_when_its_worker_dies_is_cancelled(store: RecordStore) -> None:
    record = create(store)
    taken(store, "host-1-a")
    store.records.request_cancel(record)
    assert store.claims.abandon("host-1-") == {record: State.CANCELLED}


def test_a_dead_workers_record_is_worth_waiting_for(brief: RecordStore) -> None:
    record = create(brief)
    taken(brief, "dead")
    assert brief.claims.next(Kind.ADAPTER, "w") == (None, False)
    time.sleep(DEAD / 2)
    assert brief.claims.next(Kind.ADAPTER, "w") == (None, True)
    time.sleep(DEAD / 2)
    assert taken(brief, "w") == record


def test_records_of_earlier_versions_are_found(store: RecordStore) -> None:
    record = create(store)
    store.redis.delete("pairforge:waiting:adapter")
    assert store.states.queue_position(record) == 0
    assert taken(store, "w") == record


@pytest.mark.parametrize("kind", list(Kind))
def test_a_worker_takes_only_its_kind(store: RecordStore, kind: Kind) -> None:
    record = create(store, kind)
    others = set(Kind) - {kind}
    assert [taken(store, "w", other) for other in others] == [None]
    assert taken(store, "w", kind) == record
