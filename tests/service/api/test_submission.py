from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx2
import pytest
from redis import Redis

from service.core import object_keys
from service.core.messaging import pending_ids
from service.core.object_keys import Kind
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.service.api.conftest import serving, trained
from tests.service.api.uploads import pairs

FORM = {"name": "scratches"}


def test_an_accepted_request_has_a_record_and_a_message(client: httpx2.Client, redis: Redis) -> None:
    answer = client.post("/v1/adapters", data=FORM, files=pairs())
    adapter = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/adapters/{adapter['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert (adapter["state"], adapter["name"]) == ("queued", "scratches")
    assert isinstance(adapter["request"]["training"]["seed"], int)
    assert adapter["request"]["base"] == "mini"
    assert adapter["id"] in pending_ids(redis)
    assert client.get(answer.headers["location"]).json()["id"] == adapter["id"]


def test_a_job_needs_an_adapter_that_is_trained(client: httpx2.Client, store: RecordStore) -> None:
    untrained = client.post("/v1/adapters", data=FORM, files=pairs()).json()["id"]
    early = client.post("/v1/jobs", json={"adapter_id": untrained, "num_pairs": 3})
    assert (early.status_code, early.json()["code"]) == (409, "adapter_not_ready")
    missing = client.post("/v1/jobs", json={"adapter_id": object_keys.new_id(Kind.ADAPTER), "num_pairs": 3})
    assert (missing.status_code, missing.json()["code"]) == (404, "adapter_not_found")
    adapter = trained(client, store)
    answer = client.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 3})
    job = answer.json()
    assert answer.status_code == 202, answer.text
    assert job["state"] == "queued"
    assert job["queue_position"] >= 0
    assert isinstance(job["request"]["seed"], int)


@pytest.mark.parametrize("what", ["adapters", "jobs"])
def test_twenty_equal_requests_at_once_make_one(
    client: httpx2.Client, store: RecordStore, storage: ObjectStore, what: str
) -> None:
    headers = {"Idempotency-Key": f"race-{what}"}
    parts = pairs()
    if what == "jobs":
        body = {"adapter_id": trained(client, store), "num_pairs": 3}
    before = {entry.key for entry in storage.list("adapters/")}

    def send(_: int) -> httpx2.Response:
        if what == "adapters":
            return client.post("/v1/adapters", data=FORM, files=parts, headers=headers)
        return client.post("/v1/jobs", json=body, headers=headers)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    if what == "adapters":
        assert len({entry.key for entry in storage.list("adapters/")} - before) == len(parts) + 1


def test_an_idempotency_key_is_for_one_request(client: httpx2.Client, new_client: Callable[..., httpx2.Client]) -> None:
    headers = {"Idempotency-Key": "one"}
    first = client.post("/v1/adapters", data=FORM, files=pairs(), headers=headers)
    again = client.post("/v1/adapters", data=FORM, files=list(reversed(pairs())), headers=headers)
    assert again.status_code == 202
    assert again.json()["id"] != ""
    assert again.json()["id"] == first.json()["id"]
    for other in (
        client.post("/v1/adapters", data={"name": "others"}, files=pairs(), headers=headers),
        client.post("/v1/adapters", data=FORM, files=pairs(2, offset=5), headers=headers),
    ):
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    someone = new_client().post("/v1/adapters", data=FORM, files=pairs(), headers=headers)
    assert someone.status_code == 202
    assert someone.json()["id"] != first.json()["id"]


def test_a_refused_request_does_not_use_up_its_idempotency_key(client: httpx2.Client) -> None:
    headers = {"Idempotency-Key": "mended"}
    assert client.post("/v1/adapters", data=FORM, headers=headers, files=pairs(1)).status_code == 422
    assert client.post("/v1/adapters", data=FORM, headers=headers, files=pairs()).status_code == 202


def test_quotas_refuse_and_leave_nothing_stored(
    new_client: Callable[..., httpx2.Client], settings: Settings, storage: ObjectStore
) -> None:
    for quota in ({"max_active_per_key": 1}, {"max_stored_bytes_per_key": 10_000}):
        with serving(settings.model_copy(update=quota)) as url:
            client = new_client(url)
            assert client.post("/v1/adapters", data=FORM, files=pairs()).status_code == 202
            before = {entry.key for entry in storage.list("")}
            answer = client.post("/v1/adapters", data=FORM, files=pairs())
            assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
            assert {entry.key for entry in storage.list("")} <= before


BAD_JOBS = {
    "no pairs": ({"num_pairs": 0}, "/num_pairs"),
    "too many pairs": ({"num_pairs": 1_000_000}, "/num_pairs"),
    "a wrong type": ({"num_pairs": "many"}, "/num_pairs"),
    "an unknown field": ({"pairs": 3}, "/pairs"),
    "an unknown format": ({"formats": ["voc"]}, "/formats/0"),
    "a bad limit": ({"limits": {"full_area": 2}}, "/limits/full_area"),
    "no adapter's id": ({"adapter_id": "../x"}, "/adapter_id"),
}


@pytest.mark.parametrize("case", BAD_JOBS)
def test_a_bad_job_is_refused_with_a_pointer(client: httpx2.Client, case: str) -> None:
    changes, pointer = BAD_JOBS[case]
    body = {"adapter_id": object_keys.new_id(Kind.ADAPTER), "num_pairs": 3, **changes}
    answer = client.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 60_000, b'{"num_pairs": NaN}', b'{"num_pairs": ' + b"9" * 5000 + b"}", b'"\xff"', b"null"],
    ids=["empty", "cut off", "deep", "NaN", "a long number", "no UTF-8", "null"],
)
def test_no_body_is_too_odd_to_be_refused(client: httpx2.Client, body: bytes) -> None:
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


def test_at_its_quota_a_key_is_refused_before_its_upload_is_received(
    settings: Settings, new_client: Callable[..., httpx2.Client]
) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 100_000
            yield bytes(100_000)

    with serving(settings.model_copy(update={"max_active_per_key": 1})) as url:
        client = new_client(url)
        again = {"Idempotency-Key": "first"}
        first = client.post("/v1/adapters", data={"name": "a"}, files=pairs(), headers=again)
        assert first.status_code == 202
        # Not what makes no record: the first answer may have been lost.
        replay = client.post("/v1/adapters", data={"name": "a"}, files=pairs(), headers=again)
        assert (replay.status_code, replay.json()["id"]) == (202, first.json()["id"])
        with suppress(httpx2.WriteError, httpx2.ReadError, httpx2.RemoteProtocolError):  # closed while we were sending
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            answer = client.post("/v1/adapters", content=body(), headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert sent < 100_000_000
