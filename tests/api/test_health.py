from __future__ import annotations

import time

import httpx2
from redis import Redis

from tests.api.uploads import pairs


def test_readiness_needs_a_worker_that_was_heard_of(address: str, redis: Redis) -> None:
    redis.delete("pairforge:workers")
    answer = httpx2.get(f"{address}/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "redis": True, "storage": True, "workers": 0}
    redis.zadd("pairforge:workers", {"late": time.time() - 60, "alive": time.time()})
    answer = httpx2.get(f"{address}/readyz")
    assert (answer.status_code, answer.json()["workers"]) == (200, 1)
    assert httpx2.get(f"{address}/healthz").text == "ok\n"


def test_metrics_count_requests_by_route_and_records_by_state(client: httpx2.Client) -> None:
    adapter = client.post("/v1/adapters", data={"name": "a"}, files=pairs()).json()["id"]
    client.get(f"/v1/adapters/{adapter}")
    client.get("/nowhere")
    client.request("PROPFIND", "/nowhere")
    lines = client.get("/metrics").text
    assert 'pairforge_http_requests_total{method="POST",route="/adapters",status="202"}' in lines
    assert 'pairforge_http_requests_total{method="GET",route="/adapters/{adapter_id}",status="200"}' in lines
    assert 'route="none",status="404"' in lines
    assert adapter not in lines
    assert "PROPFIND" not in lines
    assert 'method="other",route="none"' in lines
    assert 'pairforge_records{kind="adapter",state="queued"}' in lines
    assert "pairforge_http_request_duration_seconds_bucket" in lines
