"""Records on a real Redis: who may change what, and that everything happens once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from service.core.connections import connect_async
from service.core.object_keys import Kind, new_id
from service.core.record import TERMINAL, Record, State
from service.core.records.errors import AdapterInUse, AdapterNotReady, IdempotencyConflict, QuotaExceeded
from service.core.records.events import read_events, read_record
from service.core.records.store import RecordStore
from service.core.records.submissions import Idempotency
from service.core.scripts import EVENT_SECONDS, LAST_EVENTS, NAMESPACE
from service.core.telemetry import Telemetry
from tests.support.servers import MakeSettings, RedisServer

KEY = "k1"
BRIEF = 0.3
DEAD = 1.2 * BRIEF
"""After this many seconds a brief lease is dead."""

Operation = Callable[[RecordStore, str], Any]


def create(store: RecordStore, kind: Kind = Kind.ADAPTER, key: str = KEY, **options: Any) -> str:
    return store.submissions.create(kind, new_id(kind), key, {"name": "tile"}, **options)[0].id


def found(store: RecordStore, record: str) -> Record:
    read = store.records.get(record)
    assert read is not None
    return read


def brought_to(store: RecordStore, state: State) -> str:
    """A new adapter in a state; while it is not terminal, its owner is "w"."""
    record = create(store)
    if state is State.QUEUED:
        return record
    store.claims.claim(record, "w")
    if state in {State.CANCELLING, State.CANCELLED}:
        store.records.request_cancel(record)
    endings: dict[State, Operation] = {
        State.SUCCEEDED: lambda store, record: store.claims.succeed(record, "w", {}, 0),
        State.FAILED: lambda store, record: store.claims.fail(record, "w", {"code": "x", "detail": "x"}),
        State.CANCELLED: lambda store, record: store.claims.mark_cancelled(record, "w"),
    }
    if state in endings:
        assert endings[state](store, record)
    return record


OPERATIONS: dict[str, Operation] = {
    "claim": lambda store, record: store.claims.claim(record, "v"),
    "join": lambda store, record: store.claims.join(record, "v"),
    "renew": lambda store, record: store.claims.renew(record, "w"),
    "report": lambda store, record: store.claims.report(record, "w", {}),
    "save_checkpoint": lambda store, record: store.claims.save_checkpoint(record, "w", {}),
    "release": lambda store, record: store.claims.release(record, "w"),
    "retry": lambda store, record: store.claims.retry(record, "w"),
    "succeed": lambda store, record: store.claims.succeed(record, "w", {}, 0),
    "fail": lambda store, record: store.claims.fail(record, "w", {}),
    "mark_cancelled": lambda store, record: store.claims.mark_cancelled(record, "w"),
    "request_cancel": lambda store, record: store.records.request_cancel(record),
    "reap": lambda store, record: store.upkeep.reap(record),
}


def changes(store: RecordStore, operations: dict[str, Operation], pause: float = 0) -> set[tuple[str, State, State]]:
    """(operation, state before, state after) wherever an operation changed the state."""
    cases = [(name, before, brought_to(store, before)) for name in operations for before in State]
    time.sleep(pause)
    for name, _, record in cases:
        operations[name](store, record)
    ends = [(name, before, found(store, record).state) for name, before, record in cases]
    return {(name, before, after) for name, before, after in ends if after is not before}


@pytest.fixture
def brief(redis_client: Redis, redis_settings: MakeSettings) -> RecordStore:
    """Records whose leases are dead after `BRIEF` seconds."""
    return RecordStore(redis_client, redis_settings(lease_seconds=BRIEF, max_active_per_key=1000))


def test_states_change_only_where_they_may(redis_client: Redis, redis_settings: MakeSettings) -> None:
    store = RecordStore(redis_client, redis_settings(lease_seconds=60, max_active_per_key=1000))
    assert changes(store, OPERATIONS) == {
        ("claim", State.QUEUED, State.RUNNING),
        ("join", State.QUEUED, State.RUNNING),
        ("release", State.RUNNING, State.QUEUED),
        ("release", State.CANCELLING, State.CANCELLED),
        ("retry", State.RUNNING, State.QUEUED),
        ("retry", State.CANCELLING, State.CANCELLED),
        ("succeed", State.RUNNING, State.SUCCEEDED),
        ("fail", State.RUNNING, State.FAILED),
        ("fail", State.CANCELLING, State.CANCELLED),
        ("mark_cancelled", State.CANCELLING, State.CANCELLED),
        ("request_cancel", State.QUEUED, State.CANCELLED),
        ("request_cancel", State.RUNNING, State.CANCELLING),
    }


def test_the_dead_are_relieved(brief: RecordStore) -> None:
    by_others = {name: OPERATIONS[name] for name in ("claim", "join", "request_cancel", "reap")}
    assert changes(brief, by_others, pause=DEAD) == {
        ("claim", State.QUEUED, State.RUNNING),
        ("claim", State.CANCELLING, State.CANCELLED),
        ("join", State.QUEUED, State.RUNNING),
        ("join", State.CANCELLING, State.CANCELLED),
        ("request_cancel", State.QUEUED, State.CANCELLED),
        ("request_cancel", State.RUNNING, State.CANCELLED),
        ("reap", State.RUNNING, State.QUEUED),
        ("reap", State.CANCELLING, State.CANCELLED),
    }


def test_nothing_happens_to_what_does_not_exist(store: RecordStore) -> None:
    assert store.records.get("adp_none") is None
    operations = [*OPERATIONS.values(), lambda store, record: store.records.remove(record)]
    assert not any(operation(store, "adp_none") for operation in operations)
    assert store.states.queue_position("adp_none") is None


def test_one_of_twenty_claims_wins(store: RecordStore) -> None:
    record = create(store)
    with ThreadPoolExecutor(20) as pool:
        claims = list(pool.map(lambda number: store.claims.claim(record, f"w{number}"), range(20)))
    winners = [claim for claim in claims if claim is not None]
    assert len(winners) == 1
    assert (winners[0].state, winners[0].attempt) == (State.RUNNING, 1)
    assert found(store, record).owner == winners[0].owner


def test_who_has_lost_the_lease_can_write_nothing(brief: RecordStore) -> None:
    record = create(brief)
    brief.claims.claim(record, "stalled")
    time.sleep(DEAD)
    assert brief.claims.claim(record, "next") is not None
    assert brief.claims.renew(record, "stalled") is None
    writes: list[Operation] = [
        lambda store, record: store.claims.report(record, "stalled", {"stage": "train"}),
        lambda store, record: store.claims.save_checkpoint(record, "stalled", {"step": 7}),
        lambda store, record: store.claims.succeed(record, "stalled", {}, 0),
        lambda store, record: store.claims.fail(record, "stalled", {}),
        lambda store, record: store.claims.release(record, "stalled"),
        lambda store, record: store.claims.retry(record, "stalled"),
    ]
    assert not any(write(brief, record) for write in writes)
    read = found(brief, record)
    assert (read.state, read.owner, read.progress, read.checkpoint) == (State.RUNNING, "next", None, None)


def test_a_stalled_owner_whom_nobody_relieved_goes_on(brief: RecordStore) -> None:
    record = create(brief)
    brief.claims.claim(record, "w")
    time.sleep(DEAD)
    assert brief.claims.renew(record, "w") is State.RUNNING
    assert brief.claims.claim(record, "v") is None


def test_finishing_may_be_asked_twice(store: RecordStore) -> None:
    record = brought_to(store, State.RUNNING)
    assert store.claims.succeed(record, "w", {"bytes": 5}, 5)
    assert store.claims.succeed(record, "w", {"bytes": 5}, 5)
    assert not store.claims.succeed(record, "v", {"bytes": 5}, 5)


def test_starts_without_progress_are_limited(brief: RecordStore) -> None:
    record = create(brief)
    for attempt in (1, 2, 3):
        claimed = brief.claims.claim(record, f"w{attempt}")
        assert claimed is not None
        assert claimed.attempt == attempt
        time.sleep(DEAD)
    assert brief.claims.claim(record, "w4") is None
    read = found(brief, record)
    assert (read.state, read.error) == (
        State.FAILED,
        {"code": "attempts_exhausted", "detail": "Given up after 3 starts that ended without progress."},
    )


def test_progress_makes_starts_count_from_the_beginning(brief: RecordStore) -> None:
    record = create(brief)
    for step in range(4):
        assert brief.claims.claim(record, f"w{step}") is not None
        assert brief.claims.save_checkpoint(record, f"w{step}", {"step": step})
        time.sleep(DEAD)
    assert found(brief, record).checkpoint == {"step": 3}


def test_a_checkpoint_saved_again_is_no_progress(brief: RecordStore) -> None:
    record = create(brief)
    for attempt in range(4):
        brief.claims.claim(record, f"w{attempt}")
        brief.claims.save_checkpoint(record, f"w{attempt}", {"step": 100})
        time.sleep(DEAD)
    brief.claims.claim(record, "last")
    assert found(brief, record).state is State.FAILED


def test_handing_over_does_not_count(store: RecordStore) -> None:
    record = create(store)
    for number in range(5):
        assert store.claims.claim(record, f"w{number}") is not None
        assert store.claims.release(record, f"w{number}")
    assert found(store, record).attempt == 0


def test_failures_that_should_pass_count_and_are_told_in_the_end(store: RecordStore) -> None:
    record = create(store)
    for number in range(3):
        store.claims.claim(record, f"w{number}")
        assert store.claims.retry(record, f"w{number}", "The disk is full.")
    assert store.claims.claim(record, "w") is None
    assert found(store, record).error == {
        "code": "attempts_exhausted",
        "detail": "Given up after 3 starts that ended without progress. The last one ended with: The disk is full.",
    }


def test_a_job_runs_while_anyone_holds_it(store: RecordStore) -> None:
    job = create(store, Kind.JOB)
    store.claims.join(job, "a")
    store.claims.join(job, "b")
    store.claims.join(job, "c")
    assert store.claims.release(job, "a")
    assert store.claims.retry(job, "b")
    assert found(store, job).state is State.RUNNING
    assert store.claims.renew(job, "c") is State.RUNNING
    assert store.claims.release(job, "c")
    assert found(store, job).state is State.QUEUED


def test_every_transition_has_its_time(store: RecordStore) -> None:
    before = store.upkeep.now()
    read = found(store, brought_to(store, State.SUCCEEDED))
    times = [read.transitions[state] for state in (State.QUEUED, State.RUNNING, State.SUCCEEDED)]
    assert before <= times[0] == pytest.approx(read.created_at, abs=0.01)
    assert times == sorted(times)
    assert times[-1] <= store.upkeep.now()


def test_what_is_written_is_read(store: RecordStore) -> None:
    record = create(store, notes=["made grey → RGB"], stored_bytes=7)
    store.claims.claim(record, "w")
    store.claims.report(record, "w", {"stage": "train", "completed": 3, "rate": 0.5}, {"rejected": {}})
    store.claims.save_checkpoint(record, "w", {"step": 3, "samples": []})
    read = found(store, record)
    assert (read.notes, read.request, read.stored_bytes) == (["made grey → RGB"], {"name": "tile"}, 7)
    assert (read.progress, read.counts) == ({"stage": "train", "completed": 3, "rate": 0.5}, {"rejected": {}})
    assert read.checkpoint == {"step": 3, "samples": []}
    store.claims.succeed(record, "w", {"card": {"é": [1.5, None]}}, 70)
    read = found(store, record)
    assert (read.result, read.stored_bytes, read.lease_until) == ({"card": {"é": [1.5, None]}}, 70, None)


def test_a_coroutine_reads_the_same(store: RecordStore, redis_settings: MakeSettings) -> None:
    record = brought_to(store, State.SUCCEEDED)

    async def read() -> tuple[Record | None, Record | None]:
        async with connect_async(redis_settings(), Telemetry(CollectorRegistry()), 4) as client:
            return await read_record(client, record), await read_record(client, "adp_none")

    assert asyncio.run(read()) == (store.records.get(record), None)


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


def test_pages_neither_skip_nor_repeat_while_records_are_added(store: RecordStore) -> None:
    old = [create(store) for _ in range(7)]
    create(store, key="k2")
    page, cursor = store.records.page(Kind.ADAPTER, KEY, limit=3)
    seen = [record.id for record in page]
    while cursor:
        time.sleep(0.002)  # ids of one millisecond come in any order
        create(store)
        page, cursor = store.records.page(Kind.ADAPTER, KEY, after=cursor, limit=3)
        seen += [record.id for record in page]
    assert seen == sorted(old, reverse=True)


def test_a_full_last_page_has_no_cursor(store: RecordStore) -> None:
    for _ in range(3):
        create(store)
    assert store.records.page(Kind.ADAPTER, KEY, limit=3)[1] is None
    assert store.records.page(Kind.JOB, KEY) == ([], None)


def test_lists_follow_the_state(store: RecordStore) -> None:
    first, second = create(store), create(store)
    store.claims.claim(first, "w")
    assert [record.id for record in store.records.page(Kind.ADAPTER, KEY, state=State.QUEUED)[0]] == [second]
    assert [record.id for record in store.records.page(Kind.ADAPTER, KEY, state=State.RUNNING)[0]] == [first]
    assert store.records.page(Kind.ADAPTER, KEY, state=State.FAILED)[0] == []


def test_the_queue_moves_up(store: RecordStore) -> None:
    queue = [create(store) for _ in range(3)]
    create(store, Kind.JOB)
    assert [store.states.queue_position(record) for record in queue] == [0, 1, 2]
    assert store.states.oldest_queued(Kind.ADAPTER) == pytest.approx(found(store, queue[0]).created_at, abs=0.01)
    store.claims.claim(queue[0], "w")
    assert [store.states.queue_position(record) for record in queue] == [None, 0, 1]
    assert store.states.ids(Kind.ADAPTER, State.QUEUED) == queue[1:]
    counts = {cell: number for cell, number in store.states.counts().items() if number}
    assert counts == {
        (Kind.ADAPTER, State.QUEUED): 2,
        (Kind.ADAPTER, State.RUNNING): 1,
        (Kind.JOB, State.QUEUED): 1,
    }


def test_events_tell_every_change_and_resume_anywhere(store: RecordStore) -> None:
    record = create(store)
    store.claims.claim(record, "w")
    store.claims.report(record, "w", {"completed": 1}, {"accepted": 1})
    store.claims.fail(record, "w", {"code": "usage", "detail": "too dark"})
    events = store.records.events(record)
    assert [event.data["state"] for event in events] == ["queued", "running", "running", "failed"]
    assert [event.data["revision"] for event in events] == [1, 2, 3, 4]
    last = events[-1].data
    assert (last["progress"], last["counts"], last["attempt"]) == ({"completed": 1}, {"accepted": 1}, 1)
    assert last["error"] == {"code": "usage", "detail": "too dark"}
    for number, event in enumerate(events):
        assert store.records.events(record, after=event.id) == events[number + 1 :]


def test_a_coroutine_waits_for_the_next_event(store: RecordStore, redis_settings: MakeSettings) -> None:
    record = create(store)
    seen = store.records.events(record)

    async def follow() -> list[str]:
        async with connect_async(redis_settings(), Telemetry(CollectorRegistry()), 4) as client:
            assert await read_events(client, record) == seen
            assert await read_events(client, record, seen[-1].id, wait_seconds=0.05) == []
            waiting = asyncio.create_task(read_events(client, record, seen[-1].id, wait_seconds=4))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(store.records.request_cancel, record)
            return [event.data["state"] for event in await waiting]

    assert asyncio.run(follow()) == ["cancelled"]


def test_only_what_has_ended_can_be_removed_and_leaves_nothing(store: RecordStore, redis_client: Redis) -> None:
    for state in State:
        record = brought_to(store, state)
        assert store.records.remove(record) is (state in TERMINAL)
        if state in TERMINAL:
            assert store.records.get(record) is None
            assert store.records.events(record) == []
            assert record not in {listed.id for listed in store.records.page(Kind.ADAPTER, KEY)[0]}
            assert record in store.upkeep.garbage().values()
            assert redis_client.keys(f"{NAMESPACE}*{record}*") == []


def test_records_expire_by_when_they_ended(store: RecordStore) -> None:
    ended = brought_to(store, State.FAILED)
    moment = store.upkeep.now()
    brought_to(store, State.QUEUED)
    assert store.states.ended_before(moment) == [ended]
    assert store.states.ended_before(moment - 60) == []


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


def test_records_outlive_a_killed_redis(store: RecordStore, redis_server: RedisServer) -> None:
    record = brought_to(store, State.RUNNING)
    before = found(store, record)
    redis_server.kill()
    redis_server.start()
    assert found(store, record) == before
    assert store.claims.report(record, "w", {"completed": 1})


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


def test_of_a_record_that_has_ended_the_last_events_stay_for_a_while(store: RecordStore, redis_client: Redis) -> None:
    record = brought_to(store, State.RUNNING)
    for step in range(2 * LAST_EVENTS):
        store.claims.report(record, "w", {"stage": "train", "completed": step})
    stream = f"{NAMESPACE}events:{record}"
    assert redis_client.ttl(stream) == -1
    store.claims.succeed(record, "w", {}, 0)
    assert 0 < redis_client.ttl(stream) <= EVENT_SECONDS
    assert len(store.records.events(record)) == LAST_EVENTS
    assert store.records.events(record)[-1].data["state"] == State.SUCCEEDED


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
