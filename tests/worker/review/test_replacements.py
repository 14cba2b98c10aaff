"""New pairs for rejected ones, until as many are approved as are wanted; one dataset of the pairs of several jobs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.core import object_keys
from service.core.record import State
from tests.support.servers import RedisServer
from tests.support.tiny_data import PERMISSIVE
from tests.support.waiting import wait_until
from tests.worker.ending import asked_to_end_at
from tests.worker.review.approving import entries, selection
from tests.worker.stored import Service
from worker.generation.run import run_generation

pytestmark = pytest.mark.timeout(600)

FAILED = {"code": "unusable_input", "detail": "it cannot be"}
AT = "2026-11-28T10:15:00.000Z"


def run(service: Service, job: str) -> str:
    run_generation(job, service.context())
    record = service.record(job)
    assert record.state is State.SUCCEEDED, record.error
    return job


def replacements(service: Service, client: httpx2.Client, job: str, count: int) -> str:
    """The id of a finished job of further pairs."""
    answer = client.post(f"/jobs/{job}/replacements", json={"num_pairs": count})
    assert answer.status_code == 202, answer.text
    return run(service, str(answer.json()["id"]))


def pairs_of(service: Service, *jobs: str) -> list[tuple[int, int, str, str]]:
    """Candidate, seed and hashes of the pairs of jobs, job after job."""
    files = [entries(service.dataset(job))["manifest.jsonl"] for job in jobs]
    rows = [json.loads(line) for content in files for line in content.splitlines()]
    return [(row["candidate"], row["seed"], row["image_sha256"], row["mask_sha256"]) for row in rows]


def approvals(client: httpx2.Client, job: str, *numbers: int) -> list[dict[str, Any]]:
    listed = client.get(f"/jobs/{job}/pairs").json()["data"]
    return [{"candidate": listed[number]["candidate"], "job_id": job, "at": AT} for number in numbers]


def test_a_job_and_its_replacements_have_the_pairs_of_one_larger_job(
    service: Service, client: httpx2.Client, adapter: str
) -> None:
    # So strict that later candidates are rejected as copies of pairs of the jobs before, as these masks are found.
    copies = {"defect_copy": 0.3, "max_copy": 0.3}
    limits = {**asdict(PERMISSIVE), "max_disagreement": 43.0, **copies}
    whole = run(
        service, service.create_job(adapter, 4, limits=limits, max_attempts=100, match_detail=False, match_mask=False)
    )
    assert client.get(f"/jobs/{whole}").json()["counts"]["rejected"]["copy_of_accepted"]
    first = run(
        service, service.create_job(adapter, 3, limits=limits, max_attempts=100, match_detail=False, match_mask=False)
    )
    second = replacements(service, client, first, 1)
    assert pairs_of(service, first, second) == pairs_of(service, whole)
    described = json.loads(entries(service.dataset(second))["dataset.json"])["follows"]
    attempts = [client.get(f"/jobs/{job}").json()["counts"]["attempts"] for job in (first, second)]
    assert described["first_candidate"] == attempts[0]
    assert described["dataset_sha256"] == [client.get(f"/jobs/{first}").json()["dataset"]["sha256"]]
    third = client.post(f"/jobs/{second}/replacements", json={"num_pairs": 1}).json()
    assert third["request"]["follows"] == {
        "job_id": second,
        "first_job_id": first,
        "first_candidate": sum(attempts),
    }


def test_replacements_are_the_same_after_their_worker_died(
    service: Service, client: httpx2.Client, job: str, redis_server: RedisServer
) -> None:
    first = replacements(service, client, job, 2)
    at_once = service.dataset(first)
    assert client.delete(f"/jobs/{first}").status_code == 204
    made = client.post(f"/jobs/{job}/replacements", json={"num_pairs": 2}).json()["id"]
    with asked_to_end_at(service, redis_server, b'"next_block": 1,') as context:
        run_generation(made, context)
    assert service.store.blocks.finished(made)
    assert service.store.claims.claim(made, "dead")
    wait_until(lambda: service.store.upkeep.reap(made) is State.QUEUED)
    assert service.dataset(run(service, made)) == at_once


def test_approved_pairs_of_several_jobs_become_one_dataset(service: Service, client: httpx2.Client, job: str) -> None:
    more = replacements(service, client, job, 2)
    kept, new = approvals(client, job, 0, 2), approvals(client, more, 1)
    formats = ["mvtec", "coco", "yolo", "labelstudio"]
    joined = selection(service, client, job, [*new, *kept], formats=formats)
    again = selection(service, client, job, [*kept, *new], formats=formats)
    assert service.dataset(joined) == service.dataset(again)

    files = entries(service.dataset(joined))
    rows = [json.loads(line) for line in files["manifest.jsonl"].splitlines()]
    assert [(row["review"]["job_id"], row["review"]["candidate"]) for row in rows] == [
        (approval["job_id"], approval["candidate"]) for approval in [*kept, *new]
    ]
    sources = entries(service.dataset(job)), entries(service.dataset(more))
    assert files["images/000001.png"] == sources[0]["images/000002.png"]
    assert files["images/000002.png"] == sources[1]["images/000001.png"]
    described = json.loads(files["dataset.json"])
    shas = {each: client.get(f"/jobs/{each}").json()["dataset"]["sha256"] for each in (job, more)}
    assert described["selection"]["jobs"] == [
        {"job_id": job, "dataset_sha256": shas[job], "approved": 2},
        {"job_id": more, "dataset_sha256": shas[more], "approved": 1},
    ]
    counts = [client.get(f"/jobs/{each}").json()["counts"] for each in (job, more)]
    assert described["counts"]["attempts"] == sum(count["attempts"] for count in counts)
    assert described["counts"]["rejected"]["not_approved"] == 2
    assert len(json.loads(files["coco/instances_rle.json"])["annotations"]) >= 3
    # All pairs can be selected from again, though two candidates might have had one index.
    assert client.get(f"/jobs/{joined}/pairs").json()["total"] == 3


def test_pairs_that_do_not_belong_together_are_refused_one_by_one(
    service: Service, client: httpx2.Client, job: str, library_adapter: Path, adapter: str
) -> None:
    other = run(service, service.create_job(service.succeeded_adapter(library_adapter), 1))
    waiting = service.create_job(adapter, 1)
    # Where a job between two others was deleted, the one that takes its place may reach further.
    between = replacements(service, client, job, 1)
    more = replacements(service, client, between, 1)
    assert client.delete(f"/jobs/{between}").status_code == 204
    twin = replacements(service, client, job, 2)
    approved = [
        *approvals(client, job, 0),
        *approvals(client, other, 0),
        {"candidate": 0, "job_id": waiting},
        {"candidate": 0, "job_id": object_keys.new_id(object_keys.Kind.JOB)},
        *approvals(client, twin, 1),
        *approvals(client, more, 0),
    ]
    refused = client.post(f"/jobs/{job}/selections", json={"reviewer": "Ada", "approved": approved})
    assert refused.status_code == 422
    told = {error["pointer"]: error["detail"] for error in refused.json()["errors"]}
    assert "another adapter" in told["/approved/1/job_id"]
    assert "queued" in told["/approved/2/job_id"]
    assert "no job has the id" in told["/approved/3/job_id"]
    assert "twice" in told["/approved/5/candidate"]
    assert len(told) == 4


def test_a_job_is_replaced_by_one_other_at_a_time(service: Service, client: httpx2.Client, job: str) -> None:
    def asked(name: str, key: str) -> httpx2.Response:
        headers = {"Idempotency-Key": key}
        return client.post(f"/jobs/{name}/replacements", json={"num_pairs": 1}, headers=headers)

    def refused(name: str, other: str, state: str) -> None:
        answer = asked(name, "another")
        assert (answer.status_code, answer.json()["code"]) == (409, "already_replaced")
        assert f"job {other}, which is {state}" in answer.json()["detail"]
        assert answer.json()["errors"][0]["parameter"] == "job_id"

    with ThreadPoolExecutor() as pool:
        both = [answer.result() for answer in [pool.submit(asked, job, key) for key in ("one", "two")]]
    assert sorted(answer.status_code for answer in both) == [202, 409]
    key = ("one", "two")[both[1].status_code == 202]
    made = str(asked(job, key).json()["id"])
    assert made in [answer.json().get("id") for answer in both]
    refused(job, made, "queued")
    run(service, made)
    refused(job, made, "succeeded")
    assert asked(job, key).json()["id"] == made

    # One that gives no pairs, or whose pairs are gone, does not count.
    for end in (
        lambda after: client.post(f"/jobs/{after}/cancel").raise_for_status(),
        lambda after: service.store.claims.claim(after, "w") and service.store.claims.fail(after, "w", FAILED),
        lambda after: client.delete(f"/jobs/{run(service, after)}").raise_for_status(),
    ):
        answer = asked(made, object_keys.new_id(object_keys.Kind.JOB))
        assert answer.status_code == 202, answer.text
        end(answer.json()["id"])


def test_what_cannot_be_replaced_is_refused(service: Service, client: httpx2.Client, job: str, adapter: str) -> None:
    def asked(name: str, body: dict[str, Any]) -> tuple[int, str]:
        answer = client.post(f"/jobs/{name}/replacements", json=body)
        return answer.status_code, answer.json()["detail"]

    chosen = selection(service, client, job, approvals(client, job, 0))
    assert asked(chosen, {"num_pairs": 1})[0] == 422
    assert asked(service.create_job(adapter, 1), {"num_pairs": 1})[0] == 409
    assert asked(job, {"num_pairs": 0})[0] == 422
    assert "at most 10000 pairs" in asked(job, {"num_pairs": 10_001})[1]
    assert client.delete(f"/adapters/{adapter}").status_code == 204
    assert asked(job, {"num_pairs": 1})[0] == 404


def test_replacements_of_a_deleted_job_fail_with_the_reason(service: Service, client: httpx2.Client, job: str) -> None:
    made = client.post(f"/jobs/{job}/replacements", json={"num_pairs": 1}).json()["id"]
    assert client.delete(f"/jobs/{job}").status_code == 204
    run_generation(made, service.context())
    error = client.get(f"/jobs/{made}").json()["error"]
    assert error["code"] == "unusable_input"
    assert "was deleted" in error["detail"]
