"""Servers that hang instead of failing, and a Redis that is full: every request is answered in time, and all heals."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from service.api import services
from service.core import api_keys
from service.core.messaging import Dispatcher
from service.core.reconcile import reconcile
from service.core.record import State
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.service.api.conftest import finished_job, serving, trained
from tests.service.api.uploads import pairs
from tests.support.servers import MakeSettings, RedisServer, S3Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

SOON = 30.0
"""Seconds in which everything is answered, on a machine that may be busy; without limits it takes minutes."""


@dataclass(frozen=True)
class Own:
    """An API with servers of the test's own, and a client of it."""

    client: httpx2.Client
    settings: Settings


@pytest.fixture
def own(
    server_settings: MakeSettings, redis_client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Own]:
    monkeypatch.setattr(services, "STORE_SECONDS", 1.0)
    chosen = server_settings(spool_dir=tmp_path / "spool", reconcile_seconds=0.5, lease_seconds=60.0)
    headers = {"Authorization": f"Bearer {api_keys.create_key(redis_client, 'test')}"}
    redis_client.zadd("pairforge:workers", {"alive": time.time() + 600})
    with serving(chosen) as url, httpx2.Client(base_url=url, headers=headers, timeout=120) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield Own(client, chosen)


def timed(ask: Callable[[], httpx2.Response]) -> tuple[int, float]:
    began = time.monotonic()
    return ask().status_code, time.monotonic() - began


def test_a_redis_that_hangs_is_told_in_time_and_heals(own: Own, redis_server: RedisServer) -> None:
    client = own.client
    client.get("/v1/jobs")
    with redis_server.frozen(), ThreadPoolExecutor(60) as pool:
        asked = [lambda: client.get(f"/v1/jobs/job_{'0' * 26}")]
        asked += [lambda: client.get("/v1/jobs")] * 50
        answers = list(pool.map(timed, asked))
        assert client.get("/healthz").status_code == 200
        told = client.get("/readyz")
        assert (told.status_code, told.json()["redis"]) == (503, False)
    assert {status for status, _ in answers} == {503}
    assert max(seconds for _, seconds in answers) < SOON
    wait_until(lambda: client.get("/readyz").status_code == 200, 30)
    assert client.get("/v1/jobs").status_code == 200


def test_a_store_that_hangs_keeps_nobody_but_uploads_waiting_and_these_not_long(
    own: Own, s3_server: S3Server, redis_client: Redis
) -> None:
    client = own.client
    adapter = trained(client, RecordStore(redis_client, own.settings))
    with s3_server.frozen(), ThreadPoolExecutor(50) as pool:
        uploads = [
            pool.submit(timed, lambda: client.post("/v1/adapters", data={"name": "a"}, files=pairs())) for _ in range(5)
        ]
        others = [
            timed(lambda: client.get("/v1/adapters")),
            timed(lambda: client.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 2})),
        ]
        wait_until(lambda: client.get("/readyz").json()["storage"] is False, 30)
        refused = [upload.result() for upload in uploads]
    assert [status for status, _ in others] == [200, 202]
    assert max(seconds for _, seconds in others) < SOON / 3
    assert {status for status, _ in refused} == {503}
    assert max(seconds for _, seconds in refused) < 2 * SOON
    wait_until(lambda: client.get("/readyz").status_code == 200, 30)
    assert client.post("/v1/adapters", data={"name": "a"}, files=pairs()).status_code == 202


def test_a_full_redis_is_told_still_read_and_emptied(own: Own, redis_client: Redis, objects: ObjectStore) -> None:
    client, store = own.client, RecordStore(redis_client, own.settings)
    job = finished_job(client, store, objects)
    adapter = client.get(f"/v1/jobs/{job}").json()["adapter_id"]
    queued, running = (
        client.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 2}).json()["id"] for _ in range(2)
    )
    assert store.claims.claim(running, "worker")
    redis_client.config_set("maxmemory", redis_client.info("memory")["used_memory"] // 2)
    wait_until(lambda: client.get("/readyz").json()["redis_writable"] is False, 30)
    assert client.get("/readyz").status_code == 503
    assert client.get("/v1/jobs").status_code == 200
    assert client.get(f"/v1/jobs/{job}/dataset").status_code == 303
    refused = client.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 2})
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert refused.json()["detail"].startswith("Redis has no memory left")
    measured = client.get("/metrics").text
    assert re.search(r"^pairforge_redis_up 1.0$", measured, re.MULTILINE)
    assert re.search(r"^pairforge_redis_memory_max_bytes [1-9]", measured, re.MULTILINE)
    assert store.claims.renew(running, "worker") is State.RUNNING
    assert store.claims.fail(running, "worker", {"code": "usage", "detail": ""})
    assert client.post(f"/v1/jobs/{queued}/cancel").json()["state"] == "cancelled"
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    dispatcher = Dispatcher(own.settings, redis_client)
    redis_client.delete("pairforge:reconciler")
    wait_until(lambda: reconcile(store, dispatcher, objects, own.settings), 30)
    dispatcher.close()
    redis_client.config_set("maxmemory", 0)
    wait_until(lambda: client.get("/readyz").status_code == 200, 30)
    assert client.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 2}).status_code == 202
