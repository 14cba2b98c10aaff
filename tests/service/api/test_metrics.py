"""What the API tells Prometheus."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from service.core import api_keys, object_keys
from service.core.object_keys import Kind
from service.core.record import State
from service.core.records.store import RecordStore
from service.core.settings import Settings
from tests.service.api.conftest import serving, trained
from tests.service.api.uploads import pairs
from tests.support.scraping import SHARED_FAMILIES, Scraped, scrape
from tests.support.servers import MakeSettings, RedisServer

FAMILIES = {
    "http_requests": "counter",
    "http_request_duration_seconds": "histogram",
    "http_requests_in_progress": "gauge",
    "records": "gauge",
    "oldest_queued_seconds": "gauge",
    "queue_messages": "gauge",
    "unacknowledged_messages": "gauge",
    "workers": "gauge",
    "records_submitted": "counter",
    "uploads_refused": "counter",
    "reconciled_timestamp_seconds": "gauge",
    "redis_up": "gauge",
    "redis_memory_bytes": "gauge",
    "redis_memory_max_bytes": "gauge",
    "redis_aof_last_write_ok": "gauge",
    "redis_aof_last_rewrite_ok": "gauge",
    **SHARED_FAMILIES,
}


@pytest.fixture
def own(server_settings: MakeSettings, tmp_path: Path) -> Settings:
    """Settings for servers of the test's own."""
    return server_settings(spool_dir=tmp_path / "spool", reconcile_seconds=0.2, revision="0123abc")


@pytest.fixture
def client(own: Settings, redis_client: Redis) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {api_keys.create_key(redis_client, 'test')}"}
    with serving(own) as url, httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


def told(client: httpx2.Client) -> Scraped:
    return scrape(f"{client.base_url}/metrics")


def test_requests_count_by_route(client: httpx2.Client) -> None:
    adapter = client.post("/v1/adapters", data={"name": "a"}, files=pairs()).json()["id"]
    client.get(f"/v1/adapters/{adapter}")
    client.get("/nowhere")
    client.request("PROPFIND", "/nowhere")
    found = told(client)
    assert found.value("http_requests_total", method="POST", route="/adapters", status="202") == 1
    assert found.value("http_requests_total", method="GET", route="/adapters/{adapter_id}", status="200") == 1
    assert found.value("http_requests_total", method="GET", route="none", status="404") == 1
    assert found.value("http_requests_total", method="other", route="none") == 1
    assert found.value("http_request_duration_seconds_count", route="/adapters/{adapter_id}") == 1
    assert found.value("http_requests_in_progress") == 1  # the one that asks
    assert adapter not in found.text
    assert "PROPFIND" not in found.text


def test_every_metric_is_there_once_the_reconciler_has_been_round(client: httpx2.Client) -> None:
    before = told(client)
    assert before.value("records_submitted_total", kind="adapter") == 0
    assert {"kind": "adapter"} in before.labels("records_submitted_total")
    deadline = time.monotonic() + 60
    while not FAMILIES.items() <= told(client).types.items():
        assert time.monotonic() < deadline, FAMILIES.keys() - told(client).types.keys()
        time.sleep(0.05)
    found = told(client)
    assert abs(found.value("reconciled_timestamp_seconds") - time.time()) < 60
    (build,) = found.labels("build_info")
    assert (build["component"], build["revision"], build["torch"]) == ("api", "0123abc", "")
    assert found.value("disk_size_bytes", mount="spool") >= found.value("disk_free_bytes", mount="spool") > 0


def test_queues_and_workers_are_as_redis_has_them(client: httpx2.Client, own: Settings, redis_client: Redis) -> None:
    store = RecordStore(redis_client, own)
    now = time.time()
    redis_client.zadd("pairforge:workers", {"late": now - 60, "alive": now + 600})
    adapters = [client.post("/v1/adapters", data={"name": "a"}, files=pairs()).json()["id"] for _ in range(2)]
    redis_client.hset("pairforge:celery:unacked", "tag", "[{}]")
    found = told(client)
    assert found.value("records", kind="adapter", state="queued") == 2
    assert found.value("records_submitted_total", kind="adapter") == 2
    # On a slow machine the reconciler may have sent one again.
    assert found.value("queue_messages", queue="train") == redis_client.llen("pairforge:celery:train") >= 2
    assert found.value("queue_messages", queue="generate") == 0
    assert found.value("unacknowledged_messages") == 1
    assert found.value("workers") == 1
    assert 0 < found.value("oldest_queued_seconds", kind="adapter") < 60
    assert found.value("oldest_queued_seconds", kind="job") == 0
    assert found.value("redis_memory_bytes") > 0
    assert found.value("redis_memory_max_bytes") == 0
    assert found.value("redis_aof_last_write_ok") == found.value("redis_aof_last_rewrite_ok") == 1
    for adapter in adapters:
        assert store.records.request_cancel(adapter) is State.CANCELLED
    assert told(client).value("records", kind="adapter", state="cancelled") == 2


def test_refused_uploads_are_counted_and_refused_keys_are_not(client: httpx2.Client) -> None:
    assert client.post("/v1/adapters", data={"name": "a"}, files=pairs()[:1]).status_code == 422
    assert client.post("/v1/adapters", content=b"no form").status_code == 415
    headers = {"Authorization": "Bearer pf_nobody"}
    assert client.post("/v1/adapters", data={"name": "a"}, files=pairs(), headers=headers).status_code == 401
    assert told(client).value("uploads_refused_total") == 2


def test_a_record_is_counted_once_by_whoever_ends_it(client: httpx2.Client, own: Settings, redis_client: Redis) -> None:
    adapter = client.post("/v1/adapters", data={"name": "a"}, files=pairs()).json()["id"]
    for _ in range(2):
        client.post(f"/v1/adapters/{adapter}/cancel")
    found = told(client)
    assert found.value("records_finished_total", kind="adapter", outcome="cancelled") == 1
    assert found.value("records_finished_total") == 1
    # What its worker ends, the worker counts.
    trained(client, RecordStore(redis_client, own))
    assert told(client).value("records_finished_total") == 1


def test_a_record_without_progress_is_poisoned(client: httpx2.Client, own: Settings, redis_client: Redis) -> None:
    """Its workers died without a word, so it is the API's reconciler that ends it."""
    store = RecordStore(redis_client, own.model_copy(update={"lease_seconds": 0.05}))
    adapter = client.post("/v1/adapters", data={"name": "a"}, files=pairs()).json()["id"]
    deadline = time.monotonic() + 60
    for attempt in range(own.max_attempts):  # one more would end it here
        while store.claims.claim(adapter, f"worker-{attempt}") is None:
            assert time.monotonic() < deadline
    while not (told(client).value("poisoned_total", kind="adapter")):
        assert time.monotonic() < deadline
    assert told(client).value("records_finished_total", kind="adapter", outcome="failed") == 1


def test_without_redis_the_rest_is_told(client: httpx2.Client, redis_server: RedisServer) -> None:
    assert told(client).value("redis_up") == 1
    redis_server.kill()
    answer = client.get(f"/v1/jobs/{object_keys.new_id(Kind.JOB)}")
    assert answer.status_code == 503
    found = told(client)
    assert {"redis_up": "gauge"}.items() <= found.types.items()
    assert found.value("redis_up") == 0
    assert "records" not in found.types
    assert found.value("redis_errors_total") > 0
    assert found.value("http_requests_total", status="503") == 1


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, which comes with Prometheus")
def test_prometheus_has_nothing_to_say_against_the_names(client: httpx2.Client) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=told(client).text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
