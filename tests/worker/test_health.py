"""The worker's health check tells a worker that is there from one that is not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from redis import Redis

from service.core.scripts import HEARD_SECONDS, WORKERS
from tests.support.servers import MakeSettings
from worker.monitoring.heartbeat import Heartbeat

ROOT = Path(__file__).resolve().parents[2]
NAME = f"worker@{socket.gethostname()}"


def check(redis_url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worker.health", "worker@%h"]
    environment = {**os.environ, "PAIRFORGE_REDIS_URL": redis_url}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_worker_is_well_while_it_announces_itself(redis_client: Redis, redis_settings: MakeSettings) -> None:
    url = redis_settings().redis_url
    assert f"{NAME} is not alive: no heartbeat" in check(url).stderr
    heartbeat = Heartbeat(redis_client, NAME)
    heartbeat.start()
    deadline = time.monotonic() + 10
    while redis_client.zscore(WORKERS, NAME) is None:
        assert time.monotonic() < deadline
    healthy = check(url)
    assert (healthy.returncode, healthy.stderr) == (0, "")
    heartbeat.stop()
    assert check(url).returncode == 1


def test_a_worker_that_fell_silent_is_not_well(redis_client: Redis, redis_settings: MakeSettings) -> None:
    redis_client.zadd(WORKERS, {NAME: float(redis_client.time()[0]) - HEARD_SECONDS - 1})
    silent = check(redis_settings().redis_url)
    assert silent.returncode == 1
    assert f"{NAME} is not alive: no heartbeat for" in silent.stderr


def test_without_redis_no_worker_is_well() -> None:
    away = check("redis://127.0.0.1:1/0")
    assert away.returncode == 1
    assert "Redis does not answer" in away.stderr
