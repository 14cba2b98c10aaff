"""The logs of a whole stack: a request can be followed from the API to the worker, and no secret is among them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.client import Client
from service.embedded.processes import marked
from tests.service.embedded.running import Up, small_adapter
from tests.service.embedded.test_up import pairforge

pytestmark = pytest.mark.timeout(600)


def test_a_stack_tells_what_it_does_and_none_of_its_secrets(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAIRFORGE_LOG_FORMAT", "json")
    monkeypatch.setenv("PAIRFORGE_LOG_LEVEL", "debug")
    with Up(tmp_path / "data", tiny_base, "--require-keys") as up:
        key = json.loads(pairforge("keys", "create", "me", "--data-dir", up.data_dir, "--json").stdout)["key"]
        with Client(up.url, key) as client:
            adapter = client.wait(small_adapter(client, steps=1).id)
            assert adapter.state == "succeeded", adapter.error
            httpx2.get(f"{up.url}/v1/jobs/{key}?key={key}", headers={"X-API-Key": key[:-1]})
            (redis,) = (
                pid
                for pid in marked(up.data_dir.resolve())
                if b"redis-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
            )
            os.kill(redis, signal.SIGKILL)
            assert "it restarts" in up.event("note")["text"]
            client.get(adapter.id)
        secrets = json.loads((up.data_dir / "credentials.json").read_text())
        up.end(signal.SIGTERM)
    logs = {path.name: path.read_text() for path in (up.data_dir / "logs").iterdir()}
    hidden = [secrets["redis_password"], secrets["s3_secret_access_key"], key.split("_", 2)[2]]
    assert not [(name, secret) for name, text in logs.items() for secret in hidden if secret in text]
    api, worker = events(logs["api.log"]), events(logs["worker-1.log"])
    (created,) = (event for event in api if event["event"] == "record_created")
    assert created["record"] == adapter.id
    (succeeded,) = (event for event in worker if event["event"] == "training_succeeded")
    assert {name: succeeded[name] for name in ("record", "request_id")} == {
        name: created[name] for name in ("record", "request_id")
    }


def events(text: str) -> list[dict[str, Any]]:
    # What Celery writes to stdout, from a signal handler.
    return [json.loads(line) for line in text.replace("\nworker: Warm shutdown (MainProcess)\n", "").splitlines()]
