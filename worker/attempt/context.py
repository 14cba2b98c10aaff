"""Defines what all tasks of a worker process share."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis

from service.core.messaging import Dispatcher
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from worker.attempt.model_cache import ModelCache
from worker.monitoring.metrics import WorkerMetrics


@dataclass(frozen=True, slots=True)
class Context:
    """The servers, and the models in memory.

    Attributes:
        stopping: whether this worker was asked to stop and should hand over its work.
    """

    settings: Settings
    redis: Redis
    store: RecordStore
    objects: ObjectStore
    dispatcher: Dispatcher
    model_cache: ModelCache
    stopping: Callable[[], bool]
    metrics: WorkerMetrics


def new_owner() -> str:
    """Make a unique name for an attempt, so that its objects differ from those of other attempts."""
    return f"{socket.gethostname()}-{secrets.token_hex(8)}"
