"""Waiting for what comes sooner or later."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    """Until the condition holds, on a machine that may be busy with other things.

    Args:
        seconds: after which it is taken never to hold.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
