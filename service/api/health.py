"""Whether the service lives, whether it can work, and its metrics."""

from __future__ import annotations

import json

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError

from service.api import schemas
from service.api.services import Services, UsedServices
from service.core.errors import TransientError
from service.core.scripts import WORKERS

router = APIRouter(tags=["health"])

HEARD_SECONDS = 30.0


@router.get("/healthz", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def get_health() -> Response:
    """The process answers."""
    return Response("ok\n", media_type="text/plain")


@router.get("/readyz", response_model=schemas.Readiness, responses={503: {"model": schemas.Readiness}})
async def get_readiness(services: UsedServices) -> Response:
    """Redis and the object store answer, and at least one worker was heard of lately."""
    workers = await _workers(services)
    storage = await to_thread.run_sync(_storage_ready, services)
    ready = storage and bool(workers)
    body = {"ready": ready, "redis": workers is not None, "storage": storage, "workers": workers or 0}
    return Response(json.dumps(body), 200 if ready else 503, media_type="application/json")


async def _workers(services: Services) -> int | None:
    """How many workers there are; None without Redis."""
    try:
        # By the clock by which the workers tell it.
        seconds, _ = await services.fast_redis.time()
        return int(await services.fast_redis.zcount(WORKERS, seconds - HEARD_SECONDS, "+inf"))
    except RedisError:
        return None


def _storage_ready(services: Services) -> bool:
    try:
        return services.storage.ready()
    except TransientError:
        return False


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
