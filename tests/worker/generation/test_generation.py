"""One worker's share in a job: the zip is the library's, whoever made what, and however often it was interrupted."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipFile

import pytest

from model.diffusion.base import Base
from service.core import object_keys
from service.core.messaging import pending_ids
from service.core.record import State
from tests.support.servers import RedisServer
from tests.worker.ending import asked_to_end_at
from tests.worker.stored import Service, dataset_by_library
from worker.generation.run import run_generation

NUM_PAIRS = 7


@pytest.fixture(scope="module")
def expected(base: Base, library_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return dataset_by_library(base, library_adapter, tmp_path_factory.mktemp("zip") / "dataset.zip", NUM_PAIRS)


def test_a_job_stores_the_zip_that_the_library_makes(service: Service, adapter: str, expected: bytes) -> None:
    job = service.create_job(adapter, NUM_PAIRS)
    run_generation(job, service.context())
    record = service.record(job)
    assert record.state is State.SUCCEEDED, record.error
    assert record.result is not None
    assert service.dataset(job) == expected
    assert record.result["bytes"] == len(expected)
    assert record.result["counts"]["accepted"] == NUM_PAIRS
    assert record.result["request"]["scheduler"] == "dpmsolver++"
    assert record.result["request"]["anchored"] is True
    assert service.folders(job) == {"results"}
    assert record.stored_bytes == sum(each.size for each in service.objects.list(object_keys.prefix(job)))


def test_workers_that_share_a_job_make_the_same_zip(service: Service, adapter: str, expected: bytes) -> None:
    job = service.create_job(adapter, NUM_PAIRS)
    contexts = [service.context(), service.context()]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda context: run_generation(job, context), contexts))
    assert service.record(job).state is State.SUCCEEDED
    assert service.dataset(job) == expected


@pytest.mark.parametrize("judged", [1, 2])
def test_a_job_that_is_handed_over_goes_on_with_the_blocks_that_are_there(
    service: Service, adapter: str, expected: bytes, redis_server: RedisServer, judged: int
) -> None:
    job = service.create_job(adapter, NUM_PAIRS)
    with asked_to_end_at(service, redis_server, b'"next_block": %d,' % judged) as context:
        run_generation(job, context)
    assert service.record(job).state is State.QUEUED
    assert job in pending_ids(service.store.redis)
    kept = {each.key for each in service.objects.list(f"{object_keys.prefix(job)}blocks/")}
    assert kept
    run_generation(job, service.context())
    assert service.dataset(job) == expected


def test_a_message_delivered_twice_changes_nothing(service: Service, adapter: str) -> None:
    job = service.create_job(adapter, 1)
    run_generation(job, service.context())
    before = service.record(job)
    run_generation(job, service.context())
    assert service.record(job) == before


def test_a_job_that_cannot_be_filled_fails_with_the_reasons(service: Service, adapter: str) -> None:
    job = service.create_job(adapter, 2, max_attempts=3)
    limits = {**service.record(job).request["limits"], "min_visibility": 254.0}
    strict = service.create_job(adapter, 2, max_attempts=3, limits=limits)
    run_generation(strict, service.context())
    record = service.record(strict)
    assert record.state is State.FAILED
    assert record.error is not None
    assert "only 0 of 2 pairs passed the quality checks in 3 attempts (rejected: " in record.error["detail"]
    assert "invisible" in record.error["detail"]
    assert record.counts is not None
    assert record.counts["attempts"] == 3
    assert service.folders(strict) == set()


def test_a_job_out_of_attempts_gives_what_it_has_and_says_why(service: Service, adapter: str) -> None:
    job = service.create_job(adapter, 50, max_attempts=3)
    run_generation(job, service.context())
    record = service.record(job)
    assert record.state is State.SUCCEEDED, record.error
    assert record.result is not None
    assert record.counts is not None
    accepted = record.counts["accepted"]
    assert 0 < accepted < 50
    partial = record.result["partial"]
    assert (partial["num_pairs"], partial["code"]) == (accepted, "attempts_used_up")
    reason = f"only {accepted} of 50 pairs passed the quality checks in 3 attempts"
    assert partial["detail"].startswith(reason)
    with ZipFile(io.BytesIO(service.dataset(job))) as archive:
        described = json.loads(archive.read("dataset.json"))
        assert described["num_pairs"] == accepted
        assert described["partial"].startswith(reason)
        assert sum(name.startswith("masks/") for name in archive.namelist()) == accepted
        assert f"smaller than requested: {reason}" in archive.read("README.md").decode()


def test_the_next_job_is_taken_whatever_a_message_was_sent_for(service: Service, adapter: str, expected: bytes) -> None:
    cancelled, job = service.create_job(adapter, NUM_PAIRS), service.create_job(adapter, NUM_PAIRS)
    service.store.records.request_cancel(cancelled)
    run_generation(None, service.context())
    assert service.dataset(job) == expected


def test_a_job_whose_adapter_is_gone_says_so(service: Service) -> None:
    job = service.create_job(object_keys.new_id(object_keys.Kind.ADAPTER), 1)
    run_generation(job, service.context())
    error = service.record(job).error
    assert error is not None
    assert error["code"] == "unusable_input"
    assert "no longer exists" in error["detail"]


def test_a_dead_judge_is_followed_by_another(service: Service, adapter: str, expected: bytes) -> None:
    job = service.create_job(adapter, NUM_PAIRS)
    held = service.store.claims.join(job, "dead")
    assert held is not None
    assert service.store.blocks.claim_judge(job, "dead")
    assert service.store.blocks.claim(job, "dead", ahead=4) == 0
    run_generation(job, service.context())
    # Not before the dead one's hold was over.
    began = held.transitions[State.RUNNING]
    assert service.record(job).transitions[State.SUCCEEDED] >= began + service.settings.lease_seconds
    assert service.dataset(job) == expected


def test_a_stalled_worker_that_wakes_up_cannot_write(service: Service, adapter: str, expected: bytes) -> None:
    job = service.create_job(adapter, NUM_PAIRS)
    assert service.store.claims.join(job, "stalled")
    assert service.store.blocks.claim_judge(job, "stalled")
    run_generation(job, service.context())
    assert not service.store.claims.succeed(job, "stalled", {}, 0)
    assert not service.store.claims.fail(job, "stalled", {"code": "x", "detail": "", "problems": []})
    assert service.record(job).state is State.SUCCEEDED
    assert service.dataset(job) == expected
