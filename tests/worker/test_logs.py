"""What a worker tells: lines of JSON from its parent and its child, each with the ids of what it was at."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.contextvars import bind_contextvars, clear_contextvars, merge_contextvars
from structlog.testing import capture_logs

from service.core import object_keys
from service.core.record import Record, State
from tests.support.servers import RedisServer
from tests.worker.celery_worker import CeleryWorker
from tests.worker.stored import Service
from worker.attempt.claim import claim
from worker.attempt.context import Context, new_owner
from worker.attempt.lease import Lease

pytestmark = pytest.mark.timeout(300)

DEFECT = "an input that is no JSON"


def unreadable_adapter(service: Service, request_id: str) -> str:
    """A queued adapter at which any attempt breaks; as its creator would have it, with the id of the request."""
    adapter = service.create_adapter(steps=1)
    service.store.redis.hset(f"pairforge:record:{adapter}", "request_id", request_id)
    service.objects.put(object_keys.inputs(adapter), DEFECT.encode())
    return adapter


@pytest.mark.parametrize("device", [pytest.param("cpu", id="forked"), pytest.param("cuda", id="spawned")])
def test_parent_and_child_tell_lines_of_json_with_ids_and_without_passwords(
    service: Service, tmp_path: Path, device: str
) -> None:
    password = "hidden-password"
    service.store.redis.execute_command("ACL", "SETUSER", "worker", "on", f">{password}", "~*", "&*", "+@all")
    url = service.settings.redis_url.replace("redis://", f"redis://worker:{password}@")
    settings = service.settings.model_copy(update={"redis_url": url, "device": device})
    worker = CeleryWorker(settings, tmp_path / "workers")
    worker.start()
    try:
        adapters = [unreadable_adapter(service, f"request-{number}") for number in range(2)]
        for adapter in adapters:
            service.dispatcher.send_training(adapter)
            wait_until(lambda name=adapter: service.record(name).state is State.FAILED, worker)
        assert worker.terminate() == 0
    finally:
        worker.end()
    text = worker.log.read_text()
    assert password not in text
    # What Celery writes to stdout, from a signal handler; the test keeps both in one file.
    events = [json.loads(line) for line in text.replace("\nworker: Warm shutdown (MainProcess)\n", "").splitlines()]
    assert {"timestamp", "level", "logger", "event"} <= set.intersection(*(set(event) for event in events))
    assert "celery.worker.strategy" in {event["logger"] for event in events}
    broken = [event for event in events if event["event"] == "attempt_broke"]
    assert [event["record"] for event in broken] == adapters
    assert [event["request_id"] for event in broken] == ["request-0", "request-1"]
    assert {event["attempt"] for event in broken} == {1}
    # A message that is slow to be taken is delivered again, so one task may have taken both records.
    received = {event["event"] for event in events if event["logger"] == "celery.worker.strategy"}
    assert {f"Task pairforge.train[{event['task_id']}] received" for event in broken} <= received
    assert all("JSONDecodeError" in event["exception"] for event in broken)


def wait_until(holds: Callable[[], bool], worker: CeleryWorker) -> None:
    deadline = time.monotonic() + 200
    while not holds():
        assert time.monotonic() < deadline, worker.log.read_text()[-4000:]
        time.sleep(0.05)


def claimed(service: Service, context: Context) -> Record:
    """A record that this thread has taken, as a task does."""
    clear_contextvars()
    bind_contextvars(task_id="task")
    adapter, owner = service.create_adapter(steps=1), new_owner()
    service.store.redis.hset(f"pairforge:record:{adapter}", "request_id", "request")
    record = claim(context, adapter, owner, lambda: context.store.claims.claim(adapter, owner), None)
    assert record is not None
    return record


def told(entries: list[Any], event: str) -> dict[str, Any]:
    """The first event of that name, once it is told."""
    deadline = time.monotonic() + 60
    while not (found := [entry for entry in entries if entry["event"] == event]):
        assert time.monotonic() < deadline, entries
        time.sleep(0.02)
    return {name: found[0].get(name) for name in ("record", "attempt", "task_id", "request_id")}


def test_the_thread_that_holds_a_record_tells_whose_it_is(service: Service, redis_server: RedisServer) -> None:
    context = service.context()
    record = claimed(service, context)
    assert record.owner is not None
    with capture_logs([merge_contextvars]) as entries, Lease(context, record.id, record.owner):
        redis_server.kill()
        ids = told(entries, "lease_not_renewed")
    assert ids == {"record": record.id, "attempt": 1, "task_id": "task", "request_id": "request"}
