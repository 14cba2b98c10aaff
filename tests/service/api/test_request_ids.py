"""Requests can be followed: an id in the answer and in every line that is told of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis import Redis

from service.core import api_keys
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.service.api.conftest import trained

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 60


class Api:
    """The API as a process of its own.

    Attributes:
        key: an API key that it knows.
        client: presents that key.
    """

    def __init__(self, settings: Settings, log: Path, key: str) -> None:
        self.key, self._log = key, log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        access_key, secret = settings.s3_access_key_id, settings.s3_secret_access_key
        assert access_key is not None
        assert secret is not None
        environment = {
            "PYTHONPATH": str(ROOT),
            "PAIRFORGE_REDIS_URL": settings.redis_url,
            "PAIRFORGE_S3_ENDPOINT_URL": str(settings.s3_endpoint_url),
            "PAIRFORGE_S3_ACCESS_KEY_ID": access_key.get_secret_value(),
            "PAIRFORGE_S3_SECRET_ACCESS_KEY": secret.get_secret_value(),
            "PAIRFORGE_SPOOL_DIR": str(settings.spool_dir),
        }
        command = [sys.executable, "-P", "-m", "uvicorn", "--factory", "service.main:create_app", "--port", str(port)]
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=file, stderr=file)
        headers = {"Authorization": f"Bearer {key}"}
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)

    def start(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.client.get("/healthz")
            except httpx2.TransportError:
                assert time.monotonic() < deadline, self._log.read_text()
                assert self._process.poll() is None, self._log.read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait(60)

    def text(self) -> str:
        return self._log.read_text()

    def told_of(self, request_id: str) -> list[dict[str, Any]]:
        """The events of one request, which are there a moment after its answer."""
        deadline = time.monotonic() + 30
        while True:
            events = [json.loads(line) for line in self.text().splitlines(keepends=True) if line.endswith("\n")]
            found = [event for event in events if event.get("request_id") == request_id]
            if any(event["event"] == "request_answered" for event in found):
                return found
            assert time.monotonic() < deadline, f"nothing is told of {request_id}"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def api(
    settings: Settings, redis: Redis, storage: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    process = Api(settings, tmp_path_factory.mktemp("api") / "log", api_keys.create_key(redis, "test"))
    try:
        process.start()
        yield process
    finally:
        process.stop()


def test_a_well_formed_id_is_taken_and_any_other_is_replaced(api: Api) -> None:
    given = "Deploy-7.a_b"
    assert api.client.get("/v1/jobs", headers={"X-Request-Id": given}).headers["x-request-id"] == given
    for refused in ("", "x" * 65, "a b", "a\tb", '{"a":1}', "é".encode("latin-1")):
        answer = api.client.get("/v1/jobs", headers={"X-Request-Id": refused})
        assert len(answer.headers["x-request-id"]) == 32
    made = {api.client.get("/v1/jobs").headers["x-request-id"] for _ in range(5)}
    assert len(made) == 5


def test_the_line_of_a_request_tells_what_was_asked_by_whom_and_how_it_was_answered(
    api: Api, store: RecordStore
) -> None:
    adapter = trained(api.client, store)
    answer = api.client.get(f"/v1/adapters/{adapter}?curve=whole")
    (event,) = api.told_of(answer.headers["x-request-id"])
    assert event.pop("duration_ms") > 0
    event.pop("timestamp")
    assert event == {
        "event": "request_answered",
        "level": "info",
        "logger": "service.api.request_log",
        "request_id": answer.headers["x-request-id"],
        "key_id": api.key.split("_")[1],
        "record": adapter,
        "method": "GET",
        "route": "/adapters/{adapter_id}",
        "path": f"/v1/adapters/{adapter}",
        "status": 200,
    }


def test_a_record_knows_the_request_that_created_it(api: Api, store: RecordStore) -> None:
    wanted = {"adapter_id": trained(api.client, store), "num_pairs": 1}
    answer = api.client.post("/v1/jobs", json=wanted)
    job, request_id = answer.json()["id"], answer.headers["x-request-id"]
    record = store.records.get(job)
    assert record is not None
    assert record.request_id == request_id
    events = {event["event"]: event for event in api.told_of(request_id)}
    assert events.keys() == {"record_created", "request_answered"}
    assert {event["record"] for event in events.values()} == {job}


@pytest.mark.parametrize(
    ("path", "status"), [("/nothing", 404), ("/v1/jobs?limit=0", 422), ("/v1/jobs/job_0", 404), ("/v1/adapters/x", 404)]
)
def test_a_problem_names_its_request(api: Api, path: str, status: int) -> None:
    answer = api.client.get(path)
    assert answer.status_code == status
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert api.told_of(answer.headers["x-request-id"])[-1]["status"] == status


def test_who_is_refused_has_no_name(api: Api) -> None:
    answer = api.client.get("/v1/jobs", headers={"Authorization": "Bearer pf_unknown"})
    assert answer.status_code == 401
    (event,) = api.told_of(answer.headers["x-request-id"])
    assert "key_id" not in event


def test_a_path_begins_no_line_and_is_not_kept_at_any_length(api: Api) -> None:
    answer = api.client.get("/v1/jobs/%0A%7B%22event%22%3A1%7D" + "x" * 1000)
    (event,) = api.told_of(answer.headers["x-request-id"])
    assert event["path"].startswith('/v1/jobs/\n{"event":1}')
    assert len(event["path"]) == 200


def test_probes_are_not_told(api: Api) -> None:
    ids = {api.client.get(path).headers["x-request-id"] for path in ("/healthz", "/readyz", "/metrics")}
    assert len(ids) == 3
    last = api.client.get("/v1/jobs").headers["x-request-id"]
    api.told_of(last)
    told = [json.loads(line) for line in api.text().splitlines()]
    assert not [event for event in told if event.get("route") in {"/healthz", "/readyz", "/metrics"}]


def test_neither_headers_nor_queries_nor_bodies_are_told(api: Api) -> None:
    api.client.get("/v1/jobs?token=hidden-query", headers={"X-API-Key": "hidden-header", "Cookie": "hidden-cookie"})
    api.client.post("/v1/jobs", json={"adapter_id": "hidden-body"})
    last = api.client.get(f"/v1/jobs/{api.key}").headers["x-request-id"]
    api.told_of(last)
    assert "hidden" not in api.text()
    assert api.key.rpartition("_")[2] not in api.text()
