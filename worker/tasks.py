"""Defines the Celery tasks: thin shells around `run_training` and `run_generation`, with one context per process."""

from __future__ import annotations

import functools
import os
from typing import Any

from celery import Task, shared_task
from structlog.contextvars import bind_contextvars, clear_contextvars

from service.core.connections import connect
from service.core.messaging import GENERATE, TRAIN, Dispatcher
from service.core.records.store import RecordStore
from service.core.settings import load_settings
from service.core.storage import ObjectStore
from worker.attempt.delivery import Delivery
from worker.monitoring.heartbeat import is_stopping
from worker.monitoring.metrics import process_metrics


@shared_task(name=TRAIN, bind=True)
def train(self: Task[Any, Any], _: str) -> None:
    """Train the next adapter, which need not be the one that the message was sent for."""
    from worker.training.run import run_training

    _begin(self)
    run_training(None, _context(), delivery=_delivery(self))


@shared_task(name=GENERATE, bind=True)
def generate(self: Task[Any, Any], _: str) -> None:
    """Generate pairs of the next job, together with other workers."""
    from worker.generation.run import run_generation

    _begin(self)
    run_generation(None, _context(), delivery=_delivery(self))


def _begin(task: Task[Any, Any]) -> None:
    """Bind the task to all log events from here on, including Celery's own after the task."""
    clear_contextvars()
    bind_contextvars(task_id=task.request.id)


@functools.cache
def _context() -> Any:
    """Make the context in the first task of a process; heavy modules are imported here, never in the parent."""
    from model.runtime.timing import observe_stages
    from worker.attempt.context import Context
    from worker.attempt.model_cache import ModelCache

    settings = load_settings()
    metrics = process_metrics()
    observe_stages(metrics.stage)
    redis = connect(settings, metrics.telemetry)
    store = RecordStore(redis, settings, metrics.telemetry)
    objects = ObjectStore(settings, metrics.telemetry)
    parent = os.getppid()
    return Context(
        settings=settings,
        redis=redis,
        store=store,
        objects=objects,
        dispatcher=Dispatcher(settings, redis),
        model_cache=ModelCache(settings, store, objects),
        stopping=lambda: is_stopping(parent),
        metrics=metrics,
    )


def _delivery(task: Task[Any, Any]) -> Delivery:
    properties, info = task.request.properties or {}, task.request.delivery_info or {}
    return Delivery(properties.get("delivery_tag"), again=bool(info.get("redelivered")))
