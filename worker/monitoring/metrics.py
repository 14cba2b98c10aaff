"""Defines a worker's metrics, which Prometheus reads.

The parent process serves them and its child counts, each child in its own files in the folder that
PROMETHEUS_MULTIPROC_DIR names; prometheus_client adds them up, including those of children that have ended.
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

    ELSEWHERE: another worker ended the record. HANDED_OVER: this worker was asked to stop.
    """

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    HANDED_OVER = "handed_over"
    LOST = "lost"
    ELSEWHERE = "elsewhere"


class WorkerMetrics:
    """The metrics of one process of a worker; those with known labels start at 0."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.telemetry = Telemetry(registry)
        kind = ("kind",)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"pairforge_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"pairforge_{name}", text, labels, buckets=buckets, registry=registry)

        self.queue_wait = histogram(
            "queue_wait_seconds", "Seconds from queueing to the start of an attempt.", kind, WAIT_BUCKETS
        )
        self.runs = histogram("run_seconds", "Seconds per attempt at a record.", ("kind", "outcome"), RUN_BUCKETS)
        self.training_steps = counter("training_steps", "Training steps done.")
        self.training_step = histogram("training_step_seconds", "Seconds per training step.", (), STEP_BUCKETS)
        self.training_loss = Gauge(
            "pairforge_training_loss",
            "Smoothed loss of the running training; 0 without one.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.judged = counter("candidates_judged", "Candidates that were accepted or rejected.")
        self.accepted = counter("pairs_accepted", "Candidates that became part of a dataset.")
        self.rejected = counter("pairs_rejected", "Reasons to reject a candidate, which may have several.", ("reason",))
        self.pair = histogram(
            "pair_seconds", "Seconds per candidate: the batch's time over its size.", (), PAIR_BUCKETS
        )
        self.batch_size = histogram("generation_batch_size", "Candidates sampled together.", (), BATCH_BUCKETS)
        self.stages = histogram("stage_seconds", "Seconds per stage of the work.", ("stage",), STAGE_BUCKETS)
        self.checkpoints = counter("checkpoints", "Checkpoints written to the object store.")
        self.checkpoint = histogram(
            "checkpoint_seconds", "Seconds to store a checkpoint, while training continues.", (), CHECKPOINT_BUCKETS
        )
        self.lease_renewals = counter("lease_renewals", "Leases renewed.", kind)
        self.leases_lost = counter("leases_lost", "Attempts that lost their record to another worker.", kind)
        self.redeliveries = counter("redeliveries", "Messages delivered again, and records started again.", kind)
        self.retries = counter("retries", "Attempts queued again after a temporary failure.", kind)
        self.out_of_memory = counter("out_of_memory", "Times that the worker ran out of memory.", kind)
        self.busy = Gauge(
            "pairforge_worker_busy",
            "1 while the worker works on a record, otherwise 0.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.gpu_allocated, self.gpu_peak, self.gpu_utilization = (
            Gauge(f"pairforge_gpu_{name}", text, ("gpu",), registry=registry, multiprocess_mode="livemostrecent")
            for name, text in (
                ("memory_allocated_bytes", "Memory used by tensors."),
                ("memory_peak_bytes", "Peak memory used by tensors for the current or last record."),
                ("utilization_ratio", "Share of the last sampling period in which the GPU was busy."),
            )
        )
        self.begin()

    def begin(self) -> None:
        """Set metrics with known labels to 0, in the files of the calling process."""
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
        """Record a stage's duration; an observer for `model.runtime.timing`."""
        self.stages.labels(name).observe(seconds)

    def sampled(self, candidates: int, batch: int, seconds: float) -> None:
        """Count candidates that took `seconds` together."""
        for _ in range(0, candidates, batch):
            self.batch_size.observe(batch)
        for _ in range(candidates):
            self.pair.observe(seconds / candidates)


@functools.cache
def process_metrics() -> WorkerMetrics:
    """Return this process's metrics; those of a forked child start at 0."""
    return WorkerMetrics(CollectorRegistry())
