"""The Celery tasks: thin shells around `run_training` and `run_generation`, with one context per process."""

from __future__ import annotations

import functools
import os
from typing import Any

from celery import Task, shared_task

from service.core.connections import connect
from service.core.messaging import GENERATE, TRAIN, Dispatcher
from service.core.records import RecordStore
from service.core.settings import load_settings
from service.core.storage import ObjectStore
from worker.presence import is_stopping


@shared_task(name=TRAIN, bind=True)
def train(self: Task[Any, Any], adapter: str) -> None:
    """Train an adapter."""
    from worker.training import run_training

    run_training(adapter, _context(), delivery=_delivery(self))


@shared_task(name=GENERATE, bind=True)
def generate(self: Task[Any, Any], job: str) -> None:
    """Take part in a job."""
    from worker.generation import run_generation

    run_generation(job, _context(), delivery=_delivery(self))


@functools.cache
def _context() -> Any:
    """Made by the first task of a process: what is heavy is imported here, and never in the parent."""
    from worker.context import Context
    from worker.engine import Engine

    settings = load_settings()
    redis = connect(settings)
    records, objects = RecordStore(redis, settings), ObjectStore(settings)
    parent = os.getppid()
    return Context(
        settings=settings,
        redis=redis,
        records=records,
        objects=objects,
        dispatcher=Dispatcher(settings),
        engine=Engine(settings, records, objects),
        stopping=lambda: is_stopping(parent),
    )


def _delivery(task: Task[Any, Any]) -> str | None:
    properties = task.request.properties or {}
    return properties.get("delivery_tag")
