"""What the worker's parent process does beside its children: say that it is there, and pass on that it is to end."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import structlog
from redis import Redis
from redis.exceptions import RedisError

from service.core.scripts import WORKERS

log = structlog.stdlib.get_logger(__name__)

ANNOUNCE_SECONDS = 2.0


class Heartbeat:
    """Announces a worker from a thread of its own."""

    def __init__(self, redis: Redis, name: str) -> None:
        self._redis = redis
        self._name = name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._announce, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take the name back."""
        self._ended.set()
        try:
            self._redis.zrem(WORKERS, self._name)
        except RedisError as error:
            log.warning("presence_left_behind", worker=self._name, error=repr(error))

    def _announce(self) -> None:
        while True:
            try:
                self._redis.zadd(WORKERS, {self._name: float(self._redis.time()[0])})
            except RedisError as error:
                log.warning("presence_not_told", worker=self._name, error=repr(error))
            if self._ended.wait(ANNOUNCE_SECONDS):
                return


def tell_children_to_stop() -> None:
    """Called in the parent, also from its signal handler: tasks hand over what they are doing."""
    _flag(os.getpid()).touch()


def forget_stop() -> None:
    """Remove a flag that an earlier process of the same number has left."""
    _flag(os.getpid()).unlink(missing_ok=True)


def is_stopping(parent: int) -> bool:
    """Whether the parent process of that number was asked to end."""
    return _flag(parent).exists()


def _flag(parent: int) -> Path:
    return Path(tempfile.gettempdir()) / f"pairforge-worker-{os.getuid()}-{parent}.stopping"
