from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis import Redis

from service.api import health
from service.core import connections, storage
from service.core.connections import connect
from service.core.settings import Settings
from tests.service.api.conftest import serving
from tests.support.network import Passage, between
from tests.support.servers import ACCESS_KEY, SECRET_KEY, RedisServer, S3Server


def appear(redis: Redis, **workers: float) -> None:
    """Let workers have been heard of so many seconds ago; who will be stays young, however long a test takes."""
    redis.zadd("pairforge:workers", {name: time.time() - seconds for name, seconds in workers.items()})


def found(url: str, *, until: int) -> dict[str, Any]:
    """What the readiness is once it is answered with that status."""
    deadline = time.monotonic() + 30
    while (answer := httpx2.get(f"{url}/readyz", timeout=30)).status_code != until:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    body: dict[str, Any] = answer.json()
    return body


def test_readiness_needs_a_worker_that_was_heard_of(address: str, redis: Redis) -> None:
    redis.delete("pairforge:workers")
    assert found(address, until=503) == {
        "ready": False,
        "redis": True,
        "redis_writable": True,
        "storage": True,
        "workers": 0,
    }
    appear(redis, late=60, alive=-600)
    assert found(address, until=200)["workers"] == 1
    assert httpx2.get(f"{address}/healthz").text == "ok\n"


def test_the_api_starts_before_its_servers_and_is_ready_after_them(tmp_path: Path) -> None:
    for name in ("redis", "s3"):
        (tmp_path / name).mkdir()
    redis_server, s3_server = RedisServer(tmp_path / "redis"), S3Server(tmp_path / "s3")
    chosen = {"s3_access_key_id": ACCESS_KEY, "s3_secret_access_key": SECRET_KEY, "reconcile_seconds": 0.2}
    settings = Settings.model_validate({"redis_url": redis_server.url, "s3_endpoint_url": s3_server.url, **chosen})
    with serving(settings) as url:
        assert httpx2.get(f"{url}/healthz").status_code == 200
        assert found(url, until=503) == {
            "ready": False,
            "redis": False,
            "redis_writable": False,
            "storage": False,
            "workers": 0,
        }
        redis_server.start()
        s3_server.start()
        try:
            with connect(settings) as redis:
                appear(redis, alive=-600)
            assert found(url, until=200) == {
                "ready": True,
                "redis": True,
                "redis_writable": True,
                "storage": True,
                "workers": 1,
            }
        finally:
            redis_server.kill()
            s3_server.stop()


def test_servers_that_never_answer_do_not_hold_up_the_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the answers that need none; nobody gives them up before this is over."""
    make_client = storage._client
    monkeypatch.setattr(storage, "_client", lambda *given, **_: make_client(*given, tries=1, timeout=1000))
    monkeypatch.setattr(connections, "TIMEOUT", 1000)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        away = {"redis_url": f"redis://127.0.0.1:{port}/0", "s3_endpoint_url": f"http://127.0.0.1:{port}"}
        with serving(settings.model_copy(update=away)) as url:
            assert httpx2.get(f"{url}/healthz", timeout=60).status_code == 200
            deaf.close()


def test_any_number_of_probes_costs_one_look(settings: Settings, s3_server: S3Server, redis: Redis) -> None:
    looks = 0

    def counted(method: str, path: str) -> Passage:
        nonlocal looks
        looks += method == "HEAD"
        return Passage.WHOLE

    with between(s3_server, counted) as endpoint:
        chosen = settings.model_copy(update={"s3_endpoint_url": endpoint, "reconcile_seconds": 1000.0})
        with (
            serving(chosen) as url,
            httpx2.Client(base_url=url, timeout=30) as client,
            ThreadPoolExecutor(16) as probes,
        ):
            appear(redis, alive=-600)
            found(url, until=200)
            before, began = looks, time.monotonic()
            answers = list(probes.map(lambda _: client.get("/readyz"), range(500)))
            periods = (time.monotonic() - began) / health.READY_SECONDS
    assert {answer.status_code for answer in answers} == {200}
    assert looks - before <= 1 + periods
