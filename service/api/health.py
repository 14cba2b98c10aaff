"""Routes for liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog
from anyio import to_thread
from botocore.exceptions import ClientError
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError

from service.api import schemas
from service.api.services import Services
from service.core.errors import TransientError
from service.core.scripts import HEARD_SECONDS, NAMESPACE, WORKERS

log = structlog.stdlib.get_logger(__name__)
_Found = TypeVar("_Found")

router = APIRouter(tags=["health"])

LOOK_SECONDS = 3.0
"""Time to look; who asks should not hang with a server that hangs."""

READY_SECONDS, UNREADY_SECONDS = 2.0, 0.5
"""How long a check is cached, so that many probes cost no more than one."""


@router.get("/healthz", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def get_health() -> Response:
    """Check that the process answers."""
    return Response("ok\n", media_type="text/plain")


@router.get("/readyz", response_model=schemas.Readiness, responses={503: {"model": schemas.Readiness}})
async def get_readiness(request: Request) -> Response:
    """Check that Redis and the object store answer and that a worker is alive; the result is cached for two seconds."""
    found: schemas.Readiness = await request.app.state.readiness.look()
    return Response(found.model_dump_json(), 200 if found.ready else 503, media_type="application/json")


class Readiness:
    """Checks what the service needs; concurrent callers share one check."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._look: asyncio.Task[schemas.Readiness] | None = None
        self._until = 0.0
        self._logged: schemas.Readiness | None = None

    async def look(self) -> schemas.Readiness:
        """Return the cached result, or check now."""
        if self._look is None or (self._look.done() and time.monotonic() > self._until):
            self._look = asyncio.create_task(self._found())
        # The first caller may disconnect; the others still need the result.
        return await asyncio.shield(self._look)

    async def _found(self) -> schemas.Readiness:
        workers, writable, storage = await asyncio.gather(
            _in_time(_workers(self._services), None),
            _in_time(_writable(self._services), default=False),
            _in_time(_storage_ready(self._services), default=False),
        )
        ready = storage and writable and bool(workers)
        found = schemas.Readiness(
            ready=ready, redis=workers is not None, redis_writable=writable, storage=storage, workers=workers or 0
        )
        self._until = time.monotonic() + (READY_SECONDS if ready else UNREADY_SECONDS)
        if found != self._logged:
            write = log.info if ready else log.warning
            write("readiness_changed", **found.model_dump())
            self._logged = found
        return found


async def _workers(services: Services) -> int | None:
    """Count the live workers; None if Redis does not answer."""
    try:
        # Redis' clock, which also stamps the workers' heartbeats.
        seconds, _ = await services.async_redis.time()
        return int(await services.async_redis.zcount(WORKERS, seconds - HEARD_SECONDS, "+inf"))
    except RedisError:
        return None


async def _writable(services: Services) -> bool:
    """Say whether Redis takes what is new; at its memory limit, or if its disk is full, it only answers."""
    try:
        await services.async_redis.set(f"{NAMESPACE}probe", 1, ex=60)
    except RedisError:
        return False
    return True


async def _storage_ready(services: Services) -> bool:
    try:
        return await to_thread.run_sync(services.storage.ready, limiter=services.probe_threads, abandon_on_cancel=True)
    except (TransientError, ClientError):  # unreachable, or it refuses our credentials
        return False


async def _in_time(look: Coroutine[Any, Any, _Found], default: _Found) -> _Found:
    """Return what is found, or the default if a server hangs."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await look
    except TimeoutError:
        return default


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_metrics(request: Request) -> Response:
    """Get the metrics for Prometheus."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
