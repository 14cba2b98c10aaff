"""What a worker counts, and where Prometheus reads it.

The parent process serves and its child counts, each child in files of its own in the folder that
PROMETHEUS_MULTIPROC_DIR names: prometheus_client adds them up, those of children that have ended included.
"""

from __future__ import annotations

import functools
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.core.object_keys import Kind
from service.core.telemetry import Telemetry

STAGES = ("load", "encode", "denoise", "decode", "mask", "check", "store", "zip")

WAIT_BUCKETS = (0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200)
RUN_BUCKETS = (1, 5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
STEP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)
PAIR_BUCKETS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
STAGE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
CHECKPOINT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class RunOutcome(StrEnum):
    """How an attempt ended.

    ELSEWHERE: another worker has brought the record to its end. HANDED_OVER: this worker was asked to stop.
    """

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    HANDED_OVER = "handed_over"
    LOST = "lost"
    ELSEWHERE = "elsewhere"


class WorkerMetrics:
    """The metrics of one process of a worker; whatever labels are known beforehand begin at 0."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.telemetry = Telemetry(registry)
        kind = ("kind",)

        def counter(name: str, told: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"pairforge_{name}", told, labels, registry=registry)

        def histogram(name: str, told: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"pairforge_{name}", told, labels, buckets=buckets, registry=registry)

        self.queue_wait = histogram(
            "queue_wait_seconds", "From being queued to the start of an attempt.", kind, WAIT_BUCKETS
        )
        self.runs = histogram(
            "run_seconds", "What a worker spent on a record at a time.", ("kind", "outcome"), RUN_BUCKETS
        )
        self.training_steps = counter("training_steps", "Steps trained.")
        self.training_step = histogram("training_step_seconds", "One step of a training.", (), STEP_BUCKETS)
        self.training_loss = Gauge(
            "pairforge_training_loss",
            "Smoothed loss of the training that runs; 0 where none does.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.judged = counter("candidates_judged", "Candidates that were accepted or rejected.")
        self.accepted = counter("pairs_accepted", "Candidates that became part of a dataset.")
        self.rejected = counter("pairs_rejected", "Reasons to reject a candidate, which may have several.", ("reason",))
        self.pair = histogram("pair_seconds", "One candidate, as its share of its batch.", (), PAIR_BUCKETS)
        self.batch_size = histogram("generation_batch_size", "Candidates sampled together.", (), BATCH_BUCKETS)
        self.stages = histogram("stage_seconds", "Parts of the work.", ("stage",), STAGE_BUCKETS)
        self.checkpoints = counter("checkpoints", "Checkpoints that are in the object store.")
        self.checkpoint = histogram(
            "checkpoint_seconds", "Storing a checkpoint, while the training goes on.", (), CHECKPOINT_BUCKETS
        )
        self.lease_renewals = counter("lease_renewals", "Leases extended.", kind)
        self.leases_lost = counter("leases_lost", "Attempts whose record was taken by others.", kind)
        self.redeliveries = counter("redeliveries", "Messages delivered again, and records begun again.", kind)
        self.retries = counter("retries", "Attempts given back after a passing failure.", kind)
        self.out_of_memory = counter("out_of_memory", "Times that the memory was too small.", kind)
        self.busy = Gauge(
            "pairforge_worker_busy",
            "Whether a record is being worked on.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.gpu_allocated, self.gpu_peak, self.gpu_utilization = (
            Gauge(f"pairforge_gpu_{name}", told, ("gpu",), registry=registry, multiprocess_mode="livemostrecent")
            for name, told in (
                ("memory_allocated_bytes", "Memory that tensors take."),
                ("memory_peak_bytes", "The most that tensors took for the record in work, or the last one."),
                ("utilization_ratio", "Share of the last moment in which the GPU computed."),
            )
        )
        self.begin()

    def begin(self) -> None:
        """Set to 0 what has a known name, in the files of the process that calls this."""
        self.busy.set(0)
        for kind in Kind:
            self.queue_wait.labels(kind)
            for outcome in RunOutcome:
                self.runs.labels(kind, outcome)
            for counter in (self.lease_renewals, self.leases_lost, self.redeliveries, self.retries, self.out_of_memory):
                counter.labels(kind)
        for name in STAGES:
            self.stages.labels(name)

    def stage(self, name: str, seconds: float) -> None:
        """An observer for `model.runtime.timing`."""
        self.stages.labels(name).observe(seconds)

    def sampled(self, candidates: int, batch: int, seconds: float) -> None:
        """Count candidates that took so long in all."""
        for _ in range(0, candidates, batch):
            self.batch_size.observe(batch)
        for _ in range(candidates):
            self.pair.observe(seconds / candidates)


@functools.cache
def process_metrics() -> WorkerMetrics:
    """Those of this process; a forked child's begin anew, though they are made of its parent's."""
    return WorkerMetrics(CollectorRegistry())
