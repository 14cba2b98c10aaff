"""What a real worker tells Prometheus of a training and a generation, and of a child that is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from prometheus_client import generate_latest

from model.quality.gate import RejectReason
from service.core.object_keys import Kind
from service.core.record import State
from service.embedded.ports import free_ports
from tests.support.scraping import SHARED_FAMILIES, Scraped, scrape
from tests.support.waiting import wait_until
from tests.worker.celery_worker import CeleryWorker
from tests.worker.stored import Service
from worker.generation.run import run_generation
from worker.monitoring.metrics import STAGES
from worker.training.run import run_training

pytestmark = pytest.mark.timeout(600)

STEPS, NUM_PAIRS = 12, 4

FAMILIES = {
    "queue_wait_seconds": "histogram",
    "run_seconds": "histogram",
    "training_steps": "counter",
    "training_step_seconds": "histogram",
    "training_loss": "gauge",
    "candidates_judged": "counter",
    "pairs_accepted": "counter",
    "pairs_rejected": "counter",
    "pair_seconds": "histogram",
    "generation_batch_size": "histogram",
    "stage_seconds": "histogram",
    "checkpoints": "counter",
    "checkpoint_seconds": "histogram",
    "lease_renewals": "counter",
    "leases_lost": "counter",
    "redeliveries": "counter",
    "retries": "counter",
    "out_of_memory": "counter",
    "worker_busy": "gauge",
    **SHARED_FAMILIES,
}
"""All that a worker without a GPU tells in an undisturbed run."""


@pytest.fixture
def lease_seconds() -> float:
    """Long enough for a message not to be delivered again, however busy the machine."""
    return 60.0


@pytest.fixture
def device() -> str:
    return "cpu"


@pytest.fixture
def service(service: Service, lease_seconds: float, device: str) -> Service:
    (port,) = free_ports("127.0.0.1", 1)
    changes = {"metrics_port": port, "lease_seconds": lease_seconds, "device": device}
    settings = service.settings.model_copy(update=changes)
    return Service(settings, service.store, service.objects, service.dispatcher)


@pytest.fixture
def url(service: Service) -> str:
    return f"http://127.0.0.1:{service.settings.metrics_port}/metrics"


def served(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5, trust_env=False).is_success
    except httpx2.TransportError:
        return False


def succeeded(service: Service, record: str, worker: CeleryWorker) -> None:
    wait_until(lambda: service.record(record).state.is_terminal)
    found = service.record(record)
    assert found.state is State.SUCCEEDED, (found.error, worker.log.read_text()[-4000:])


def told_of(record: str, url: str) -> Scraped:
    """Once the worker is idle: a record ends a moment before its run."""
    wait_until(lambda: scrape(url).value("run_seconds_count", kind=record) and not scrape(url).value("worker_busy"))
    return scrape(url)


def test_a_training_and_a_generation_are_told_in_full(
    service: Service, url: str, start_worker: Callable[..., CeleryWorker]
) -> None:
    worker = start_worker()
    # A message that comes while all is being imported waits for that.
    wait_until(lambda: served(url) and scrape(url).value("build_info"))
    adapter = service.create_adapter(steps=STEPS)
    service.dispatcher.send_training(adapter)
    succeeded(service, adapter, worker)
    trained = told_of("adapter", url)
    assert trained.value("training_steps_total") == STEPS
    assert trained.value("training_step_seconds_count") == STEPS
    assert trained.value("training_step_seconds_sum") > 0
    assert trained.value("training_loss") == 0
    assert trained.value("checkpoints_total") == trained.value("checkpoint_seconds_count") >= 1

    job = service.create_job(adapter, NUM_PAIRS, steps=20)
    service.dispatcher.send_generation(job, 1)
    succeeded(service, job, worker)
    told = told_of("job", url)
    assert told.value("pairs_accepted_total") == NUM_PAIRS
    assert {labels["reason"] for labels in told.labels("pairs_rejected_total")} == set(RejectReason)
    counts = service.record(job).result["counts"]
    attempts = counts["attempts"]
    assert told.value("candidates_judged_total") == attempts
    assert told.value("pairs_rejected_total") == sum(counts["rejected"].values())
    assert told.value("pair_seconds_count") == attempts
    assert told.value("generation_batch_size_sum") == attempts
    for kind in ("adapter", "job"):
        assert told.value("queue_wait_seconds_count", kind=kind) == 1
        assert told.value("run_seconds_count", kind=kind) == 1
        assert told.value("run_seconds_count", kind=kind, outcome="succeeded") == 1
        assert told.value("records_finished_total", kind=kind, outcome="succeeded") == 1
        assert {"kind": kind} in told.labels("lease_renewals_total")
        for never in ("poisoned", "leases_lost", "redeliveries", "retries", "out_of_memory"):
            assert {"kind": kind} in told.labels(f"{never}_total")
            assert told.value(f"{never}_total", kind=kind) == 0
    assert {stage for stage in STAGES if told.value("stage_seconds_sum", stage=stage) > 0} == set(STAGES)
    assert told.value("s3_operation_seconds_count", operation="PutObject") > 0
    assert told.value("s3_errors_total") == 0
    assert told.value("redis_operation_seconds_count", command="script") > 0
    assert told.value("disk_size_bytes", mount="spool") >= told.value("disk_free_bytes", mount="spool") > 0
    (build,) = told.labels("build_info")
    assert build["component"] == "worker"
    assert build["torch"]
    assert FAMILIES.items() <= told.types.items()
    assert adapter not in told.text
    assert job not in told.text


@pytest.mark.parametrize("kind", list(Kind))
def test_every_renewal_of_a_lease_is_counted(service: Service, adapter: str, kind: Kind) -> None:
    """Of work that would go on for hours, and hands over once two are told."""

    def renewals() -> float:
        told = Scraped(generate_latest(context.metrics.telemetry.registry).decode())
        return told.value("lease_renewals_total", kind=kind)

    context = service.context(stopping=lambda: renewals() >= 2)
    if kind is Kind.ADAPTER:
        record = service.create_adapter(steps=100_000, checkpoint_every=100_000)
        run_training(record, context)
    else:
        record = service.create_job(adapter, 10_000)
        run_generation(record, context)
    assert renewals() >= 2
    assert service.record(record).state is State.QUEUED


def test_a_candidate_is_judged_once_however_many_reasons_speak_against_it(service: Service, adapter: str) -> None:
    lenient = service.create_job(adapter, NUM_PAIRS)
    limits = {**service.record(lenient).request["limits"], "max_disagreement": 0.0, "min_visibility": 254.0}
    strict = service.create_job(adapter, 2, max_attempts=3, limits=limits)
    context = service.context()
    run_generation(lenient, context)
    run_generation(strict, context)
    counts = [service.record(job).counts for job in (lenient, strict)]
    assert counts[1] == {"attempts": 3, "accepted": 0, "rejected": {"invisible": 3, "part_disagrees": 3}}
    told = Scraped(generate_latest(context.metrics.telemetry.registry).decode())
    assert told.value("candidates_judged_total") == sum(each["attempts"] for each in counts if each)
    assert told.value("candidates_judged_total") == told.value("pairs_accepted_total") + 3
    assert told.value("pairs_accepted_total") == NUM_PAIRS
    assert told.value("pairs_rejected_total") == 6


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, which comes with Prometheus")
def test_prometheus_has_nothing_to_say_against_the_names(
    service: Service, url: str, start_worker: Callable[..., CeleryWorker]
) -> None:
    start_worker()
    wait_until(lambda: served(url))
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(url).text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("device", ["cuda"])
def test_a_spawned_child_counts_like_a_forked_one(
    service: Service, url: str, start_worker: Callable[..., CeleryWorker]
) -> None:
    """Children that are to use CUDA are spawned. Without such a device the attempt fails, which is counted alike."""
    start_worker()
    adapter = service.create_adapter(steps=1)
    service.dispatcher.send_training(adapter)
    wait_until(lambda: service.record(adapter).state.is_terminal)
    state = service.record(adapter).state
    found = told_of("adapter", url)
    assert found.value("run_seconds_count", kind="adapter", outcome=state) == 1
    assert found.value("records_finished_total", kind="adapter", outcome=state) == 1
    assert found.value("queue_wait_seconds_count", kind="adapter") == 1


@pytest.mark.faults
@pytest.mark.parametrize("lease_seconds", [10.0])
@pytest.mark.usefixtures("reconciling")
def test_what_a_killed_child_counted_stays_until_its_worker_is_started_again(
    service: Service, url: str, start_worker: Callable[..., CeleryWorker]
) -> None:
    worker = start_worker()
    adapter = service.create_adapter(steps=100_000, checkpoint_every=5)
    service.dispatcher.send_training(adapter)
    wait_until(lambda: served(url) and scrape(url).value("training_steps_total") >= 5)
    (child,) = worker.children()
    before = scrape(url)
    assert before.value("worker_busy") == 1
    assert before.value("training_loss") > 0
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{child}").exists())
    assert scrape(url).value("training_steps_total") >= before.value("training_steps_total")
    wait_until(lambda: scrape(url).value("redeliveries_total", kind="adapter"))
    wait_until(lambda: scrape(url).value("worker_busy"))
    after = scrape(url)
    assert after.value("queue_wait_seconds_count", kind="adapter") == 2
    assert service.store.records.request_cancel(adapter) is State.CANCELLING
    wait_until(lambda: scrape(url).value("run_seconds_count", outcome="cancelled") == 1)
    wait_until(lambda: scrape(url).value("training_loss") == 0)
    assert scrape(url).value("records_finished_total", kind="adapter", outcome="cancelled") == 1
    worker.terminate()
    worker.start()
    wait_until(lambda: served(url))
    anew = scrape(url)
    assert anew.value("training_steps_total") == 0
    assert {"kind": "adapter"} in anew.labels("redeliveries_total")
    assert anew.value("redeliveries_total") == 0
