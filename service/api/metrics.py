"""What Prometheus reads at `/metrics`: requests by route, and records by state."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from service.core.keys import Kind
from service.core.records import RecordStore

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one app, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("pairforge_http_requests", "Requests answered.", labels, registry=self.registry)
        self._duration = Histogram(
            "pairforge_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            labels[:2],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        # A method is whatever a client writes there.
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._duration.labels(method, route).observe(seconds)


class RecordCollector(Collector):
    """Reads the numbers of records from the store whenever it is asked."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store

    def collect(self) -> Iterable[GaugeMetricFamily]:
        records = GaugeMetricFamily("pairforge_records", "Adapters and jobs by state.", labels=("kind", "state"))
        waiting = GaugeMetricFamily(
            "pairforge_oldest_queued_seconds", "How long the first in the queue has waited.", labels=("kind",)
        )
        rounds = GaugeMetricFamily(
            "pairforge_reconciled_timestamp_seconds", "When what was lost was last looked for, to the end."
        )
        try:
            if (last := self._store.last_round()) is not None:
                rounds.add_metric((), last)
            for (kind, state), number in self._store.counts().items():
                records.add_metric((kind, state), number)
            for kind in Kind:
                queued_at = self._store.oldest_queued(kind)
                waiting.add_metric((kind,), time.time() - queued_at if queued_at is not None else 0.0)
        except RedisError:
            # Without the store the requests' metrics still tell what is going on.
            return []
        return [records, waiting, rounds]
