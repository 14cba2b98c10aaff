"""The scripts that change records, each atomic on the Redis server.

Every script is its own file under what all share (`common.lua`). They compute the names of the keys they touch from
the id in their arguments, so they need one Redis server, not a cluster.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, cast

from redis import Redis
from redis.commands.core import Script

NAMESPACE = "pairforge:"
"""What the names of all keys begin with."""

WORKERS = f"{NAMESPACE}workers"
"""Name of a worker → when it was last there, Unix time by the clock of the Redis server."""

HEARD_SECONDS = 30.0
"""A worker that was not there for so long is gone."""

EVENTS_KEPT = 500
"""Events of one record, about; older ones are dropped."""


LAST_EVENTS = 50
"""Events that stay of a record that has ended."""

EVENT_SECONDS = 86_400
"""How long they stay."""


class Scripts:
    """The scripts by name, with the settings they need written into them."""

    def __init__(self, redis: Redis, lease_seconds: float, max_attempts: int) -> None:
        constants = {
            "NAMESPACE": f"'{NAMESPACE}'",
            "LEASE": lease_seconds,
            "MAX_ATTEMPTS": max_attempts,
            "EVENTS": EVENTS_KEPT,
            "LAST_EVENTS": LAST_EVENTS,
            "EVENT_SECONDS": EVENT_SECONDS,
        }
        folder = resources.files(__package__)
        head = "\n".join(f"local {name} = {value}" for name, value in constants.items())
        common = (folder / "common.lua").read_text("utf-8")
        self._scripts: dict[str, Script] = {
            file.name.removesuffix(".lua"): redis.register_script(f"{head}\n{common}\n{file.read_text('utf-8')}")
            for file in folder.iterdir()
            if file.name.endswith(".lua") and file.name != "common.lua"
        }

    def run(self, name: str, *arguments: str | float) -> Any:
        """Run one script.

        Raises:
            redis.exceptions.RedisError: the server cannot be reached, or refuses.
        """
        return cast(Any, self._scripts[name](args=arguments))
