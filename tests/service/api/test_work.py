"""Too much work, or too many requests, are refused with the numbers; bases are known before they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx2
import pytest
from redis import Redis

from service.core.bases import BaseFacts, announce
from service.core.records.store import RecordStore
from service.core.settings import Settings
from tests.service.api.conftest import serving, trained
from tests.service.api.uploads import normals, pairs

TINY = BaseFacts(
    "tiny",
    64,
    8,
    training={"steps": 100, "batch": 2, "rank": 4},
    sampling={"steps": 10, "guidance_scale": 1.5},
    license="Apache-2.0",
)

with_a_model = pytest.mark.parametrize("method", ["dualanodiff", "anomalydiffusion"])


@pytest.fixture
def strict(settings: Settings, redis: Redis) -> Iterator[str]:
    """A server of its own limits, whose workers have announced a base."""
    announce(redis, TINY)
    limits = {
        "base": "tiny",
        "max_training_work": 100 * 2 * 64**2,
        "max_sampling_work": 20 * 10 * 64**2,
        "max_work_per_key": 3 * 100 * 2 * 64**2,
        "max_creates_per_minute_per_key": 6,
    }
    with serving(settings.model_copy(update=limits)) as url:
        yield url
    redis.delete("pairforge:bases")


def upload(client: httpx2.Client, **fields: object) -> httpx2.Response:
    data = {"name": "a", **{name: str(value) for name, value in fields.items()}}
    return client.post("/v1/adapters", data=data, files=[*pairs(), *normals()])


def test_bases_are_listed_with_what_they_recommend(strict: str, new_client: Callable[..., httpx2.Client]) -> None:
    assert new_client(strict).get("/v1/bases").json() == {
        "data": [
            {
                "name": "tiny",
                "default": True,
                "resolution": 64,
                "resolution_multiple": 8,
                "training": {"steps": 100, "batch": 2, "rank": 4},
                "sampling": {"steps": 10, "guidance_scale": 1.5},
                "recommended": {
                    "dualanodiff": {
                        "training": {"steps": 100, "batch": 2, "rank": 4},
                        "sampling": {"steps": 10, "guidance_scale": 1.5},
                    },
                    "anomalydiffusion": {"training": {"steps": 100, "batch": 2}, "sampling": {"steps": 10}},
                    "copy-paste": {"training": {}, "sampling": {}},
                    "perlin": {"training": {}, "sampling": {}},
                },
                "license": "Apache-2.0",
                "method": "dualanodiff",
            }
        ]
    }


def test_what_no_base_can_do_is_refused_when_it_is_asked(
    strict: str, new_client: Callable[..., httpx2.Client], store: RecordStore
) -> None:
    client = new_client(strict)
    answer = upload(client, base="huge")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/base")
    assert "choose one of tiny" in answer.json()["detail"]
    answer = upload(client, resolution=60)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/resolution")
    assert "multiple of 8, such as 56" in answer.json()["detail"]
    adapter = trained(client, store)
    answer = client.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 1, "scheduler": "euler"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/scheduler")
    assert "EulerDiscreteScheduler" in answer.json()["detail"]


@with_a_model
def test_too_much_work_is_refused_with_the_numbers(
    method: str, strict: str, new_client: Callable[..., httpx2.Client], store: RecordStore
) -> None:
    client = new_client(strict)
    answer = upload(client, method=method, steps=101)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/steps")
    assert "steps 101 × batch 2 × accumulate 1 × resolution² 4,096 = 827,392" in answer.json()["detail"]
    assert "limit of one request is 819,200" in answer.json()["detail"]
    adapter = trained(client, store, normals(), method=method)
    answer = client.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 3})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/num_pairs")
    assert "candidates 30 × steps 10" in answer.json()["detail"]
    assert client.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 2}).status_code == 202


def test_learning_to_draw_masks_is_work(strict: str, new_client: Callable[..., httpx2.Client]) -> None:
    client = new_client(strict)
    answer = upload(client, method="anomalydiffusion", steps=60, mask_generator_steps=41)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/steps")
    assert "steps and mask_generator_steps 101 × batch 2 × accumulate 1" in answer.json()["detail"]
    assert upload(client, method="anomalydiffusion", steps=60, mask_generator_steps=40).status_code == 202


@with_a_model
def test_a_key_has_a_quota_of_work_which_what_has_ended_frees(
    method: str, strict: str, new_client: Callable[..., httpx2.Client]
) -> None:
    client = new_client(strict)
    first, *_ = [upload(client, method=method).json()["id"] for _ in range(3)]
    answer = upload(client, method=method, steps=1)
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert "2,457,600" in answer.json()["detail"]
    client.post(f"/v1/adapters/{first}/cancel")
    assert upload(client).status_code == 202


def test_baselines_need_no_model_and_so_no_work(strict: str, new_client: Callable[..., httpx2.Client]) -> None:
    client = new_client(strict)
    for _ in range(4):
        assert upload(client, method="copy-paste").status_code == 202


def test_a_key_creates_only_so_many_per_minute(strict: str, new_client: Callable[..., httpx2.Client]) -> None:
    client, other = new_client(strict), new_client(strict)
    for _ in range(6):
        assert client.post("/v1/jobs", json={"adapter_id": f"adp_{'0' * 26}", "num_pairs": 1}).status_code == 404
    for answer in (client.post("/v1/jobs", json={"adapter_id": f"adp_{'0' * 26}", "num_pairs": 1}), upload(client)):
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 10
    assert upload(other).status_code == 202


def test_the_position_in_the_queue_is_never_unknown_to_who_creates(client: httpx2.Client, store: RecordStore) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.post("/v1/adapters", data={"name": "a"}, files=pairs(), headers=headers).json()
    assert first["queue_position"] >= 0
    store.claims.claim(first["id"], "worker")
    again = client.post("/v1/adapters", data={"name": "a"}, files=pairs(), headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    assert again.json()["queue_position"] == 0
    now = client.get(again.headers["location"])
    assert now.json()["queue_position"] is None
    assert now.headers["etag"] != again.headers["etag"]
