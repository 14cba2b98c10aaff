"""A worker that stalls in the middle of an upload, and goes on when another has finished, harms nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.core import object_keys
from tests.support.relay import Held, held_back
from tests.support.servers import S3Server
from tests.support.waiting import wait_until
from tests.worker.celery_worker import CeleryWorker
from tests.worker.stored import Service, files_of
from tests.worker.test_kills import ended
from worker.attempt.retry import never

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture
def stalling(service: Service, s3_server: S3Server, tmp_path: Path) -> Iterator[tuple[CeleryWorker, Held]]:
    """A worker whose run.json is held back on its way: it tells when it was made, so no two are the same."""
    held = Held(b"PUT ", b"/run.json")
    with held_back(s3_server.port, held) as relay:
        settings = service.settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{relay.port}"})
        worker = CeleryWorker(settings, tmp_path / "workers", "stalling")
        yield worker, held
        worker.end()


@pytest.mark.usefixtures("reconciling")
def test_what_a_stalled_worker_stores_late_lies_beside_what_counts(
    service: Service,
    stalling: tuple[CeleryWorker, Held],
    start_worker: Callable[..., CeleryWorker],
    library_adapter: Path,
) -> None:
    first, held = stalling
    adapter = service.create_adapter()
    service.dispatcher.send_training(adapter)
    first.start()
    wait_until(held.reached.is_set)
    first.stall()
    stalled = service.record(adapter).owner
    assert stalled is not None
    second = start_worker("second")
    ended(service, adapter, logs=second)
    assert second.terminate() == 0  # it has tidied up, too
    counts = service.record(adapter).result
    assert counts is not None

    held.let_go.set()
    first.wake()
    late = object_keys.artifact(adapter, stalled) + "run.json"
    # It learns of its loss when it renews its lease, or when it wants to tell of its success, whichever comes first.
    wait_until(lambda: " succeeded in " in first.log.read_text())  # as Celery calls a task that is over
    assert late in {each.key for each in service.objects.list(object_keys.artifact(adapter))}
    assert service.record(adapter).result == counts
    for file in counts["files"]:
        content = service.objects.get(counts["artifact"] + file["path"])
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    assert service.artifact(adapter) == files_of(library_adapter)
    assert service.context().model_cache.adapter(adapter, never).adapter.model.config.steps == 6
