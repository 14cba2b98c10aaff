from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpx2
import pytest

from service.core import object_keys
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.service.api.conftest import finished_job, serving, trained
from tests.service.api.uploads import pairs
from tests.support.waiting import wait_until

FORM = {"name": "scratches / deep"}


def adapter_of(client: httpx2.Client) -> str:
    answer = client.post("/v1/adapters", data=FORM, files=pairs())
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_what_belongs_to_another_key_is_not_there(
    client: httpx2.Client, new_client: Callable[..., httpx2.Client], store: RecordStore, storage: ObjectStore
) -> None:
    job = finished_job(client, store, storage)
    adapter = client.get(f"/v1/jobs/{job}").json()["adapter_id"]
    stranger = new_client()
    calls = [("GET", f"/v1/jobs/{job}{part}") for part in ("", "/events", "/dataset", "/preview")]
    calls += [("GET", f"/v1/adapters/{adapter}{part}") for part in ("", "/events", "/samples/5", "/artifact")]
    for resource in (f"/v1/jobs/{job}", f"/v1/adapters/{adapter}"):
        calls += [("POST", f"{resource}/cancel"), ("DELETE", resource)]
    for method, path in calls:
        assert stranger.request(method, path).status_code == 404, path
    asked = stranger.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 2})
    assert asked.status_code == 404
    assert stranger.get("/v1/adapters").json() == {"data": [], "next_cursor": None}
    assert client.get(f"/v1/jobs/{job}").status_code == 200


def test_a_key_is_needed_and_either_header_carries_it(address: str, client: httpx2.Client) -> None:
    key = client.headers["authorization"].removeprefix("Bearer ")
    for headers in ({}, {"Authorization": "Bearer pf_x_y"}, {"X-API-Key": key[:-1]}, {"Authorization": "Basic eDp5"}):
        answer = httpx2.get(f"{address}/v1/jobs", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx2.get(f"{address}/v1/jobs", headers={"X-API-Key": key}).status_code == 200
    assert httpx2.get(f"{address}/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200


@pytest.fixture(scope="module")
def keyless(settings: Settings) -> Iterator[str]:
    with serving(settings.model_copy(update={"require_keys": False})) as url:
        yield url


@pytest.mark.parametrize("host", ["127.0.0.1:{}", "localhost:{}", "LocalHost", "[::1]:{}", "127.8.9.1"])
def test_no_key_is_needed_where_the_settings_say_so(keyless: str, host: str) -> None:
    host = host.format(keyless.rpartition(":")[2])
    for own in ({}, {"Origin": f"http://{host}"}):
        assert httpx2.get(f"{keyless}/v1/jobs", headers={"Host": host, **own}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:{}", "localhost.evil.example", "127.0.0.1.evil.example", "[", "", "10.0.0.1"]
)
def test_without_keys_no_name_but_this_machines_is_served(keyless: str, host: str) -> None:
    answer = httpx2.get(f"{keyless}/v1/jobs", headers={"Host": host.format(keyless.rpartition(":")[2])})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
def test_without_keys_no_other_sites_pages_are_served(keyless: str, origin: str) -> None:
    answer = httpx2.post(f"{keyless}/v1/adapters", data={"name": "a"}, files=pairs(), headers={"Origin": origin})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_lists_are_read_page_by_page_and_by_state(client: httpx2.Client) -> None:
    made = [adapter_of(client) for _ in range(5)]
    client.post(f"/v1/adapters/{made[2]}/cancel")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = client.get("/v1/adapters", params={"limit": 2, **({"after": cursor} if cursor else {})}).json()
        seen += [adapter["id"] for adapter in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(made, reverse=True)
    assert [one["id"] for one in client.get("/v1/adapters?state=cancelled").json()["data"]] == [made[2]]
    for query in ("limit=0", "limit=1000", "state=lost", "after=x", f"after=job_{'0' * 26}"):
        answer = client.get(f"/v1/adapters?{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["errors"][0]["parameter"] == query.split("=")[0]


def test_a_cursor_of_adapters_is_none_of_jobs(client: httpx2.Client) -> None:
    answer = client.get(f"/v1/jobs?after=adp_{'0' * 26}")
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "after")


def test_an_unchanged_record_is_not_sent_again(client: httpx2.Client, store: RecordStore) -> None:
    adapter = trained(client, store)
    first = client.get(f"/v1/adapters/{adapter}")
    again = client.get(f"/v1/adapters/{adapter}", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


def test_progress_makes_a_record_new(client: httpx2.Client, store: RecordStore) -> None:
    adapter = adapter_of(client)
    queued = client.get(f"/v1/adapters/{adapter}")
    store.claims.claim(adapter, "worker")
    progress = {"stage": "train", "completed": 5, "total": 10, "unit": "step", "rate": 2.0, "eta": 2.5}
    store.claims.report(adapter, "worker", {**progress, "request": {"training": {"rank": 4}}})
    store.claims.save_checkpoint(
        adapter, "worker", {"step": 5, "samples": {"5": "sheet"}, "loss": [[1, 0.5], [5, 0.25]]}
    )
    running = client.get(f"/v1/adapters/{adapter}", headers={"If-None-Match": queued.headers["etag"]})
    assert running.status_code == 200
    body = running.json()
    assert body["progress"] == progress
    assert body["request"]["training"]["rank"] == 4
    assert body["request"]["training"]["seed"] == queued.json()["request"]["training"]["seed"]
    assert body["loss"] == [[1, 0.5], [5, 0.25]]
    assert body["samples"] == [{"step": 5, "link": f"/v1/adapters/{adapter}/samples/5"}]
    assert body["queue_position"] is None
    assert body["timestamps"].keys() == {"queued", "running"}
    for text in (body["created_at"], *body["timestamps"].values()):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
        assert datetime.fromisoformat(text).utcoffset() is not None


def test_cancelling_is_immediate_while_queued_and_asked_for_while_running(
    client: httpx2.Client, store: RecordStore
) -> None:
    queued, running = adapter_of(client), adapter_of(client)
    store.claims.claim(running, "worker")
    answer = client.post(f"/v1/adapters/{queued}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert client.post(f"/v1/adapters/{queued}/cancel").status_code == 200
    answer = client.post(f"/v1/adapters/{running}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    done = trained(client, store)
    answer = client.post(f"/v1/adapters/{done}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "already_finished")


def test_what_was_cancelled_or_deleted_is_freed(
    client: httpx2.Client, store: RecordStore, storage: ObjectStore, settings: Settings
) -> None:
    cancelled, deleted = adapter_of(client), trained(client, store)
    client.post(f"/v1/adapters/{cancelled}/cancel")
    assert client.delete(f"/v1/adapters/{deleted}").status_code == 204
    assert client.get(f"/v1/adapters/{deleted}").status_code == 404
    wait_until(lambda: not any(storage.list(object_keys.prefix(one)) for one in (cancelled, deleted)))


def test_only_what_has_finished_and_is_not_in_use_can_be_deleted(client: httpx2.Client, store: RecordStore) -> None:
    waiting = adapter_of(client)
    answer = client.delete(f"/v1/adapters/{waiting}")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_finished")
    adapter = trained(client, store)
    job = client.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 2}).json()["id"]
    answer = client.delete(f"/v1/adapters/{adapter}")
    assert (answer.status_code, answer.json()["code"]) == (409, "adapter_in_use")
    assert job in answer.json()["detail"]
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.delete(f"/v1/adapters/{adapter}").status_code == 204


def test_of_many_who_delete_at_once_one_does_and_the_others_find_nothing(client: httpx2.Client) -> None:
    for _ in range(5):
        adapter = adapter_of(client)
        client.post(f"/v1/adapters/{adapter}/cancel")
        with ThreadPoolExecutor(6) as pool:
            found = [pool.submit(client.delete, f"/v1/adapters/{adapter}") for _ in range(6)]
        assert sorted(each.result().status_code for each in found) == [204, *[404] * 5]


def test_a_dataset_is_downloaded_by_a_signed_link(
    client: httpx2.Client, store: RecordStore, storage: ObjectStore
) -> None:
    job = finished_job(client, store, storage)
    answer = client.get(f"/v1/jobs/{job}/dataset")
    assert answer.status_code == 303
    download = httpx2.get(answer.headers["location"])
    assert (download.status_code, download.content) == (200, b"zip")
    assert download.headers["content-disposition"] == f'attachment; filename="scratches-{job}.zip"'
    assert download.headers["content-type"] == "application/zip"
    preview = httpx2.get(client.get(f"/v1/jobs/{job}/preview").headers["location"])
    assert (preview.content, preview.headers["content-type"]) == (b"png", "image/png")
    body = client.get(f"/v1/jobs/{job}").json()
    assert body["dataset"] == {"name": f"scratches-{job}.zip", "bytes": 3, "sha256": "0" * 64}
    assert body["counts"] == {"accepted": 2, "rejected": {"empty": 1}, "attempts": 3}


def test_an_adapter_shows_its_card_samples_and_files(
    client: httpx2.Client, store: RecordStore, storage: ObjectStore
) -> None:
    adapter = trained(client, store)
    storage.put(object_keys.sample(adapter, 5, "worker"), b"sheet", "image/png")
    storage.put(object_keys.artifact(adapter, "worker") + "masks/card.json", b"{}", "application/json")
    body = client.get(f"/v1/adapters/{adapter}").json()
    assert body["card"] == {"version": "1"}
    sheet = client.get(body["samples"][0]["link"])
    assert httpx2.get(sheet.headers["location"]).content == b"sheet"
    assert client.get(f"/v1/adapters/{adapter}/samples/6").status_code == 404
    [file] = client.get(body["links"]["artifact"]).json()["files"]
    assert (file["name"], file["bytes"]) == ("masks/card.json", 2)
    assert httpx2.get(file["url"]).content == b"{}"


@pytest.mark.parametrize("part", ["dataset", "preview"])
def test_there_is_no_result_before_the_end(client: httpx2.Client, store: RecordStore, part: str) -> None:
    job = client.post("/v1/jobs", json={"adapter_id": trained(client, store), "num_pairs": 2}).json()["id"]
    answer = client.get(f"/v1/jobs/{job}/{part}")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_finished")
    assert int(answer.headers["retry-after"]) > 0
    client.post(f"/v1/jobs/{job}/cancel")
    answer = client.get(f"/v1/jobs/{job}/{part}")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_result")
