"""How attempts end when their surroundings fail them, and what the next attempt finds."""

from __future__ import annotations

import hashlib
import math
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from model.diffusion.base import Base
from service.core import object_keys
from service.core.messaging import pending_ids
from service.core.record import State
from tests.support.network import between, every
from tests.support.relay import Relay, relayed
from tests.support.servers import RedisServer, S3Server
from tests.support.waiting import wait_until
from tests.worker.ending import asked_to_end_at
from tests.worker.stored import Service, dataset_by_library, files_of, train_by_library
from worker.attempt.completion import Completion
from worker.attempt.context import Context, new_owner
from worker.attempt.lease import Lease
from worker.generation.run import run_generation
from worker.training.checkpoints import Checkpoints
from worker.training.run import run_training


def test_a_training_handed_over_while_masks_are_adapted_keeps_all_its_steps(
    service: Service, base: Base, redis_server: RedisServer, tmp_path: Path
) -> None:
    chosen: dict[str, Any] = {"steps": 4, "checkpoint_every": 1000, "mask_steps": 5}
    adapter = service.create_adapter(**chosen)
    with asked_to_end_at(service, redis_server, b'"stage": "mask network"') as context:
        run_training(adapter, context)
    record = service.record(adapter)
    assert (record.state, record.attempt) == (State.QUEUED, 0)
    assert record.checkpoint is not None
    assert record.checkpoint["step"] == 4
    for name in record.checkpoint["files"]:  # what a worker that lost its hold may still be storing
        service.objects.put(object_keys.checkpoint(adapter, 4, "stalled", name), b"torn")
    run_training(adapter, service.context())
    found = service.record(adapter)
    assert found.state is State.SUCCEEDED, found.error
    assert found.result is not None
    assert list(found.result["samples"]) == ["4"]
    assert "checkpoints" not in service.folders(adapter)
    assert service.artifact(adapter) == files_of(train_by_library(base, tmp_path, **chosen))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a small training."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting needs privileges")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def paused(event: str, run: Callable[[], None]) -> Iterator[None]:
    """While work that has told of that event pauses; it has ended when this has, though the pause has no end."""
    working = threading.Thread(target=run, daemon=True)
    with pytest.MonkeyPatch.context() as changed, capture_logs() as told:
        changed.setattr("worker.attempt.completion.PAUSE", math.inf)
        working.start()
        wait_until(lambda: any(entry["event"] == event for entry in told) or not working.is_alive())
        assert working.is_alive()
        yield
        working.join(60)
        assert not working.is_alive()


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**20))
        except OSError:
            return ballast


def test_a_disk_that_others_fill_costs_no_attempt_and_holds_the_queue_up_only_until_there_is_room(
    service: Service, disk: Path
) -> None:
    adapter = service.create_adapter(steps=1)
    ballast = fill(disk)
    context = service.context(spool_dir=disk)
    with paused("disk_full", lambda: run_training(adapter, context)):
        until = service.record(adapter).lease_until
        assert until is not None
        wait_until(lambda: service.store.upkeep.now() > until)
        held = service.record(adapter)
        now = service.store.upkeep.now()
        ballast.unlink()
    assert held.state is State.RUNNING
    assert held.lease_until is not None
    assert held.lease_until > now
    record = service.record(adapter)
    assert (record.state, record.attempt) == (State.QUEUED, 0), record.error
    assert adapter in pending_ids(service.store.redis)
    run_training(adapter, context)
    assert service.record(adapter).state is State.SUCCEEDED


def test_a_training_that_waits_for_room_can_be_cancelled(service: Service, disk: Path) -> None:
    adapter = service.create_adapter(steps=1)
    fill(disk)
    with paused("disk_full", lambda: run_training(adapter, service.context(spool_dir=disk))):
        assert service.store.records.request_cancel(adapter) is State.CANCELLING
    assert service.record(adapter).state is State.CANCELLED


def _run_out_of_memory(context: Context, adapter: str) -> None:
    owner = new_owner()
    record = context.store.claims.claim(adapter, owner)
    assert record is not None
    with (
        Lease(context, adapter, owner) as lease,
        Completion(context, record, lease, lambda: context.dispatcher.send_training(adapter)),
    ):
        bytearray(2**62)


def test_a_worker_without_memory_pauses_but_ends_when_asked_to(service: Service) -> None:
    adapter = service.create_adapter(steps=1)
    ending = threading.Event()
    context = service.context(stopping=ending.is_set)
    with paused("memory_short", lambda: _run_out_of_memory(context, adapter)):
        assert service.record(adapter).state is State.RUNNING
        ending.set()
    record = service.record(adapter)
    assert (record.state, record.attempt) == (State.QUEUED, 0)


def test_a_job_bears_with_a_store_of_which_every_third_answer_is_an_error(
    service: Service, adapter: str, base: Base, library_adapter: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    job = service.create_job(adapter, 3)
    with between(s3_server, every(3)) as url:
        run_generation(job, service.context(s3_endpoint_url=url))
    record = service.record(job)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1), record.error
    assert service.dataset(job) == dataset_by_library(base, library_adapter, tmp_path / "dataset.zip", 3)


def test_a_job_bears_with_downloads_that_break_off(
    service: Service, adapter: str, base: Base, library_adapter: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    """More often than the client of the object store itself asks again."""
    broken = 0

    def cut(asked: bytes, answer: bytes) -> int | None:
        nonlocal broken
        if broken == 12 or not asked.startswith(b"GET ") or b"/artifact/" not in asked or len(answer) < 4096:
            return None
        broken += 1
        return len(answer) // 2

    job = service.create_job(adapter, 1)
    with relayed(s3_server.port, cut) as relay:
        mending = threading.Event()
        mender = threading.Thread(target=_mend_until, args=(relay, mending))
        mender.start()
        try:
            run_generation(job, service.context(s3_endpoint_url=f"http://127.0.0.1:{relay.port}"))
        finally:
            mending.set()
            mender.join()
    assert broken == 12
    record = service.record(job)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1), record.error
    assert service.dataset(job) == dataset_by_library(base, library_adapter, tmp_path / "dataset.zip", 1)


def _mend_until(relay: Relay, ended: threading.Event) -> None:
    while not ended.wait(0.01):
        relay.mend()


def test_what_a_stalled_worker_stores_late_changes_nothing_of_the_result(service: Service, adapter: str) -> None:
    job = service.create_job(adapter, 1)
    assert service.store.claims.join(job, "stalled")
    service.objects.put(object_keys.dataset(job, "stalled"), b"before")
    time.sleep(1.1 * service.settings.lease_seconds)
    run_generation(job, service.context())
    record = service.record(job)
    assert record.state is State.SUCCEEDED, record.error
    assert record.result is not None
    stored = {each.key for each in service.objects.list(object_keys.prefix(job))}
    assert stored == {record.result["dataset"], record.result["preview"]}
    service.objects.put(object_keys.dataset(job, "stalled"), b"after")
    assert hashlib.sha256(service.dataset(job)).hexdigest() == record.result["sha256"]


def test_a_checkpoint_that_cannot_be_read_is_told_and_not_pointed_to(service: Service, tmp_path: Path) -> None:
    adapter, owner = service.create_adapter(steps=1), new_owner()
    record = service.store.claims.claim(adapter, owner)
    assert record is not None
    checkpoint = tmp_path / "step-0000001"
    checkpoint.mkdir()
    (checkpoint / "trainable.safetensors").write_bytes(b"without a state beside it")
    context = service.context()
    with capture_logs() as told, Lease(context, adapter, owner) as lease:
        checkpoints = Checkpoints(context, record, lease, tmp_path, tmp_path / "staging")
        checkpoints.offer(1, checkpoint, None)
        checkpoints.close()
    assert [entry["record"] for entry in told if entry["event"] == "checkpoint_broke"] == [adapter]
    assert service.record(adapter).checkpoint is None
