"""Hands on the work of a child process that died, at once and not when its lease ends; runs in the parent."""

from __future__ import annotations

import os
import socket
from typing import Any

import structlog
from billiard.exceptions import WorkerLostError
from celery.signals import task_failure
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from service.core.connections import connect
from service.core.messaging import Dispatcher
from service.core.record import State
from service.core.records.store import RecordStore
from service.core.settings import load_settings

log = structlog.stdlib.get_logger(__name__)


def owners(parent: int) -> str:
    """Return what the names of all attempts begin with that run in children of a process."""
    return f"{socket.gethostname()}-{parent}-"


@task_failure.connect
def _hand_on(exception: BaseException | None = None, **_: Any) -> None:
    """If servers are away, the lease ends and the reconciler finds the record."""
    if not isinstance(exception, WorkerLostError):
        return
    settings = load_settings()
    try:
        with connect(settings) as redis:
            changed = RecordStore(redis, settings).claims.abandon(owners(os.getpid()))
            dispatcher = Dispatcher(settings, redis)
            try:
                for record, state in changed.items():
                    log.warning("child_died", record=record, state=state)
                    if state is State.QUEUED:
                        dispatcher.send_one(record)
            finally:
                dispatcher.close()
    except (RedisError, OperationalError) as error:
        log.warning("child_died", error=repr(error))
