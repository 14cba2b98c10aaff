"""What the routes work with: made when the app starts, closed when it stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import structlog
from anyio import move_on_after, to_thread
from fastapi import Depends, Request
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from service.api.concurrency import ConcurrencyLimit
from service.api.metrics import Metrics
from service.core.connections import connect, connect_async
from service.core.messaging import Dispatcher
from service.core.pipelined_redis import connect_pipelined
from service.core.reconcile import reconcile, reconcile_until
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore, StorageError

log = structlog.stdlib.get_logger(__name__)

BUCKET_SECONDS = 2.0
"""That the start waits for the bucket."""

MAX_INSPECTIONS = 2
"""Uploads decoded at a time; others wait, which bounds the memory in use."""


@dataclass(frozen=True, slots=True)
class Services:
    """Clients of the servers, and what the routes share.

    Attributes:
        redis: for work in threads.
        fast_redis: for what is read on the event loop.
        stream_redis: for waiting on events.
        metrics: where the routes count.
        uploads: turns at sending one.
        streams: turns at events as they happen; each waits on a connection of its own.
        inspections: turns at decoding uploads.
    """

    settings: Settings
    redis: Redis
    fast_redis: AsyncRedis
    stream_redis: AsyncRedis
    store: RecordStore
    storage: ObjectStore
    dispatcher: Dispatcher
    metrics: Metrics
    uploads: ConcurrencyLimit
    streams: ConcurrencyLimit
    inspections: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_INSPECTIONS))


@asynccontextmanager
async def running_services(settings: Settings, metrics: Metrics) -> AsyncIterator[Services]:
    """Clients for as long as the app runs, and the reconciler beside it."""
    if settings.spool_dir is not None:
        settings.spool_dir.mkdir(parents=True, exist_ok=True)
    telemetry = metrics.telemetry
    client = connect(settings, telemetry)
    fast = connect_pipelined(settings, telemetry)
    stream = connect_async(settings, telemetry, settings.max_streams + 1)
    store, storage = RecordStore(client, settings, telemetry), ObjectStore(settings, telemetry)
    dispatcher = Dispatcher(settings)
    services = Services(
        settings=settings,
        redis=client,
        fast_redis=fast,
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
        args=(stopped, partial(reconcile, store, dispatcher, storage, settings), settings.reconcile_seconds),
        name="reconciler",
        daemon=True,
    )
    # A store that is away is not waited for: the reconciler makes the bucket once it is there.
    with move_on_after(BUCKET_SECONDS):
        await to_thread.run_sync(_prepare, storage, abandon_on_cancel=True)
    reconciler.start()
    try:
        yield services
    finally:
        stopped.set()
        await to_thread.run_sync(reconciler.join, 10)
        await fast.aclose()
        await stream.aclose()
        client.close()
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
