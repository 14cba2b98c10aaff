"""Retries actions while servers are unavailable, at growing intervals."""

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
"""Seconds after which an attempt is given up; the next one resumes from what was stored."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0

_Result = TypeVar("_Result")


def never() -> None:
    """Do nothing; a check that never stops the work."""


def retry(action: Callable[[], _Result], check: Callable[[], None] = never, *, patience: float = PATIENCE) -> _Result:
    """Return the action's result; repeat it while Redis or the object store fail.

    Args:
        action: an action that is safe to repeat.
        check: called before every attempt; an error that it raises ends the retries.
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
    """Sleep; call `check` twice a second and at the end."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check()
        time.sleep(min(0.5, left))
    check()
