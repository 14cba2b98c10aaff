"""Checks whether a worker is alive: `python -m worker.health NAME`, the name as `celery worker -n NAME` has it.

This reads one value from Redis; `celery inspect ping` costs a second of processor time, and interrupts the worker.
"""

from __future__ import annotations

import sys

from celery.utils.nodenames import default_nodename, host_format
from redis import Redis
from redis.exceptions import RedisError

from service.core.connections import connect
from service.core.scripts import HEARD_SECONDS, WORKERS
from service.core.settings import load_settings


def seconds_since_heard(redis: Redis, name: str) -> float | None:
    """Return the seconds since the last heartbeat; None if the worker never started, or has stopped."""
    heard = redis.zscore(WORKERS, name)
    now, _ = redis.time()
    return None if heard is None else now - heard


def main() -> None:
    name = host_format(default_nodename(sys.argv[1]))
    try:
        with connect(load_settings()) as redis:
            since = seconds_since_heard(redis, name)
    except RedisError as error:
        sys.exit(f"{name} cannot be checked, because Redis does not answer: {error}")
    if since is None or since > HEARD_SECONDS:
        sys.exit(
            f"{name} is not alive: " + (f"no heartbeat for {since:.0f} s" if since is not None else "no heartbeat")
        )


if __name__ == "__main__":
    main()
