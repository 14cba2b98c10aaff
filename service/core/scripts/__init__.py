"""Loads and runs the Lua scripts that change records, each atomically on the Redis server.

Every script is a file that is run after `common.lua`. Scripts compute the names of their keys from the id in their
arguments, so they need a single Redis server, not a cluster.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, cast

from redis import Redis
from redis.commands.core import Script

from service.core.settings import Settings

NAMESPACE = "pairforge:"
"""Prefix of all keys."""

WORKERS = f"{NAMESPACE}workers"
"""Sorted set: name of a worker → its last heartbeat, in Unix time by the clock of the Redis server."""

HEARD_SECONDS = 30.0
"""Age of the last heartbeat after which a worker counts as dead."""

LONGEST_RETRY = 600
"""Seconds that a record waits at most before it is started again."""

EVENTS_KEPT = 500
"""Approximate number of events kept per record; older ones are dropped."""

LAST_EVENTS = 50
"""Number of events kept of a finished record."""

EVENT_SECONDS = 86_400
"""How long they are kept."""


_REFUSED_WHEN_FULL = {"create.lua", "rate.lua", "report.lua", "quota.lua", "queue_position.lua"}
"""Scripts that need not write when Redis has reached its memory limit; the others end work, or free memory."""

_ALLOWED = "redis.call('DEL', NAMESPACE .. 'nothing')"
"""At its memory limit, Redis refuses only a script's first write, and a deletion not even then."""


class Scripts:
    """Runs scripts by name; their settings are inserted as constants."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        constants = {
            "NAMESPACE": f"'{NAMESPACE}'",
            "LEASE": settings.lease_seconds,
            "MAX_ATTEMPTS": settings.max_attempts,
            "MAX_DEATHS": settings.max_deaths,
            "RETRY": settings.retry_seconds,
            "LONGEST_RETRY": LONGEST_RETRY,
            "EVENTS": EVENTS_KEPT,
            "LAST_EVENTS": LAST_EVENTS,
            "EVENT_SECONDS": EVENT_SECONDS,
        }
        folder = resources.files(__package__)
        head = "\n".join(f"local {name} = {value}" for name, value in constants.items())
        head += "\n" + (folder / "common.lua").read_text("utf-8")
        self._scripts: dict[str, Script] = {
            file.name.removesuffix(".lua"): redis.register_script(
                "\n".join([head, *([] if file.name in _REFUSED_WHEN_FULL else [_ALLOWED]), file.read_text("utf-8")])
            )
            for file in folder.iterdir()
            if file.name.endswith(".lua") and file.name != "common.lua"
        }

    def run(self, name: str, *arguments: str | float) -> Any:
        """Run one script.

        Raises:
            redis.exceptions.RedisError: the server cannot be reached, or refuses the script.
        """
        return cast(Any, self._scripts[name](args=arguments))
