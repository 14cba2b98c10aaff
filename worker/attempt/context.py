"""Defines what all tasks of a worker process share."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from redis import Redis

from model.evaluation.profiles import PROFILES, Profile
from service.core.messaging import Dispatcher
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from worker.attempt.model_cache import ModelCache
from worker.dead_child import owners
from worker.monitoring.metrics import WorkerMetrics


@dataclass(frozen=True, slots=True)
class Context:
    """The servers, and the models in memory.

    Attributes:
        stopping: whether this worker was asked to stop and should hand over its work.
        profiles: name → size of an evaluation.
    """

    settings: Settings
    redis: Redis
    store: RecordStore
    objects: ObjectStore
    dispatcher: Dispatcher
    model_cache: ModelCache
    stopping: Callable[[], bool]
    metrics: WorkerMetrics
    profiles: Mapping[str, Profile] = field(default_factory=lambda: PROFILES)


def new_owner() -> str:
    """Make a unique name for an attempt, so that its objects differ from those of other attempts."""
    return f"{owners(os.getppid())}{secrets.token_hex(8)}"
