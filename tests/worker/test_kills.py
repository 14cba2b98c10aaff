"""Real Celery workers that are killed or asked to end: nothing is lost, nothing doubled, and not a byte differs."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from model.diffusion.base import Base
from service.core.messaging import pending_ids
from service.core.record import Record, State
from tests.support.relay import Held, held_back, relayed
from tests.support.servers import RedisServer, S3Server
from tests.support.waiting import wait_until
from tests.worker.celery_worker import CeleryWorker
from tests.worker.stored import Service, dataset_by_library, files_of, train_by_library

pytestmark = pytest.mark.timeout(600)

StartWorker = Callable[..., CeleryWorker]
LONG = {"steps": 24, "checkpoint_every": 6}
NUM_PAIRS = 16


@pytest.fixture(scope="session")
def long_training(base: Base, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return files_of(train_by_library(base, tmp_path_factory.mktemp("long"), **LONG))


@pytest.fixture(scope="session")
def long_dataset(base: Base, library_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return dataset_by_library(base, library_adapter, tmp_path_factory.mktemp("long") / "dataset.zip", NUM_PAIRS)


def ended(service: Service, record: str, *, logs: CeleryWorker) -> None:
    wait_until(lambda: service.record(record).state.is_terminal)
    found = service.record(record)
    assert found.state is State.SUCCEEDED, (found.error, logs.log.read_text()[-4000:])


def step_of(service: Service, adapter: str) -> int:
    progress = service.record(adapter).progress
    return progress["completed"] if progress is not None and progress["stage"] == "train" else 0


def gone_on(record: Record, before: Record) -> bool:
    return record.checkpoint != before.checkpoint or record.state.is_terminal


def judged(service: Service, job: str) -> int:
    state = service.store.blocks.judged(job)
    return 0 if state is None else state["accepted"]


@pytest.mark.usefixtures("reconciling")
def test_a_killed_training_ends_with_the_same_files(
    service: Service, start_worker: StartWorker, long_training: dict[str, bytes], s3_server: S3Server
) -> None:
    """At a random moment after a checkpoint; its last file never arrives, so that it cannot have ended by then."""
    adapter = service.create_adapter(**LONG)
    service.dispatcher.send_training(adapter)
    with held_back(s3_server.port, Held(b"PUT ", b"/run.json")) as relay:
        worker = start_worker(s3_endpoint_url=f"http://127.0.0.1:{relay.port}")
        wait_until(lambda: service.record(adapter).checkpoint is not None)
        time.sleep(random.uniform(0, 0.5))
        worker.kill()
    assert service.record(adapter).state is State.RUNNING
    second = start_worker("second")
    ended(service, adapter, logs=second)
    assert service.artifact(adapter) == long_training
    assert service.record(adapter).attempt == 2


@pytest.mark.usefixtures("reconciling")
def test_a_killed_generation_ends_with_the_same_zip(
    service: Service, start_worker: StartWorker, adapter: str, long_dataset: bytes, s3_server: S3Server
) -> None:
    """At a random moment amid it; its dataset never arrives, so that it cannot have ended by then."""
    job = service.create_job(adapter, NUM_PAIRS)
    service.dispatcher.send_generation(job, 1)
    with held_back(s3_server.port, Held(b"PUT ", b"/dataset.zip")) as relay:
        worker = start_worker(s3_endpoint_url=f"http://127.0.0.1:{relay.port}")
        wait_until(lambda: judged(service, job) >= 2)
        time.sleep(random.uniform(0, 0.3))
        worker.kill()
    assert service.record(job).state is State.RUNNING
    second = start_worker("second")
    ended(service, job, logs=second)
    assert service.dataset(job) == long_dataset


def test_a_dead_childs_training_goes_on_at_once_and_not_after_its_lease(
    service: Service, start_worker: StartWorker
) -> None:
    """With leases of ten minutes, and no reconciler."""
    adapter = service.create_adapter(steps=100_000, checkpoint_every=5)
    service.dispatcher.send_training(adapter)
    worker = start_worker(lease_seconds=600.0)
    wait_until(lambda: service.record(adapter).checkpoint is not None)
    for child in worker.children():
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: service.record(adapter).attempt == 2)
    reached = service.record(adapter).checkpoint
    wait_until(lambda: service.record(adapter).checkpoint != reached)


@pytest.mark.faults
def test_sigterm_hands_over_at_once(
    service: Service, start_worker: StartWorker, long_training: dict[str, bytes], redis_server: RedisServer
) -> None:
    """The report of the first step goes on only when the worker has looked twice since, so it has noticed by then."""
    adapter = service.create_adapter(**LONG)
    service.dispatcher.send_training(adapter)
    held, looks = Held(b'"stage": "train"'), 0

    def before(sent: bytes) -> None:
        nonlocal looks
        if held.reached.is_set() and worker.is_ending():
            looks += adapter.encode() in sent
        if looks == 2:
            held.let_go.set()
        held(sent)

    with relayed(redis_server.port, before=before) as relay:
        worker = start_worker(redis_url=f"redis://127.0.0.1:{relay.port}/0")
        wait_until(held.reached.is_set)
        assert worker.terminate() == 0
    record = service.record(adapter)
    assert (record.state, record.attempt) == (State.QUEUED, 0), worker.log.read_text()[-4000:]
    assert record.checkpoint is not None
    assert 0 < record.checkpoint["step"] < LONG["steps"]
    assert adapter in pending_ids(service.store.redis)
    assert service.store.redis.zcard("pairforge:workers") == 0
    second = start_worker("second")
    ended(service, adapter, logs=second)
    assert service.artifact(adapter) == long_training
    assert service.store.redis.zcard("pairforge:workers") == 1


@pytest.mark.faults
@pytest.mark.usefixtures("reconciling")
def test_a_training_survives_many_kills_at_random_moments(
    service: Service, start_worker: StartWorker, long_training: dict[str, bytes]
) -> None:
    adapter = service.create_adapter(**LONG)
    service.dispatcher.send_training(adapter)
    for number in range(4):
        worker = start_worker(f"worker{number}")
        before = service.record(adapter)
        wait_until(lambda before=before: service.record(adapter).attempt > before.attempt)
        if number % 2:  # without any progress in between, so many deaths would be its own fault
            # One that goes on from its last checkpoint ends without another.
            wait_until(lambda before=before: gone_on(service.record(adapter), before))
        time.sleep(random.uniform(0, 4))
        worker.kill()
        if service.record(adapter).state.is_terminal:
            break
    ended(service, adapter, logs=start_worker("last"))
    assert service.artifact(adapter) == long_training


@pytest.mark.faults
@pytest.mark.usefixtures("reconciling")
def test_a_job_survives_kills_among_two_workers(
    service: Service, start_worker: StartWorker, adapter: str, long_dataset: bytes
) -> None:
    job = service.create_job(adapter, NUM_PAIRS)
    service.dispatcher.send_generation(job, 2)
    workers = [start_worker(f"worker{number}") for number in range(2)]
    for number in range(3):
        before = judged(service, job)
        wait_until(lambda before=before: judged(service, job) > before or service.record(job).state.is_terminal)
        time.sleep(random.uniform(0, 0.5))
        workers.pop(0).kill()
        workers.append(start_worker(f"next{number}"))
    ended(service, job, logs=workers[0])
    assert service.dataset(job) == long_dataset


@pytest.mark.faults
@pytest.mark.usefixtures("reconciling")
def test_what_kills_its_process_every_time_fails_while_others_go_on(
    service: Service, start_worker: StartWorker, adapter: str
) -> None:
    """From outside: whatever process runs the poisoned training is killed before its first checkpoint."""
    poisoned = service.create_adapter(steps=100_000, checkpoint_every=100_000)
    service.dispatcher.send_training(poisoned)
    worker = start_worker()
    seen = 0
    while not service.record(poisoned).state.is_terminal:
        if service.record(poisoned).attempt > seen and step_of(service, poisoned) > 0:
            seen = service.record(poisoned).attempt
            for child in worker.children():
                os.kill(child, signal.SIGKILL)
        time.sleep(0.05)
    record = service.record(poisoned)
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error["code"] == "attempts_exhausted"
    assert seen == service.settings.max_deaths
    job = service.create_job(adapter, 1)
    service.dispatcher.send_generation(job, 1)
    ended(service, job, logs=worker)
