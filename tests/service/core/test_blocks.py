"""One job in the hands of several workers, on a real Redis."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from service.core.object_keys import Kind, new_id
from service.core.record_store import RecordStore, State
from tests.support.servers import MakeSettings

BRIEF = 0.4


def job_of(records: RecordStore, *owners: str) -> str:
    job = records.create(Kind.JOB, new_id(Kind.JOB), "k1", {"num_pairs": 64})[0].id
    for owner in owners:
        assert records.join(job, owner) is not None
    return job


@pytest.fixture
def brief(redis_client: Redis, redis_settings: MakeSettings) -> RecordStore:
    """Records whose leases are dead after `BRIEF` seconds."""
    return RecordStore(redis_client, redis_settings(lease_seconds=BRIEF))


def test_no_two_of_the_living_have_one_block(records: RecordStore) -> None:
    owners = [f"w{number}" for number in range(8)]
    job = job_of(records, *owners)

    def work(owner: str) -> list[int]:
        mine = []
        while (block := records.claim_block(job, owner, ahead=40, stop=40)) is not None:
            mine.append(block)
            assert records.finish_block(job, block, owner, f"blocks/{block}")
        return mine

    with ThreadPoolExecutor(8) as pool:
        taken = [block for mine in pool.map(work, owners) for block in mine]
    assert sorted(taken) == list(range(40))
    assert records.blocks_done(job) == {block: f"blocks/{block}" for block in range(40)}


def test_a_worker_gets_the_block_it_has_until_it_is_done(records: RecordStore) -> None:
    job = job_of(records, "a")
    assert [records.claim_block(job, "a", ahead=2) for _ in range(2)] == [0, 0]
    assert [records.finish_block(job, 0, "a", "x") for _ in range(2)] == [True, True]
    assert records.claim_block(job, "a", ahead=2) == 1


def test_blocks_end_where_the_job_or_the_look_ahead_ends(records: RecordStore) -> None:
    job = job_of(records, "a", "b", "c")
    assert records.claim_block(job, "a", ahead=2, stop=10) == 0
    assert records.claim_block(job, "b", ahead=2, stop=10) == 1
    assert records.claim_block(job, "c", ahead=2, stop=10) is None
    assert records.claim_block(job, "c", ahead=9, stop=2) is None
    records.claim_judge(job, "a")
    records.save_judged(job, "a", {"next_block": 1, "accepted": 3}, "v0")
    assert records.claim_block(job, "c", ahead=2, stop=10) == 2


def test_a_dead_workers_block_is_taken_again_and_no_longer_its_own(brief: RecordStore) -> None:
    job = job_of(brief, "dead", "alive")
    assert brief.claim_block(job, "dead", ahead=4) == 0
    assert brief.claim_block(job, "alive", ahead=4) == 1
    for _ in range(4):
        time.sleep(BRIEF / 2)
        assert brief.renew(job, "alive") is State.RUNNING
    assert brief.finish_block(job, 1, "alive", "x1")
    assert brief.claim_block(job, "alive", ahead=4) == 0
    assert not brief.finish_block(job, 0, "dead", "x0")
    assert brief.finish_block(job, 0, "alive", "x0")


def test_who_hands_over_frees_block_and_judge_at_once(records: RecordStore) -> None:
    job = job_of(records, "a", "b")
    for _ in range(5):
        records.join(job, "a")
        assert records.claim_block(job, "a", ahead=4) == 0
        assert records.claim_judge(job, "a")
        assert records.release(job, "a")
    assert records.claim_block(job, "b", ahead=4) == 0
    assert records.claim_judge(job, "b")


def test_besides_the_block_it_finishes_an_owner_gets_the_next(records: RecordStore) -> None:
    job = job_of(records, "a", "b")
    assert records.claim_block(job, "a", ahead=3) == 0
    assert records.claim_block(job, "a", ahead=3, besides=0) == 1
    assert records.claim_block(job, "b", ahead=3) == 2
    assert records.claim_block(job, "a", ahead=3, besides=1) == 0
    assert records.finish_block(job, 0, "a", "x0")
    assert records.claim_block(job, "a", ahead=2, besides=1) is None
    assert records.claim_block(job, "a", ahead=2) == 1


def test_strangers_get_nothing(records: RecordStore) -> None:
    job = job_of(records, "a")
    assert records.claim_block(job, "stranger", ahead=4) is None
    assert not records.claim_judge(job, "stranger")
    assert records.claim_block(job, "a", ahead=4) == 0
    assert not records.finish_block(job, 0, "stranger", "x")
    assert not records.save_judged(job, "a", {"next_block": 1}, "v0")
    assert records.judged(job) is None


def test_nothing_is_taken_from_a_job_that_is_being_cancelled(records: RecordStore) -> None:
    job = job_of(records, "a")
    records.claim_block(job, "a", ahead=4)
    records.request_cancel(job)
    assert records.claim_block(job, "a", ahead=4) is None
    assert not records.finish_block(job, 0, "a", "x")
    assert not records.claim_judge(job, "a")


def test_a_block_that_kills_whoever_takes_it_fails_the_job(brief: RecordStore) -> None:
    job = job_of(brief, "alive")
    brief.claim_block(job, "alive", ahead=1)
    brief.finish_block(job, 0, "alive", "x0")
    for number in range(3):
        brief.renew(job, "alive")
        brief.join(job, f"w{number}")
        assert brief.claim_block(job, f"w{number}", ahead=2) == 1
        time.sleep(BRIEF / 2)
        brief.renew(job, "alive")
        time.sleep(BRIEF * 0.7)
    brief.renew(job, "alive")
    assert brief.claim_block(job, "alive", ahead=2) is None
    read = brief.get(job)
    assert read is not None
    assert read.state is State.FAILED
    assert read.error is not None
    assert read.error["code"] == "attempts_exhausted"


def test_one_of_the_living_judges(brief: RecordStore) -> None:
    job = job_of(brief, "a", "b")
    assert brief.claim_judge(job, "a")
    assert brief.claim_judge(job, "a")
    assert not brief.claim_judge(job, "b")
    assert not brief.save_judged(job, "b", {"next_block": 3}, "v2")
    assert not brief.succeed(job, "b", {}, 0)
    assert brief.save_judged(job, "a", {"next_block": 3, "accepted": 2}, "v2")
    for _ in range(4):
        time.sleep(BRIEF / 2)
        brief.renew(job, "b")
    assert brief.claim_judge(job, "b")
    assert brief.judged(job) == {"next_block": 3, "accepted": 2}
    assert not brief.save_judged(job, "a", {"next_block": 4}, "v3")
    assert not brief.succeed(job, "a", {}, 0)
    assert brief.succeed(job, "b", {"bytes": 9}, 9)


def test_what_is_done_outlives_all_workers(brief: RecordStore) -> None:
    job = job_of(brief, "a")
    brief.claim_block(job, "a", ahead=4)
    brief.finish_block(job, 0, "a", "x0")
    brief.claim_judge(job, "a")
    brief.save_judged(job, "a", {"next_block": 1}, "v0")
    time.sleep(2 * BRIEF)
    assert brief.reap(job) is State.QUEUED
    assert brief.claim(job, "b") is not None
    assert brief.blocks_done(job) == {0: "x0"}
    assert brief.judged(job) == {"next_block": 1}
    assert brief.verdicts(job) == {0: "v0"}
    assert brief.claim_block(job, "b", ahead=4) == 1
