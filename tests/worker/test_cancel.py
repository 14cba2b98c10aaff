"""Cancelling works in every phase, soon, and leaves nothing stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.placement import NormalImage
from service.core.record import State
from tests.support.relay import Held, held_back
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until
from tests.worker.stored import Service
from worker.attempt.context import Context
from worker.attempt.lease import LOOK_SECONDS, RENEWALS_PER_LEASE
from worker.generation.run import run_generation
from worker.training.run import run_training

WITHIN = 5.0 - LOOK_SECONDS
"""Five seconds are promised, of which a worker may take so much until it looks at the record."""

PATIENCE = 120.0
"""Seconds by the clock, after which it is taken never to end; the machine may be busy with other things."""


def stage_of(name: str) -> str:
    """How progress tells a stage."""
    return f'"stage": "{name}"'


def cancelled_in(
    service: Service,
    redis_server: RedisServer,
    record: str,
    told: str,
    run: Callable[[Context], None],
    **settings: Any,
) -> float:
    """Run until `told` is to be written, cancel then; processor seconds that the work has taken from there to its end.

    They are what it takes on a machine that does nothing else.
    """
    spent: list[float] = []
    held = Held(told.encode())
    with held_back(redis_server.port, held) as relay:
        context = service.context(redis_url=f"redis://127.0.0.1:{relay.port}/0", **settings)

        def work() -> None:
            run(context)
            spent.append(time.thread_time())

        worker = threading.Thread(target=work)
        worker.start()
        assert worker.ident is not None
        wait_until(held.reached.is_set, PATIENCE)
        before = time.clock_gettime(time.pthread_getcpuclockid(worker.ident))
        assert service.store.records.request_cancel(record) is State.CANCELLING
        held.let_go.set()
        worker.join(PATIENCE)
        assert not worker.is_alive()
    return spent[0] - before


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_a_training_is_cancelled(service: Service, redis_server: RedisServer, stage: str) -> None:
    adapter = service.create_adapter(steps=100_000, checkpoint_every=5)
    seconds = cancelled_in(service, redis_server, adapter, stage_of(stage), partial(run_training, adapter))
    assert seconds < WITHIN
    assert service.record(adapter).state is State.CANCELLED
    assert service.folders(adapter) == set()
    assert list((service.settings.spool_dir / "pairforge-work").iterdir()) == []


def test_a_training_is_cancelled_while_masks_are_adapted(service: Service, redis_server: RedisServer) -> None:
    adapter = service.create_adapter(steps=1, mask_steps=100_000)
    seconds = cancelled_in(service, redis_server, adapter, stage_of("mask network"), partial(run_training, adapter))
    assert seconds < WITHIN
    assert service.folders(adapter) == set()


@pytest.mark.parametrize("stage", ["prepare", "sample"])
def test_a_job_is_cancelled(service: Service, redis_server: RedisServer, adapter: str, stage: str) -> None:
    job = service.create_job(adapter, 10_000)
    seconds = cancelled_in(service, redis_server, job, stage_of(stage), partial(run_generation, job))
    assert seconds < WITHIN
    assert service.record(job).state is State.CANCELLED
    assert service.folders(job) == set()
    assert service.record(adapter).state is State.SUCCEEDED


@pytest.mark.parametrize("refused", ["next_block", '"dataset"'])
def test_a_job_is_cancelled_when_a_write_is_refused_before_the_lease_is_looked_at(
    service: Service, redis_server: RedisServer, adapter: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.attempt.lease.LOOK_SECONDS", PATIENCE)
    job = service.create_job(adapter, 1)
    lease = RENEWALS_PER_LEASE * PATIENCE
    cancelled_in(service, redis_server, job, refused, partial(run_generation, job), lease_seconds=lease)
    assert service.record(job).state is State.CANCELLED
    assert service.folders(job) == set()


def test_a_job_is_cancelled_while_its_zip_is_written(
    service: Service, redis_server: RedisServer, library_adapter: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 700, 700, 3), np.uint8)
    adapter = service.succeeded_adapter(library_adapter, [NormalImage(f"n{i}", each) for i, each in enumerate(noise)])
    job = service.create_job(adapter, 1, anchored=False, formats=["mvtec"])
    seconds = cancelled_in(
        service, redis_server, job, stage_of("finish"), partial(run_generation, job), lease_seconds=1.0
    )
    assert seconds < WITHIN
    assert service.record(job).state is State.CANCELLED
    assert service.folders(job) == set()


def test_what_is_queued_is_cancelled_at_once(service: Service) -> None:
    adapter = service.create_adapter()
    assert service.store.records.request_cancel(adapter) is State.CANCELLED
    run_training(adapter, service.context())
    assert service.record(adapter).state is State.CANCELLED
    assert service.folders(adapter) == set()
