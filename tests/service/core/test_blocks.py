"""One job in the hands of several workers, on a real Redis."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from service.core.object_keys import Kind, new_id
from service.core.record import State
from service.core.records.store import RecordStore
from tests.support.servers import MakeSettings

BRIEF = 0.4


def job_of(store: RecordStore, *owners: str) -> str:
    job = store.submissions.create(Kind.JOB, new_id(Kind.JOB), "k1", {"num_pairs": 64})[0].id
    for owner in owners:
        assert store.claims.join(job, owner) is not None
    return job


@pytest.fixture
def brief(redis_client: Redis, redis_settings: MakeSettings) -> RecordStore:
    """Records whose leases are dead after `BRIEF` seconds."""
    return RecordStore(redis_client, redis_settings(lease_seconds=BRIEF))


def test_no_two_of_the_living_have_one_block(store: RecordStore) -> None:
    owners = [f"w{number}" for number in range(8)]
    job = job_of(store, *owners)

    def work(owner: str) -> list[int]:
        mine = []
        while (block := store.blocks.claim(job, owner, ahead=40, stop=40)) is not None:
            mine.append(block)
            assert store.blocks.finish(job, block, owner, f"blocks/{block}")
        return mine

    with ThreadPoolExecutor(8) as pool:
        taken = [block for mine in pool.map(work, owners) for block in mine]
    assert sorted(taken) == list(range(40))
    assert store.blocks.finished(job) == {block: f"blocks/{block}" for block in range(40)}


def test_a_worker_gets_the_block_it_has_until_it_is_done(store: RecordStore) -> None:
    job = job_of(store, "a")
    assert [store.blocks.claim(job, "a", ahead=2) for _ in range(2)] == [0, 0]
    assert [store.blocks.finish(job, 0, "a", "x") for _ in range(2)] == [True, True]
    assert store.blocks.claim(job, "a", ahead=2) == 1


def test_blocks_end_where_the_job_or_the_look_ahead_ends(store: RecordStore) -> None:
    job = job_of(store, "a", "b", "c")
    assert store.blocks.claim(job, "a", ahead=2, stop=10) == 0
    assert store.blocks.claim(job, "b", ahead=2, stop=10) == 1
    assert store.blocks.claim(job, "c", ahead=2, stop=10) is None
    assert store.blocks.claim(job, "c", ahead=9, stop=2) is None
    store.blocks.claim_judge(job, "a")
    store.blocks.save_judged(job, "a", {"next_block": 1, "accepted": 3}, "v0")
    assert store.blocks.claim(job, "c", ahead=2, stop=10) == 2


def test_a_dead_workers_block_is_taken_again_and_no_longer_its_own(brief: RecordStore) -> None:
    job = job_of(brief, "dead", "alive")
    assert brief.blocks.claim(job, "dead", ahead=4) == 0
    assert brief.blocks.claim(job, "alive", ahead=4) == 1
    for _ in range(4):
        time.sleep(BRIEF / 2)
        assert brief.claims.renew(job, "alive") is State.RUNNING
    assert brief.blocks.finish(job, 1, "alive", "x1")
    assert brief.blocks.claim(job, "alive", ahead=4) == 0
    assert not brief.blocks.finish(job, 0, "dead", "x0")
    assert brief.blocks.finish(job, 0, "alive", "x0")


def test_who_hands_over_frees_block_and_judge_at_once(store: RecordStore) -> None:
    job = job_of(store, "a", "b")
    for _ in range(5):
        store.claims.join(job, "a")
        assert store.blocks.claim(job, "a", ahead=4) == 0
        assert store.blocks.claim_judge(job, "a")
        assert store.claims.release(job, "a")
    assert store.blocks.claim(job, "b", ahead=4) == 0
    assert store.blocks.claim_judge(job, "b")


def test_besides_the_block_it_finishes_an_owner_gets_the_next(store: RecordStore) -> None:
    job = job_of(store, "a", "b")
    assert store.blocks.claim(job, "a", ahead=3) == 0
    assert store.blocks.claim(job, "a", ahead=3, besides=0) == 1
    assert store.blocks.claim(job, "b", ahead=3) == 2
    assert store.blocks.claim(job, "a", ahead=3, besides=1) == 0
    assert store.blocks.finish(job, 0, "a", "x0")
    assert store.blocks.claim(job, "a", ahead=2, besides=1) is None
    assert store.blocks.claim(job, "a", ahead=2) == 1


def test_strangers_get_nothing(store: RecordStore) -> None:
    job = job_of(store, "a")
    assert store.blocks.claim(job, "stranger", ahead=4) is None
    assert not store.blocks.claim_judge(job, "stranger")
    assert store.blocks.claim(job, "a", ahead=4) == 0
    assert not store.blocks.finish(job, 0, "stranger", "x")
    assert not store.blocks.save_judged(job, "a", {"next_block": 1}, "v0")
    assert store.blocks.judged(job) is None


def test_nothing_is_taken_from_a_job_that_is_being_cancelled(store: RecordStore) -> None:
    job = job_of(store, "a")
    store.blocks.claim(job, "a", ahead=4)
    store.records.request_cancel(job)
    assert store.blocks.claim(job, "a", ahead=4) is None
    assert not store.blocks.finish(job, 0, "a", "x")
    assert not store.blocks.claim_judge(job, "a")


def test_a_block_that_kills_whoever_takes_it_fails_the_job(brief: RecordStore) -> None:
    job = job_of(brief, "alive")
    brief.blocks.claim(job, "alive", ahead=1)
    brief.blocks.finish(job, 0, "alive", "x0")
    for number in range(3):
        brief.claims.renew(job, "alive")
        brief.claims.join(job, f"w{number}")
        assert brief.blocks.claim(job, f"w{number}", ahead=2) == 1
        time.sleep(BRIEF / 2)
        brief.claims.renew(job, "alive")
        time.sleep(BRIEF * 0.7)
    brief.claims.renew(job, "alive")
    assert brief.blocks.claim(job, "alive", ahead=2) is None
    read = brief.records.get(job)
    assert read is not None
    assert read.state is State.FAILED
    assert read.error is not None
    assert read.error["code"] == "attempts_exhausted"


def test_one_of_the_living_judges(brief: RecordStore) -> None:
    job = job_of(brief, "a", "b")
    assert brief.blocks.claim_judge(job, "a")
    assert brief.blocks.claim_judge(job, "a")
    assert not brief.blocks.claim_judge(job, "b")
    assert not brief.blocks.save_judged(job, "b", {"next_block": 3}, "v2")
    assert not brief.claims.succeed(job, "b", {}, 0)
    assert brief.blocks.save_judged(job, "a", {"next_block": 3, "accepted": 2}, "v2")
    for _ in range(4):
        time.sleep(BRIEF / 2)
        brief.claims.renew(job, "b")
    assert brief.blocks.claim_judge(job, "b")
    assert brief.blocks.judged(job) == {"next_block": 3, "accepted": 2}
    assert not brief.blocks.save_judged(job, "a", {"next_block": 4}, "v3")
    assert not brief.claims.succeed(job, "a", {}, 0)
    assert brief.claims.succeed(job, "b", {"bytes": 9}, 9)


def test_what_is_done_outlives_all_workers(brief: RecordStore) -> None:
    job = job_of(brief, "a")
    brief.blocks.claim(job, "a", ahead=4)
    brief.blocks.finish(job, 0, "a", "x0")
    brief.blocks.claim_judge(job, "a")
    brief.blocks.save_judged(job, "a", {"next_block": 1}, "v0")
    time.sleep(2 * BRIEF)
    assert brief.upkeep.reap(job) is State.QUEUED
    assert brief.claims.claim(job, "b") is not None
    assert brief.blocks.finished(job) == {0: "x0"}
    assert brief.blocks.judged(job) == {"next_block": 1}
    assert brief.blocks.verdicts(job) == {0: "v0"}
    assert brief.blocks.claim(job, "b", ahead=4) == 1
