from __future__ import annotations

import json
import resource
from collections.abc import Callable

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api import problems
from service.api.metrics import Metrics
from service.api.request_log import Observed
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.main import create_app
from tests.service.api.conftest import serving, trained
from tests.service.api.uploads import pairs

FRAMEWORK = {
    "an unknown path": ("GET", "/v1/nothing", {}, 404, "not_found"),
    "a trailing slash": ("GET", "/v1/jobs/", {}, 404, "not_found"),
    "a wrong method": ("PUT", "/v1/jobs", {}, 405, "method_not_allowed"),
    "a wrong value": ("GET", "/v1/jobs?limit=x", {}, 422, "invalid_request"),
    "a large body": ("POST", "/v1/jobs", {"content": bytes(17_000_000)}, 413, "content_too_large"),
    "a large body of unknown length": (
        "POST",
        "/v1/jobs",
        {"content": (bytes(1_000_000) for _ in range(17))},
        413,
        "content_too_large",
    ),
}


@pytest.mark.parametrize("case", FRAMEWORK)
def test_the_frameworks_errors_are_problems_too(client: httpx2.Client, case: str) -> None:
    method, path, options, status, code = FRAMEWORK[case]
    answer = client.request(method, path, **options)
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["instance"] == path.partition("?")[0]
    assert body.keys() >= {"type", "title", "detail"}


def test_of_very_many_mistakes_the_first_are_listed(client: httpx2.Client) -> None:
    answer = client.post("/v1/jobs", json={f"k{number}": 1 for number in range(4_000)})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == problems.LISTED + 1
    assert answer.json()["errors"][-1] == {"detail": "and 3,902 more"}  # 4,000 unknown and 2 missing
    assert len(answer.content) < 20_000


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/jobs", "GET, HEAD, POST"),
        ("/jobs", "GET, HEAD, POST"),
        ("/v1/jobs/x", "DELETE, GET, HEAD"),
        ("/v1/adapters/x/cancel", "POST"),
        ("/v1/adapters/x/events", "GET"),
        ("/healthz", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
    ],
)
def test_an_address_tells_all_methods_that_it_takes(client: httpx2.Client, path: str, methods: str) -> None:
    answer = client.put(path)
    assert answer.status_code == 405
    assert ", ".join(sorted(answer.headers["allow"].split(", "))) == methods


def test_a_head_is_answered_like_a_get_without_its_body(client: httpx2.Client, store: RecordStore) -> None:
    adapter = f"/v1/adapters/{trained(client, store)}"
    for path in ("/healthz", "/v1/jobs", "/adapters", adapter, f"/v1/jobs/job_{'0' * 26}"):
        asked, told = client.get(path), client.head(path)
        assert (told.status_code, told.content) == (asked.status_code, b"")
        assert told.headers["content-length"] == asked.headers["content-length"]
    etag = {"If-None-Match": client.get(adapter).headers["etag"]}
    assert client.head(adapter, headers=etag).status_code == 304


@pytest.mark.parametrize("media_type", [None, "application/x-www-form-urlencoded", "text/json", "application/jsonp"])
def test_a_job_is_asked_for_in_json(client: httpx2.Client, media_type: str | None) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    answer = client.post("/v1/jobs", content=b'{"num_pairs": 2}', headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (415, "send the request as application/json")


@pytest.mark.parametrize("body", [b"", b"[]", b"null"])
def test_what_is_wrong_with_all_of_a_body_is_said_of_the_body(client: httpx2.Client, body: bytes) -> None:
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("the body: ")


def test_what_was_sent_is_not_echoed_at_length(client: httpx2.Client) -> None:
    body = f'{{"adapter_id": "adp_{"0" * 26}", "num_pairs": {"9" * 4_000}, "{"k" * 50_000}": 1}}'.encode()
    valid = f'{{"adapter_id": "adp_{"0" * 26}", "num_pairs": {"9" * 4_000}}}'.encode()
    for sent, most in ((body, 10_000), (valid, 1_000)):
        answer = client.post("/v1/jobs", content=sent, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert len(answer.content) < most
    assert len(client.get(f"/v1/{'x' * 50_000}").content) < 5_000


def test_a_fault_of_ours_tells_nothing_of_our_inside() -> None:
    app = FastAPI()
    app.add_middleware(Observed, metrics=Metrics(Settings()))
    problems.install(app)

    @app.get("/")
    def fail() -> None:
        raise ZeroDivisionError("secret")

    answer = TestClient(app, raise_server_exceptions=False).get("/")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert "secret" not in answer.text
    assert "ZeroDivision" not in answer.text


def test_pointers_are_escaped() -> None:
    assert problems.pointer("a/b", 0, "~c") == "/a~1b/0/~0c"


def test_without_redis_or_storage_the_answer_is_503_and_when_to_come_back(
    settings: Settings, new_client: Callable[..., httpx2.Client]
) -> None:
    deaf = "http://127.0.0.1:9"
    with serving(settings.model_copy(update={"s3_endpoint_url": deaf})) as url:
        client = new_client(url)
        assert client.get("/readyz").json()["storage"] is False
        answer = client.post("/v1/adapters", data={"name": "a"}, files=pairs())
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
    with serving(settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0", "require_keys": False})) as url:
        answer = httpx2.get(f"{url}/v1/jobs/job_{'0' * 26}", timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        ready = httpx2.get(f"{url}/readyz", timeout=30)
        assert (ready.status_code, ready.json()["redis"]) == (503, False)
        assert httpx2.get(f"{url}/healthz").status_code == 200


def test_a_spool_without_room_is_told_and_left_empty(client: httpx2.Client, settings: Settings) -> None:
    """A limit on the size of files stands in the way of writes as a full disk does."""
    assert settings.spool_dir is not None
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        answer = client.post("/v1/adapters", data={"name": "a"}, files=pairs())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (answer.status_code, answer.json()["code"]) == (507, "spool_full")
    assert int(answer.headers["retry-after"]) > 0
    assert list(settings.spool_dir.iterdir()) == []


def test_every_operation_documents_its_problems(settings: Settings) -> None:
    document = create_app(settings).openapi()
    assert json.loads(json.dumps(document)) == document
    operations = {
        operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()
    }
    assert {"create_adapter", "list_adapters", "get_job", "cancel_job", "get_job_dataset"} <= operations.keys()
    for name, operation in operations.items():
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and name != "get_readiness":
                assert list(answer["content"]) == [problems.MEDIA_TYPE], (name, status)
    assert all(path.startswith("/v1/") or path in {"/healthz", "/readyz", "/metrics"} for path in document["paths"])
