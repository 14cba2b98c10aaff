"""What deploy/RUNBOOK.md says of backup and restore, done to a stack at work."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis

from service.core.record import Record
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.embedded.folder import BUCKET, find_running
from tests.service.embedded.running import SAMPLED, Up, small_adapter

pytestmark = pytest.mark.timeout(900)

PROGRAMS = Path(sysconfig.get_path("scripts"))


def back_up(stack: Path, backup: Path) -> None:
    """The objects, then the records, then the objects that have come meanwhile; nothing stops for it."""
    running = find_running(stack)
    assert running is not None
    told = {name.removeprefix("PAIRFORGE_"): value for name, value in running.environment.items()}
    store = {
        "RCLONE_CONFIG_STORE_TYPE": "s3",
        "RCLONE_CONFIG_STORE_PROVIDER": "Other",
        "RCLONE_CONFIG_STORE_ENDPOINT": told["S3_ENDPOINT_URL"],
        "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": told["S3_ACCESS_KEY_ID"],
        "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": told["S3_SECRET_ACCESS_KEY"],
    }
    redis = urlsplit(told["REDIS_URL"])
    objects = [PROGRAMS / "rclone", "--config", "", "copy", f"store:{told['S3_BUCKET']}", backup / "objects"]
    records = [PROGRAMS / "redis-cli", "-p", str(redis.port), "--rdb", backup / "records.rdb"]
    for command in (objects, records, objects):
        subprocess.run(command, env={**os.environ, **store, "REDISCLI_AUTH": redis.password or ""}, check=True)


def restore(backup: Path, stack: Path) -> None:
    """A folder for `pairforge up`; Redis takes a snapshot for the beginning of its log."""
    (stack / "redis").mkdir(parents=True)
    shutil.copyfile(backup / "records.rdb", stack / "redis" / "appendonly.aof")
    shutil.copytree(backup / "objects", stack / "objects" / BUCKET)
    (stack / "lock").touch()


def record_in(stack: Path, name: str) -> Record:
    running = find_running(stack)
    assert running is not None
    url = running.environment["PAIRFORGE_REDIS_URL"]
    with Redis.from_url(url, decode_responses=True) as client:
        found = RecordStore(client, Settings(redis_url=url)).records.get(name)
    assert found is not None
    return found


def checkpointed(stack: Path, name: str) -> int:
    """Wait until a training has stored a checkpoint; its step."""
    deadline = time.monotonic() + 300
    while (found := record_in(stack, name)).checkpoint is None:
        assert not found.state.is_terminal, found.error
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(found.checkpoint["step"])


def events(stack: Path, name: str) -> list[dict[str, object]]:
    """The events of that name in the worker's log."""
    lines = (stack / "logs" / "worker-1.log").read_text().splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return [event for event in told if event["event"] == name]


@pytest.mark.faults
def test_a_backup_of_a_stack_at_work_brings_everything_back(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAIRFORGE_LOG_FORMAT", "json")
    lost, found, backup = tmp_path / "lost", tmp_path / "found", tmp_path / "backup"
    backup.mkdir()
    with Up(lost, tiny_base) as first, first.client() as client:
        adapter = client.wait(small_adapter(client).id)
        job = client.wait(client.create_job(adapter.id, 2, **SAMPLED).id)
        made = client.download(job.id, tmp_path / "before.zip").read_bytes()
        training = small_adapter(client, steps=1200, checkpoint_every=400)
        step = checkpointed(lost, training.id)
        back_up(lost, backup)
        assert record_in(lost, training.id).state == "running"
        first.end(signal.SIGKILL)
    shutil.rmtree(lost)
    restore(backup, found)
    with Up(found, tiny_base) as second, second.client() as client:
        assert client.get(adapter.id).state == client.get(job.id).state == "succeeded"
        downloaded = client.download(job.id, tmp_path / "after.zip").read_bytes()
        assert hashlib.sha256(downloaded).digest() == hashlib.sha256(made).digest()
        ended = client.wait(training.id, timeout=600)
        assert ended.state == "succeeded", ended.error
        (begun,) = events(found, "training_begins")
        assert begun["record"] == training.id
        assert begun["step"] >= step
        assert second.end(signal.SIGTERM) == 0
