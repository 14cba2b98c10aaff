"""Waiting for what comes sooner or later."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 300, told: Callable[[], object] = str) -> None:
    """Until the condition holds, however long that takes on a machine that is busy with other things.

    Args:
        seconds: after which it is taken never to hold.
        told: what is to be read then.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited in vain {told()}"
        time.sleep(0.02)
