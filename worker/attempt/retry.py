"""Waiting for servers that are away for a while: the same action again, ever more seldom."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from service.core.errors import TransientError

log = structlog.stdlib.get_logger(__name__)

PATIENCE = 300.0
"""Seconds after which an attempt is given up; the next one starts from what was stored."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0

_Result = TypeVar("_Result")


def never() -> None:
    """A check that stops nothing."""


def retry(action: Callable[[], _Result], check: Callable[[], None] = never, *, patience: float = PATIENCE) -> _Result:
    """The action's result, tried again while Redis or the object store fail.

    Args:
        action: can be repeated without harm.
        check: called before every attempt; what it raises ends the waiting.
        patience: seconds after which the last failure is raised.
    """
    began, pause = time.monotonic(), FIRST_PAUSE
    while True:
        check()
        try:
            return action()
        except (TransientError, RedisError, OperationalError) as error:
            if time.monotonic() - began > patience:
                raise
            log.warning("server_away", error=repr(error), pause=round(pause, 1))
        wait(pause * random.uniform(0.7, 1.3), check)
        pause = min(LONGEST_PAUSE, 2 * pause)


def wait(seconds: float, check: Callable[[], None] = never) -> None:
    """Sleep, checking twice a second and at the end."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check()
        time.sleep(min(0.5, left))
    check()
