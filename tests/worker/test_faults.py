"""Servers that go away and come back, and a disk that is full: the work goes on, and its result is the same."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.diffusion.base import Base
from service.core.record import State
from tests.support.network import Passage, between, every
from tests.support.servers import RedisServer, S3Server
from tests.worker.stored import Service, dataset_by_library, files_of, train_by_library
from worker.generation.run import run_generation
from worker.training.run import run_training

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

NUM_PAIRS = 24


def while_running(run: Callable[[], None], begun: Callable[[], bool], fault: Callable[[], None]) -> None:
    """Let a fault happen once the work has begun, and wait for the work's end."""
    worker = threading.Thread(target=run)
    worker.start()
    while not begun():
        assert worker.is_alive(), "the work ended before the fault"
        time.sleep(0.02)
    fault()
    worker.join()


def begun(service: Service, record: str, stage: str) -> Callable[[], bool]:
    """Whether a stage has begun, even if it is over by then."""

    def check() -> bool:
        told = [event.data["progress"] for event in service.store.records.events(record)]
        return any(progress is not None and progress["stage"] == stage for progress in told)

    return check


def away(server: RedisServer | S3Server, seconds: float) -> Callable[[], None]:
    def fault() -> None:
        server.kill()
        time.sleep(seconds)
        server.start()

    return fault


def test_redis_killed_for_ten_seconds_costs_a_training_nothing(
    service: Service, base: Base, redis_server: RedisServer, tmp_path: Path
) -> None:
    long = {"steps": 40, "checkpoint_every": 5}
    adapter = service.create_adapter(**long)
    context = service.context(lease_seconds=60.0)
    while_running(lambda: run_training(adapter, context), begun(service, adapter, "train"), away(redis_server, 10))
    record = service.record(adapter)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1), record.error
    assert service.artifact(adapter) == files_of(train_by_library(base, tmp_path, **long))


def test_redis_killed_for_ten_seconds_costs_a_job_nothing(
    service: Service, adapter: str, base: Base, library_adapter: Path, redis_server: RedisServer, tmp_path: Path
) -> None:
    job = service.create_job(adapter, NUM_PAIRS)
    context = service.context(lease_seconds=60.0)
    while_running(lambda: run_generation(job, context), begun(service, job, "sample"), away(redis_server, 10))
    record = service.record(job)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1), record.error
    assert service.dataset(job) == dataset_by_library(base, library_adapter, tmp_path / "dataset.zip", NUM_PAIRS)


def test_a_store_away_for_thirty_seconds_costs_a_job_nothing(
    service: Service, adapter: str, base: Base, library_adapter: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    job = service.create_job(adapter, NUM_PAIRS)
    context = service.context(lease_seconds=60.0)
    while_running(lambda: run_generation(job, context), begun(service, job, "sample"), away(s3_server, 30))
    record = service.record(job)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1), record.error
    assert service.dataset(job) == dataset_by_library(base, library_adapter, tmp_path / "dataset.zip", NUM_PAIRS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting needs privileges")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_tried_again_and_told_in_the_end(service: Service, small_disk: Path) -> None:
    adapter = service.create_adapter()
    for _ in range(service.settings.max_attempts + 1):
        run_training(adapter, service.context(spool_dir=small_disk))
    record = service.record(adapter)
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error["code"] == "attempts_exhausted"
    assert "disk is full" in record.error["detail"]
    assert list((small_disk / "pairforge-work").iterdir()) == []


def test_a_store_that_fails_now_and_then_costs_nothing(
    service: Service, base: Base, library_adapter: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    """Every third request is answered 500, half of them although it was carried out; and once all for long."""
    long = {"steps": 12, "checkpoint_every": 3}
    adapter = service.create_adapter(**long)
    now_and_then, seen = every(3), 0

    def fault(method: str, path: str) -> Passage:
        nonlocal seen
        seen += 1
        return Passage.ASTRAY if 30 <= seen < 45 else now_and_then(method, path)

    with between(s3_server, fault) as endpoint:
        run_training(adapter, service.context(s3_endpoint_url=endpoint, lease_seconds=60.0))
        assert seen > 45
        ready = service.succeeded_adapter(library_adapter)
        job = service.create_job(ready, NUM_PAIRS)
        run_generation(job, service.context(s3_endpoint_url=endpoint, lease_seconds=60.0))
    for name in (adapter, job):
        record = service.record(name)
        assert (record.state, record.attempt) == (State.SUCCEEDED, 1), record.error
    assert service.artifact(adapter) == files_of(train_by_library(base, tmp_path, **long))
    assert service.folders(adapter) == {"inputs", "inputs.json", "artifact", "samples"}
    assert service.dataset(job) == dataset_by_library(base, library_adapter, tmp_path / "dataset.zip", NUM_PAIRS)
