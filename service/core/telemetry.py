"""Metrics that API and workers share: ends of records, and time and errors of the object store and Redis.

Metrics are created when a process starts and not on import, because a worker's metrics are kept in files (see
`worker.monitoring.metrics`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import NoScriptError, RedisError

from service.core.object_keys import Kind
from service.core.record import TERMINAL, State

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

S3_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
REDIS_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)

_ORDINARY = frozenset({404, 409})
"""Statuses that are no failure of the store: the object is missing, or the bucket exists already."""

_BEGAN = "pairforge_began"


class Telemetry:
    """The metrics of one process; those of a worker's processes are added up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._finished = Counter(
            "pairforge_records_finished", "Records that ended.", ("kind", "outcome"), registry=registry
        )
        self._poisoned = Counter(
            "pairforge_poisoned",
            "Records that failed after too many starts without progress.",
            ("kind",),
            registry=registry,
        )
        self._s3 = Histogram(
            "pairforge_s3_operation_seconds",
            "Duration of object store operations, retries included; downloads until the first byte.",
            ("operation",),
            buckets=S3_BUCKETS,
            registry=registry,
        )
        self._s3_errors = Counter(
            "pairforge_s3_errors",
            "Failed or refused object store operations.",
            ("operation", "code"),
            registry=registry,
        )
        self._redis = Histogram(
            "pairforge_redis_operation_seconds",
            "Duration of Redis commands, retries included.",
            ("command",),
            buckets=REDIS_BUCKETS,
            registry=registry,
        )
        self._redis_errors = Counter(
            "pairforge_redis_errors", "Failed or refused Redis commands.", ("error",), registry=registry
        )
        self._commands: dict[str, Histogram] = {}
        for kind in Kind:
            self._poisoned.labels(kind)
            for state in sorted(TERMINAL):
                self._finished.labels(kind, state)
        for error in ("ConnectionError", "TimeoutError"):
            self._redis_errors.labels(error)

    def ended(self, kind: Kind, state: State, *, poisoned: bool = False) -> None:
        """Count a record that this process has finished."""
        self._finished.labels(kind, state).inc()
        if poisoned:
            self._poisoned.labels(kind).inc()

    def redis_took(self, command: str, seconds: float) -> None:
        """Record the duration of a command."""
        timer = self._commands.get(command)
        if timer is None:
            timer = self._commands[command] = self._redis.labels(_command(command))
        timer.observe(seconds)

    def redis_failed(self, error: RedisError) -> None:
        """Count a command that failed."""
        if not isinstance(error, NoScriptError):  # expected on a script's first run on a server
            self._redis_errors.labels(type(error).__name__).inc()

    def watch_s3(self, client: S3Client) -> None:
        """Time the client's operations and count their failures."""
        events = client.meta.events
        events.register("before-call.s3", _begin)
        events.register("after-call.s3", self._s3_answered)
        events.register("after-call-error.s3", self._s3_broke)

    def _s3_answered(self, http_response: Any, parsed: dict[str, Any], context: dict[str, Any], **event: Any) -> None:
        operation = self._s3_took(event["event_name"], context)
        status = http_response.status_code
        if status >= 300 and status not in _ORDINARY:
            code = parsed.get("Error", {}).get("Code") or str(status)
            self._s3_errors.labels(operation, code).inc()

    def _s3_broke(self, exception: Exception, context: dict[str, Any], **event: Any) -> None:
        operation = self._s3_took(event["event_name"], context)
        self._s3_errors.labels(operation, type(exception).__name__).inc()

    def _s3_took(self, event: str, context: dict[str, Any]) -> str:
        operation = event.rpartition(".")[2]
        self._s3.labels(operation).observe(time.perf_counter() - context[_BEGAN])
        return operation


class DiskCollector(Collector):
    """Reads the free space on the disk of the scratch folder on every scrape."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[GaugeMetricFamily]:
        free = GaugeMetricFamily("pairforge_disk_free_bytes", "Free space on the disk.", labels=("mount",))
        size = GaugeMetricFamily("pairforge_disk_size_bytes", "Size of the disk.", labels=("mount",))
        folder = self._folder
        while not folder.exists():
            folder = folder.parent
        usage = shutil.disk_usage(folder)
        free.add_metric(("spool",), usage.free)
        size.add_metric(("spool",), usage.total)
        return [free, size]


def set_build_info(
    registry: CollectorRegistry, component: str, revision: str, *, torch: str = "", cuda: str = ""
) -> None:
    """Export the versions of this software as the labels of a metric."""
    build = Gauge(
        "pairforge_build_info",
        "Always 1; the labels are the versions of the software.",
        ("component", "version", "revision", "torch", "cuda"),
        registry=registry,
        multiprocess_mode="livemax",
    )
    build.labels(component, version("pairforge"), revision, torch, cuda).set(1)


def _begin(context: dict[str, Any], **_: Any) -> None:
    context[_BEGAN] = time.perf_counter()


def _command(name: str) -> str:
    word = name.partition(" ")[0].lower()
    return "script" if word in {"eval", "evalsha"} else word
