"""Clients and limits that the routes share, opened when the app starts and closed when it stops."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import structlog
from anyio import CapacityLimiter, move_on_after, to_thread
from fastapi import Depends, Request
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from service.api.concurrency import ConcurrencyLimit
from service.api.metrics import Metrics
from service.api.turns import Turns
from service.api.uploads import SCRATCH
from service.core.connections import connect, connect_async
from service.core.messaging import Dispatcher
from service.core.reconcile import reconcile, reconcile_until
from service.core.records.store import RecordStore
from service.core.scratch_dirs import sweep
from service.core.settings import Settings
from service.core.storage import ObjectStore, StorageError
from service.core.webhooks import deliver_until

log = structlog.stdlib.get_logger(__name__)

BUCKET_SECONDS = 2.0
"""How long the start waits for the bucket."""

READ_CONNECTIONS = 1000
"""Requests that may read from Redis at the same moment; Redis itself allows ten times as many clients."""

MAX_INSPECTIONS = 2
"""Uploads decoded at once, one large and one small; others wait, which bounds the memory in use."""

REDIS_SECONDS = 3.0
"""Time that a reply of Redis may take; with one repetition, a request is answered within twice that and a bit."""

STORE_SECONDS = 10.0
"""Time that the object store may take for an answer; it has three tries."""

REDIS_THREADS = 200
"""Requests that wait for Redis in threads, so that those of a Redis that hangs leave some for others."""

STORE_THREADS = 32
"""Uploads that are stored at the same moment; they have threads of their own, since the store may hang."""

SMALL_PIXELS = 2**24
"""Pixels up to which an upload is small: it takes seconds, and never waits for one that takes a minute."""


@dataclass(frozen=True, slots=True)
class Services:
    """Clients, metrics and limits that the routes share.

    Attributes:
        redis: client for threads.
        async_redis: client for short reads on the event loop.
        stream_redis: client for waiting on events.
        metrics: counters of the routes.
        uploads: limit of concurrent uploads.
        streams: limit of concurrent event streams; each waits on its own connection.
        store_threads: limit of threads that write to the object store.
        probe_threads: limit of threads that look whether it answers.
        large_inspections, small_inspections: turns at decoding uploads; see `inspections`.
    """

    settings: Settings
    redis: Redis
    async_redis: AsyncRedis
    stream_redis: AsyncRedis
    store: RecordStore
    storage: ObjectStore
    dispatcher: Dispatcher
    metrics: Metrics
    uploads: ConcurrencyLimit
    streams: ConcurrencyLimit
    store_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(STORE_THREADS))
    probe_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    large_inspections: Turns = field(default_factory=lambda: Turns(1))
    small_inspections: Turns = field(default_factory=lambda: Turns(MAX_INSPECTIONS - 1))

    def inspections(self, pixels: int) -> Turns:
        """Return the turns at decoding an upload of so many pixels."""
        return self.small_inspections if pixels <= SMALL_PIXELS else self.large_inspections


@asynccontextmanager
async def running_services(settings: Settings, metrics: Metrics) -> AsyncIterator[Services]:
    """Open the clients and run the reconciler while the app runs."""
    if settings.spool_dir is not None:
        settings.spool_dir.mkdir(parents=True, exist_ok=True)
    await to_thread.run_sync(sweep, settings.spool_dir, SCRATCH)
    telemetry = metrics.telemetry
    to_thread.current_default_thread_limiter().total_tokens = REDIS_THREADS
    client = connect(settings, telemetry, timeout=REDIS_SECONDS, tries=1)
    patient = connect(settings, telemetry)
    reads = connect_async(settings, telemetry, READ_CONNECTIONS, timeout=REDIS_SECONDS)
    stream = connect_async(settings, telemetry, settings.max_streams + 1)
    store = RecordStore(client, settings, telemetry)
    storage = ObjectStore(settings, telemetry, tries=3, timeout=STORE_SECONDS)
    dispatcher = Dispatcher(settings, client)
    services = Services(
        settings=settings,
        redis=client,
        async_redis=reads,
        stream_redis=stream,
        store=store,
        storage=storage,
        dispatcher=dispatcher,
        metrics=metrics,
        uploads=ConcurrencyLimit("uploads", settings.max_uploads, settings.max_uploads_per_key),
        streams=ConcurrencyLimit("event streams", settings.max_streams, settings.max_streams_per_key),
    )
    stopped = threading.Event()
    reconciler = threading.Thread(
        target=reconcile_until,
        args=(
            stopped,
            partial(reconcile, RecordStore(patient, settings, telemetry), dispatcher, storage, settings),
            settings.reconcile_seconds,
        ),
        name="reconciler",
        daemon=True,
    )
    # The start does not wait for an unreachable store: the reconciler creates the bucket later.
    with move_on_after(BUCKET_SECONDS):
        await to_thread.run_sync(_prepare, storage, abandon_on_cancel=True)
    reconciler.start()
    delivering = (stopped, RecordStore(patient, settings, telemetry), settings)
    webhooks = threading.Thread(target=deliver_until, args=delivering, name="webhooks", daemon=True)
    if settings.webhook_secret is not None:
        webhooks.start()
    try:
        yield services
    finally:
        stopped.set()
        await to_thread.run_sync(reconciler.join, 10)
        await reads.aclose()
        await stream.aclose()
        client.close()
        patient.close()
        dispatcher.close()
        storage.close()


def _prepare(storage: ObjectStore) -> None:
    try:
        storage.ensure_bucket()
    except StorageError as error:
        log.warning("bucket_postponed", error=repr(error))


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


UsedServices = Annotated[Services, Depends(_services)]
