"""Announces a worker from its parent process, and passes stop requests on to its children."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from pathlib import Path

import structlog
from redis import Redis
from redis.exceptions import RedisError

from service.core.scripts import WORKERS

log = structlog.stdlib.get_logger(__name__)

ANNOUNCE_SECONDS = 2.0

FORGOTTEN_SECONDS = 3600.0
"""Age of the last heartbeat after which a worker's name is removed by the others; until then its death can be seen."""


_ANNOUNCE = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
"""
"""Forgets others first, since Redis at its memory limit refuses only a script's first write."""


class Heartbeat:
    """Announces a worker at intervals, in another thread."""

    def __init__(self, redis: Redis, name: str) -> None:
        self._redis = redis
        self._name = name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._announce, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and remove the worker's name."""
        self._ended.set()
        self._thread.join()
        try:
            self._redis.zrem(WORKERS, self._name)
        except RedisError as error:
            log.warning("presence_left_behind", worker=self._name, error=repr(error))

    def _announce(self) -> None:
        while True:
            try:
                self._redis.eval(_ANNOUNCE, 1, WORKERS, self._name, FORGOTTEN_SECONDS)
            except RedisError as error:
                log.warning("presence_not_told", worker=self._name, error=repr(error))
            if self._ended.wait(ANNOUNCE_SECONDS):
                return


def ask_children_to_stop() -> None:
    """Ask the tasks to hand over their work; called in the parent, also from its signal handler."""
    _flag(os.getpid()).touch()


def forget_stop() -> None:
    """Remove the stop flag of an earlier process with the same id.

    Raises:
        PermissionError: if the folder of the flags belongs to somebody else, who could stop the worker.
    """
    folder = _folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"{folder} is not a folder that only this user can write: remove it, or set TMPDIR to another folder"
        )
    _flag(os.getpid()).unlink(missing_ok=True)


def is_stopping(parent: int) -> bool:
    """Return whether the parent process with that id was asked to stop."""
    return _flag(parent).exists()


def _flag(parent: int) -> Path:
    return _folder() / f"{parent}.stopping"


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"pairforge-worker-{os.getuid()}"
