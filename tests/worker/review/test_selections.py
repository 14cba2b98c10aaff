"""Pairs of a real job, looked at one by one over HTTP, and the approved ones as a dataset of their own."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from service.api.made_pairs import MadePairs
from service.api.page import Options
from service.api.pairs import PairDetail, PairList
from service.core import object_keys
from service.core.record import State
from tests.support.waiting import wait_until
from tests.worker.review.approving import entries, selection
from tests.worker.stored import Service, png
from worker.generation.run import run_generation

AT = "2026-11-28T10:15:00.000Z"


def picture(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as file:
        file.load()
        return file


def test_the_pairs_of_a_finished_job_are_listed_with_scores_and_pictures(
    service: Service, client: httpx2.Client, job: str
) -> None:
    files = entries(service.dataset(job))
    first = client.get(f"/jobs/{job}/pairs", params={"limit": 2}).json()
    rest = client.get(f"/jobs/{job}/pairs", params={"cursor": first["next_cursor"]}).json()
    assert PairList.model_validate(first).total == 3
    listed = first["data"] + rest["data"]
    rows = [json.loads(line) for line in files["manifest.jsonl"].splitlines()]
    assert [pair["number"] for pair in listed] == [0, 1, 2]
    assert [pair["scores"] for pair in listed] == [row["scores"] for row in rows]
    assert rest["next_cursor"] is None
    for pair in listed:
        pictures = {name: client.get(path.removeprefix("/v1")) for name, path in pair["pictures"].items()}
        assert {answer.status_code for answer in pictures.values()} == {200}
        assert pictures["image"].content == files[f"images/{pair['number']:06}.png"]
        assert pictures["mask"].content == files[f"masks/{pair['number']:06}.png"]
        assert max(picture(pictures["thumbnail"].content).size) == 240
        assert pictures["outline"].content != pictures["thumbnail"].content
        assert pictures["good-part"].headers["content-type"] == "image/png"
        real = PairDetail.model_validate(client.get(f"/jobs/{job}/pairs/{pair['candidate']}").json()).nearest_real
        assert real is not None
        assert real.name in {"blot0", "blot1"}
        assert 0 <= real.likeness <= 1


def test_the_first_rejected_candidates_are_kept_with_their_reasons(
    service: Service, client: httpx2.Client, job: str
) -> None:
    counts = client.get(f"/jobs/{job}").json()["counts"]
    rejected = client.get(f"/jobs/{job}/pairs", params={"rejected": True}).json()["data"]
    assert len(rejected) == counts["attempts"] - counts["accepted"] > 0
    assert {reason for pair in rejected for reason in pair["reasons"]} == set(counts["rejected"])
    assert client.get(rejected[0]["pictures"]["thumbnail"].removeprefix("/v1")).status_code == 200


def test_pairs_are_there_while_the_job_runs(service: Service, client: httpx2.Client, adapter: str) -> None:
    job = service.create_job(adapter, 4)
    seen: list[dict[str, Any]] = []

    def stopping() -> bool:
        if not seen and (found := client.get(f"/jobs/{job}/pairs").json()["data"]):
            seen.extend(found)
            assert client.get(found[0]["pictures"]["outline"].removeprefix("/v1")).status_code == 200
        return bool(seen)

    run_generation(job, service.context(stopping=stopping))
    found = client.get(f"/jobs/{job}/pairs").json()["data"]
    assert found[: len(seen)] == seen or service.record(job).state is State.SUCCEEDED
    assert found
    assert all(pair["accepted"] and "score" in pair["scores"] for pair in found)


def test_a_pair_of_a_job_that_ended_while_it_was_looked_at_is_found_in_its_dataset(service: Service, job: str) -> None:
    pairs, record = MadePairs(service.store, service.objects), service.record(job)
    running = replace(record, state=State.RUNNING, result=None)
    candidate = pairs.listed(record, accepted=True)[0].candidate
    assert pairs.find(running, candidate) == pairs.find(record, candidate) is not None
    assert pairs.find(running, 9_999) is None


def test_approved_pairs_become_a_dataset_that_says_who_approved_what_and_when(
    service: Service, client: httpx2.Client, job: str
) -> None:
    listed = client.get(f"/jobs/{job}/pairs").json()["data"]
    mask = np.zeros((listed[2]["height"], listed[2]["width"]), np.uint8)
    mask[4:9, 5:11] = 255
    approved = [
        {"candidate": listed[2]["candidate"], "at": AT, "mask": base64.b64encode(png(mask)).decode()},
        {"candidate": listed[0]["candidate"], "at": "2026-11-28T11:15:00+01:00"},
    ]
    formats = ["mvtec", "coco", "yolo", "labelstudio"]
    first = selection(service, client, job, approved, formats=formats)
    again = selection(service, client, job, approved, formats=formats)
    assert service.dataset(first) == service.dataset(again)

    before, after = entries(service.dataset(job)), entries(service.dataset(first))
    rows = [json.loads(line) for line in after["manifest.jsonl"].splitlines()]
    assert [row["candidate"] for row in rows] == [0, 1]
    assert [row["seed"] for row in rows] == [listed[0]["seed"], listed[2]["seed"]]
    by_ada = {"by": "Ada", "at": AT, "job_id": job}
    assert [row["review"] for row in rows] == [
        {**by_ada, "mask_touched_up": False, "candidate": listed[0]["candidate"]},
        {**by_ada, "mask_touched_up": True, "candidate": listed[2]["candidate"]},
    ]
    assert after["images/000001.png"] == before["images/000002.png"]
    assert after["masks/000000.png"] == before["masks/000000.png"]
    assert (np.asarray(picture(after["masks/000001.png"])) == mask).all()
    described = json.loads(after["dataset.json"])
    assert described["selection"]["job_id"] == job
    assert described["selection"]["by"] == "Ada"
    assert "A person has approved every pair" in after["README.md"].decode()
    assert "A person has approved every pair" not in before["README.md"].decode()
    assert described["counts"]["accepted"] == 2
    assert described["counts"]["rejected"]["not_approved"] == 1
    assert {"coco/instances_rle.json", "data.yaml", "labelstudio/tasks.json"} <= after.keys()
    assert any(name.startswith("mvtec/") and "/good/" in name for name in after)

    for name in (job, first):
        stored = sum(found.size for found in service.objects.list(object_keys.prefix(name)))
        assert service.record(name).stored_bytes == stored
    told = client.get(f"/jobs/{first}").json()
    assert told["dataset"]["bytes"] == len(service.dataset(first))
    assert httpx2.get(
        client.get(f"/jobs/{first}/dataset", params={"redirect": False}).json()["url"]
    ).content == service.dataset(first)
    assert client.get(f"/jobs/{first}/pairs").json()["total"] == 2


def test_a_selection_needs_no_adapter_and_its_pairs_can_be_selected_again(
    service: Service, client: httpx2.Client, job: str, adapter: str
) -> None:
    assert client.delete(f"/adapters/{adapter}").status_code == 204
    service.objects.delete_prefix(object_keys.prefix(adapter))
    listed = client.get(f"/jobs/{job}/pairs").json()["data"]
    approved = [{"candidate": pair["candidate"], "at": AT} for pair in listed]
    first = selection(service, client, job, approved[:2], formats=["mvtec"])
    second = selection(service, client, first, [{"candidate": 1, "at": AT}])
    files = entries(service.dataset(second))
    assert json.loads(files["dataset.json"])["selection"]["job_id"] == first
    review = json.loads(files["manifest.jsonl"])["review"]
    assert (review["job_id"], review["candidate"]) == (job, listed[1]["candidate"])
    assert client.get(f"/jobs/{job}/pairs/{listed[0]['candidate']}").json()["nearest_real"] is None
    assert client.get(f"/jobs/{job}/pairs/{listed[0]['candidate']}/good-part").status_code == 404


def test_a_selection_whose_worker_died_is_made_by_another_one(
    service: Service, client: httpx2.Client, job: str
) -> None:
    approved = [{"candidate": pair["candidate"], "at": AT} for pair in client.get(f"/jobs/{job}/pairs").json()["data"]]
    at_once = selection(service, client, job, approved)
    made = client.post(f"/jobs/{job}/selections", json={"reviewer": "Ada", "approved": approved}).json()["id"]
    assert service.store.claims.claim(made, "dead")
    wait_until(lambda: service.store.upkeep.reap(made) is State.QUEUED)
    run_generation(made, service.context())
    assert service.dataset(made) == service.dataset(at_once)


def test_a_selection_of_a_deleted_job_fails_with_the_reason(service: Service, client: httpx2.Client, job: str) -> None:
    candidate = client.get(f"/jobs/{job}/pairs").json()["data"][0]["candidate"]
    answer = client.post(f"/jobs/{job}/selections", json={"reviewer": "Ada", "approved": [{"candidate": candidate}]})
    service.objects.delete_prefix(object_keys.prefix(job))
    run_generation(answer.json()["id"], service.context())
    error = client.get(f"/jobs/{answer.json()['id']}").json()["error"]
    assert error["code"] == "unusable_input"
    assert "was deleted" in error["detail"]


def test_a_refused_selection_names_every_mistake_and_leaves_nothing(
    service: Service, client: httpx2.Client, job: str
) -> None:
    listed = client.get(f"/jobs/{job}/pairs").json()["data"]
    size = listed[0]["height"], listed[0]["width"]
    approved = [
        {"candidate": 99_999},
        {"candidate": listed[0]["candidate"], "mask": base64.b64encode(png(np.zeros(size, np.uint8))).decode()},
        {"candidate": listed[1]["candidate"], "mask": base64.b64encode(png(np.ones((2, 3), np.uint8))).decode()},
        {"candidate": listed[2]["candidate"], "mask": "no picture"},
        {"candidate": listed[0]["candidate"]},
    ]
    before = client.get("/jobs").json()["data"]
    refused = client.post(f"/jobs/{job}/selections", json={"reviewer": "Ada", "approved": approved})
    assert refused.status_code == 422
    told = {error["pointer"]: error["detail"] for error in refused.json()["errors"]}
    assert "not in the dataset" in told["/approved/0/candidate"]
    assert "empty" in told["/approved/1/mask"]
    assert "3 × 2 pixels" in told["/approved/2/mask"]
    assert "not base64 of a PNG" in told["/approved/3/mask"]
    assert "twice" in told["/approved/4/candidate"]
    assert client.get("/jobs").json()["data"] == before


def test_options_are_told_with_their_ranges_and_meaning(client: httpx2.Client) -> None:
    options = client.get("/options").json()
    assert Options.model_validate(options).max_num_pairs == 10_000
    methods = {method["name"]: method for method in options["methods"]}
    assert options["default_method"] in methods
    steps = next(option for option in methods["dualanodiff"]["training"] if option["name"] == "steps")
    assert steps["value_schema"] == {"type": "integer", "minimum": 0, "maximum": 100_000}
    assert "steps" in steps["help"]
    assert all(method["help"] for method in methods.values())
    assert [name for name in methods if methods[name]["several_types"]] == ["anomalydiffusion"]


def test_the_page_is_served_with_a_strict_policy(client: httpx2.Client) -> None:
    root = str(client.base_url).removesuffix("/v1/")
    page = httpx2.get(f"{root}/")
    assert page.headers["content-type"].startswith("text/html")
    assert "'unsafe" not in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert httpx2.get(f"{root}/", headers={"If-None-Match": page.headers["etag"]}).status_code == 304
    assert httpx2.get(f"{root}/page/vendor/pico.css").status_code == 200
    folder = Path("service/page").resolve()
    assert httpx2.get(f"{root}/page/..%2f..%2f{folder.parent.name}/main.py").status_code == 404


def test_a_time_is_written_out(service: Service, client: httpx2.Client, job: str) -> None:
    body = {"reviewer": "Ada", "approved": [{"candidate": 0, "at": 0}]}
    refused = client.post(f"/jobs/{job}/selections", json=body)
    assert refused.status_code == 422
    told = {error["pointer"]: error["detail"] for error in refused.json()["errors"]}
    assert "2026-11-28T10:15:00Z" in told["/approved/0/at"], told


@pytest.mark.parametrize("candidate", [False, "0", 0.5])
def test_a_candidate_is_a_whole_number(service: Service, client: httpx2.Client, job: str, candidate: object) -> None:
    refused = client.post(f"/jobs/{job}/selections", json={"reviewer": "Ada", "approved": [{"candidate": candidate}]})
    assert refused.status_code == 422
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/approved/0/candidate"]
