"""What a client surely did not mean is refused, in words that say what is right."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from redis import Redis

from service.core import api_keys, object_keys
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.service.api.conftest import finished_job, serving, trained
from tests.service.api.uploads import pairs, part

JOB = {"adapter_id": f"adp_{'0' * 26}", "num_pairs": 2}

WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "true is no number": ({"num_pairs": True}, "/num_pairs", "it is true, which is no number"),
    "text is no number": ({"steps": "4"}, "/steps", "it is text; send it without quotes"),
    "a number is no truth": ({"anchored": 1.5}, "/anchored", "it must be true or false"),
    "in nested options": ({"limits": {"ring": False}}, "/limits/ring", "it is false, which is no number"),
    "an evaluation by its profile alone": (
        {"evaluation": "quick"},
        "/evaluation",
        'it must be an object such as {"profile": "quick", "seeds": 3}',
    ),
    "an evaluation switched on": (
        {"evaluation": True},
        "/evaluation",
        'it must be an object such as {"profile": "quick", "seeds": 3}',
    ),
    "a list is no text": ({"formats": "coco"}, "/formats", "it must be a list"),
    "limits are an object": ({"limits": "loose"}, "/limits", "it must be an object with names and values"),
    "truth is no list": ({"placements": True}, "/placements", "it must be a list"),
    "in an evaluation": ({"evaluation": {"seeds": True}}, "/evaluation/seeds", "it must be a whole number"),
    "too few": ({"num_pairs": 0}, "/num_pairs", "it must be at least 1"),
    "no such field": ({"pairs": 3}, "/pairs", "there is no such field"),
    "no such choice": ({"mask_method": "magic"}, "/mask_method", "it must be 'u2net', 'attention' or 'threshold'"),
    "metadata are texts": ({"metadata": {"line": 3}}, "/metadata/line", "it must be text"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_in_a_job_is_named_in_plain_words(client: httpx2.Client, case: str) -> None:
    changes, pointer, detail = WRONG[case]
    answer = client.post("/v1/jobs", json={**JOB, **changes})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": pointer, "detail": detail}]


def test_a_body_that_is_no_json_is_answered_with_an_example(client: httpx2.Client) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/jobs", content=b'{"num_pairs": 2,}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "it is not JSON (" in answer.json()["detail"]
    assert '"num_pairs": 8' in answer.json()["detail"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_finite_number_is_refused_wherever_it_is_sent(client: httpx2.Client, number: str) -> None:
    body = f'{{"adapter_id": "adp_{"0" * 26}", "num_pairs": 2, "limits": {{"min_visibility": {number}}}}}'
    answer = client.post("/v1/jobs", content=body.encode(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    for field in ({"lr": number}, {"training": f'{{"lr": {number}}}'}, {"metadata": f'{{"line": {number}}}'}):
        answer = client.post("/v1/adapters", data={"name": "a", **field}, files=pairs())
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_forgotten_at_sign_is_recognised(client: httpx2.Client) -> None:
    masks = [each for each in pairs() if each[0] == "masks[]"]
    answer = client.post("/v1/adapters", data={"name": "a", "images[]": "scratch.png"}, files=masks)
    assert answer.status_code == 422
    mistake = next(error for error in answer.json()["errors"] if error["pointer"] == "/images[]")
    assert "write an @ before the file's name, as in -F 'images[]=@scratch.png'" in mistake["detail"]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/adapters", "/v1/bases", "/jobs"])
def test_unknown_query_parameters_are_refused(client: httpx2.Client, path: str) -> None:
    answer = client.get(f"{path}?status=failed&page=2")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert [error["parameter"] for error in answer.json()["errors"]] == ["status", "page"]


def test_a_parameter_counts_once(client: httpx2.Client) -> None:
    answer = client.get("/v1/jobs?state=failed&state=queued")
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "state")


def test_a_stranger_is_sent_away_before_anything_is_read(address: str) -> None:
    for path, body in (("/v1/jobs", b"no json"), ("/v1/jobs?x=1", b"{}"), ("/v1/adapters", b"no form")):
        answer = httpx2.post(f"{address}{path}", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_two_host_headers_are_refused(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nHost: other\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_metadata_come_back_as_they_were_sent(client: httpx2.Client, store: RecordStore) -> None:
    mine = {"line": "3", "auftrag": "A-17 ü"}
    adapter = client.post("/v1/adapters", data={"name": "a", "metadata": json.dumps(mine)}, files=pairs()).json()
    assert adapter["metadata"] == mine
    assert client.get("/v1/adapters").json()["data"][0]["metadata"] == mine
    job = client.post("/v1/jobs", json={"adapter_id": trained(client, store), "num_pairs": 2, "metadata": mine}).json()
    assert client.get(f"/v1/jobs/{job['id']}").json()["metadata"] == mine
    answer = client.post("/v1/adapters", data={"name": "a", "metadata": "line 3"}, files=pairs())
    assert 'such as {"line": "3"}' in answer.json()["detail"]


def test_training_options_go_in_as_they_come_out(client: httpx2.Client) -> None:
    first = client.post("/v1/adapters", data={"name": "a", "steps": "7", "seed": "3"}, files=pairs()).json()
    shown = first["request"]["training"]
    assert (shown["steps"], shown["seed"]) == (7, 3)
    again = client.post("/v1/adapters", data={"name": "a", "training": json.dumps(shown)}, files=pairs()).json()
    assert again["request"]["training"] == shown
    answer = client.post("/v1/adapters", data={"name": "a", "training": '{"steps": 7}', "steps": "8"}, files=pairs())
    assert answer.json()["errors"] == [{"pointer": "/steps", "detail": "steps is given twice: give it once"}]


def test_who_repeats_a_request_is_told_so(client: httpx2.Client) -> None:
    def send() -> httpx2.Response:
        headers = {"Idempotency-Key": "again"}
        return client.post("/v1/adapters", data={"name": "a"}, files=pairs(), headers=headers)

    first, second = send(), send()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert first.json()["id"] == second.json()["id"]


def test_a_link_to_the_dataset_comes_as_json_on_request(
    client: httpx2.Client, store: RecordStore, storage: ObjectStore
) -> None:
    job = finished_job(client, store, storage)
    link = client.get(f"/v1/jobs/{job}/dataset?redirect=false").json()
    assert (link["name"], link["bytes"], link["sha256"]) == (f"scratches-{job}.zip", 3, "0" * 64)
    assert httpx2.get(link["url"]).content == b"zip"
    assert httpx2.get(link["url"], headers={"Range": "bytes=1-2"}).content == b"ip"


def test_pictures_are_linked_with_their_hashes_too(
    client: httpx2.Client, store: RecordStore, storage: ObjectStore
) -> None:
    job = finished_job(client, store, storage)
    adapter = client.get(f"/v1/jobs/{job}").json()["adapter_id"]
    storage.put(object_keys.sample(adapter, 5, "worker"), b"sheet", "image/png")
    for path, name, content in (
        (f"/v1/jobs/{job}/preview", f"{job}-preview.png", b"png"),
        (f"/v1/adapters/{adapter}/samples/5", f"{adapter}-5.png", b"sheet"),
    ):
        link = client.get(f"{path}?redirect=false").json()
        assert (link["name"], link["bytes"]) == (name, len(content))
        assert link["sha256"] == hashlib.sha256(content).hexdigest()


def test_links_lead_to_what_can_be_done(client: httpx2.Client, store: RecordStore, storage: ObjectStore) -> None:
    done = client.get(f"/v1/jobs/{finished_job(client, store, storage)}").json()["links"]
    assert done.keys() == {"self", "events", "adapter", "pairs", "dataset", "preview", "selections"}
    waiting = client.post("/v1/jobs", json={"adapter_id": trained(client, store), "num_pairs": 2}).json()["links"]
    assert waiting.keys() == {"self", "events", "adapter", "pairs", "cancel"}
    cancelled = client.post(waiting["cancel"]).json()["links"]
    assert cancelled.keys() == {"self", "events", "adapter"}
    adapter = client.get(done["adapter"]).json()["links"]
    assert adapter.keys() == {"self", "events", "artifact"}


def test_a_head_of_a_dataset_can_be_followed(client: httpx2.Client, store: RecordStore, storage: ObjectStore) -> None:
    job = finished_job(client, store, storage)
    answer = httpx2.head(client.head(f"/v1/jobs/{job}/dataset").headers["location"])
    assert (answer.status_code, answer.headers["content-length"]) == (200, "3")


def test_files_of_an_adapter_have_their_hashes(client: httpx2.Client, store: RecordStore) -> None:
    (file,) = client.get(f"/v1/adapters/{trained(client, store)}/artifact").json()["files"]
    assert (file["name"], file["sha256"]) == ("masks/card.json", "0" * 64)


def test_a_key_that_may_only_read_changes_nothing(
    address: str, redis: Redis, client: httpx2.Client, new_client: Callable[..., httpx2.Client]
) -> None:
    headers = {"X-API-Key": api_keys.create_key(redis, "reader", read_only=True)}
    assert httpx2.get(f"{address}/v1/adapters", headers=headers).status_code == 200
    for method, path in (("POST", "/v1/jobs"), ("POST", "/v1/adapters"), ("DELETE", f"/v1/jobs/job_{'0' * 26}")):
        answer = httpx2.request(method, f"{address}{path}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "read_only_key")


def test_pages_of_other_addresses_may_be_allowed(settings: Settings, new_client: Callable[..., httpx2.Client]) -> None:
    friend, stranger = {"Origin": "https://line.example"}, {"Origin": "https://evil.example"}
    asking = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,idempotency-key",
    }
    with serving(settings.model_copy(update={"cors_origins": "https://line.example, https://b.example"})) as url:
        client = new_client(url)
        answer = client.get("/v1/jobs", headers=friend)
        assert answer.headers["access-control-allow-origin"] == "https://line.example"
        assert "Location" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-origin" not in client.get("/v1/jobs", headers=stranger).headers
        assert httpx2.options(f"{url}/v1/jobs", headers={**friend, **asking}).status_code == 200
        assert httpx2.options(f"{url}/v1/jobs", headers={**stranger, **asking}).status_code == 400


def test_unreadable_form_fields_are_all_named(client: httpx2.Client) -> None:
    data = {"name": "a", "steps": "many", "flip_vertical": "perhaps", "lr": "-1", "stepz": "3"}
    answer = client.post("/v1/adapters", data=data, files=[*pairs(), part("normals", "good.png", b"nothing")])
    details = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert details["/steps"] == "steps: it must be a whole number"
    assert details["/flip_vertical"] == "flip_vertical: it must be true or false"
    assert details["/lr"] == "lr: it must be above 0"
    assert details["/stepz"] == "stepz: there is no such field"
    assert "/normals/0" in details
