"""Claims and leases on a real Redis: who may change what, and that everything happens once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from service.core.object_keys import Kind
from service.core.record import State
from service.core.records.database import record_key
from service.core.records.store import RecordStore
from tests.support.records import DEAD, OPERATIONS, Operation, brought_to, changes, create, found
from tests.support.servers import MakeSettings


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


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_no_worker_can_store_a_number_that_is_not_finite(store: RecordStore, number: float) -> None:
    record, bad = brought_to(store, State.RUNNING), {"loss": [[5, number]]}
    claims = store.claims
    writes: list[Callable[[], object]] = [
        lambda: claims.report(record, "w", bad),
        lambda: claims.report(record, "w", {}, bad),
        lambda: claims.save_checkpoint(record, "w", bad),
        lambda: claims.succeed(record, "w", bad, 0),
        lambda: claims.fail(record, "w", bad),
    ]
    for write in writes:
        with pytest.raises(ValueError, match="not JSON compliant"):
            write()
    assert found(store, record).state is State.RUNNING


def test_numbers_that_are_not_finite_in_earlier_records_are_read_as_none(
    redis_client: Redis, store: RecordStore
) -> None:
    record = brought_to(store, State.RUNNING)
    redis_client.hset(record_key(record), "progress", '{"loss": NaN, "curve": [[5, Infinity], [10, 0.5]]}')
    assert found(store, record).progress == {"loss": None, "curve": [[5, None], [10, 0.5]]}
    store.claims.renew(record, "w")
    store.records.request_cancel(record)
    last = store.records.events(record)[-1]
    assert last.data["progress"] == {"loss": None, "curve": [[5, None], [10, 0.5]]}


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
