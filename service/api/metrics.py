"""Metrics of the API for Prometheus: requests as they are answered, and Redis' contents when scraped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from service.core.messaging import message_counts
from service.core.object_keys import Kind
from service.core.records.store import RecordStore
from service.core.scripts import HEARD_SECONDS, WORKERS
from service.core.settings import Settings
from service.core.telemetry import DiskCollector, Telemetry, set_build_info

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_REFUSALS = frozenset({400, 413, 415, 422})
"""Statuses of an upload that was refused because of its contents."""

_UPLOAD_ROUTE = "/adapters"

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

SCRAPE_SECONDS = 2.0
"""Longest wait for Redis; Prometheus itself waits ten seconds by default."""


class Metrics:
    """The metrics of one app, in their own registry."""

    def __init__(self, settings: Settings) -> None:
        self.registry = registry = CollectorRegistry()
        self.telemetry = Telemetry(registry)
        labels = ("method", "route", "status")
        self._requests = Counter("pairforge_http_requests", "Requests answered.", labels, registry=registry)
        self._duration = Histogram(
            "pairforge_http_request_duration_seconds",
            "Time from the first byte of a request to the last byte of its response.",
            labels[:2],
            buckets=BUCKETS,
            registry=registry,
        )
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._in_progress = Gauge(
            "pairforge_http_requests_in_progress", "Requests not answered yet.", registry=registry
        )
        self._submitted = Counter("pairforge_records_submitted", "Records created.", ("kind",), registry=registry)
        self._refused = Counter(
            "pairforge_uploads_refused", "Uploads refused because of their contents.", registry=registry
        )
        for kind in Kind:
            self._submitted.labels(kind)
        set_build_info(registry, "api", settings.revision)
        registry.register(DiskCollector(settings.spool_dir or Path(tempfile.gettempdir())))
        ProcessCollector(registry=registry)

    def began(self) -> None:
        """Count a request in progress."""
        self._in_progress.inc()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that has ended, by its outcome."""
        self._in_progress.dec()
        # Clients may send any word as the method, and labels must stay few.
        method = method if method in _METHODS else "other"
        found = self._answered.get((method, route, status))
        if found is None:
            found = self._requests.labels(method, route, str(status)), self._duration.labels(method, route)
            self._answered[method, route, status] = found
        counter, timer = found
        counter.inc()
        timer.observe(seconds)
        if method == "POST" and route.endswith(_UPLOAD_ROUTE) and status in _REFUSALS:
            self._refused.inc()

    def submitted(self, kind: Kind) -> None:
        """Count a record that was created."""
        self._submitted.labels(kind).inc()


class RedisCollector(Collector):
    """Reads records, queues, workers and the state of Redis on every scrape, without long waits."""

    def __init__(self, settings: Settings) -> None:
        self._redis = Redis.from_url(
            settings.redis_url,
            decode_responses=True,
            socket_timeout=SCRAPE_SECONDS,
            socket_connect_timeout=SCRAPE_SECONDS,
            retry=Retry(NoBackoff(), 1),
        )
        self._store = RecordStore(self._redis, settings)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        try:
            found = [*self._records(), *self._messages(), *self._server()]
        except RedisError:
            # The metrics that do not need Redis are still served.
            return [_single("redis_up", "Whether Redis answers.", 0)]
        return [_single("redis_up", "Whether Redis answers.", 1), *found]

    def close(self) -> None:
        self._redis.close()

    def _records(self) -> Iterable[GaugeMetricFamily]:
        records = _family("records", "Adapters and jobs by state.", "kind", "state")
        for (kind, state), number in self._store.states.counts().items():
            records.add_metric((kind, state), number)
        yield records
        now = self._store.upkeep.now()
        waiting = _family("oldest_queued_seconds", "Waiting time of the oldest queued record.", "kind")
        for kind in Kind:
            queued_at = self._store.states.oldest_queued(kind)
            waiting.add_metric((kind,), max(0.0, now - queued_at) if queued_at is not None else 0.0)
        yield waiting
        if (last := self._store.upkeep.last_round()) is not None:
            yield _single("reconciled_timestamp_seconds", "Time of the reconciler's last complete round.", last)
        heard = self._redis.zcount(WORKERS, now - HEARD_SECONDS, "+inf")
        yield _single("workers", "Workers with a recent heartbeat.", heard)

    def _messages(self) -> Iterable[GaugeMetricFamily]:
        waiting = _family("queue_messages", "Messages waiting for a worker.", "queue")
        counts, taken = message_counts(self._redis)
        for queue, number in counts.items():
            waiting.add_metric((queue,), number)
        yield waiting
        yield _single("unacknowledged_messages", "Messages that workers are processing.", taken)

    def _server(self) -> Iterable[GaugeMetricFamily]:
        memory = self._redis.info("memory")
        yield _single("redis_memory_bytes", "Memory used by Redis.", memory["used_memory"])
        yield _single("redis_memory_max_bytes", "Memory limit of Redis; 0 if there is none.", memory["maxmemory"])
        persistence = self._redis.info("persistence")
        for name, help_text, key in (
            ("write", "Whether the last write to the append-only file succeeded.", "aof_last_write_status"),
            ("rewrite", "Whether the last rewrite of the append-only file succeeded.", "aof_last_bgrewrite_status"),
        ):
            yield _single(f"redis_aof_last_{name}_ok", help_text, persistence[key] == "ok")


def _family(name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pairforge_{name}", help_text, labels=labels)


def _single(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pairforge_{name}", help_text, value=value)
