"""The connection and scripts that the stores of records share, and the names of their keys in Redis."""

from __future__ import annotations

from typing import Any

from redis import Redis

from service.core.object_keys import Kind, kind_of
from service.core.record import TERMINAL, Record, State, parse_record
from service.core.scripts import NAMESPACE, Scripts
from service.core.settings import Settings
from service.core.telemetry import Telemetry

GARBAGE = f"{NAMESPACE}garbage"
"""Entry that ends in a record's id → when the record's objects are to be deleted, in Unix time."""

WEBHOOKS = f"{NAMESPACE}webhooks"
"""Sorted set: record → when its webhook is to be sent next, in Unix time."""

WEBHOOK_TRIES = f"{NAMESPACE}webhook_tries"
"""Hash: record → how often its webhook has failed."""

LAST_ROUND = f"{NAMESPACE}last_round"
"""When a round of reconciling was last completed, in Unix time."""


class Database:
    """Runs the scripts that change records, and counts the records that end by them.

    Args:
        telemetry: counts the records that end.
    """

    def __init__(self, redis: Redis, settings: Settings, telemetry: Telemetry | None) -> None:
        self.redis = redis
        self._telemetry = telemetry
        self._scripts = Scripts(redis, settings)

    def run(self, script: str, *arguments: str | float) -> Any:
        return self._scripts.run(script, *arguments)

    def change_state(self, script: str, record: str, *arguments: str | float) -> State | None:
        """Run a script that answers the state that it has brought the record into; None where it changed nothing."""
        answer = self.run(script, record, *arguments)
        if answer is None:
            return None
        state = State(answer)
        self.count_end(record, state)
        return state

    def count_end(self, record: str, state: State, *, poisoned: bool = False) -> None:
        """Count a record that this process has brought into a terminal state.

        Args:
            poisoned: it failed because it was started too often.
        """
        kind = kind_of(record)
        if self._telemetry is not None and state in TERMINAL and kind is not None:
            self._telemetry.ended(kind, state, poisoned=poisoned)


def record_key(record: str) -> str:
    return f"{NAMESPACE}record:{record}"


def events_key(record: str) -> str:
    return f"{NAMESPACE}events:{record}"


def blocks_key(job: str) -> str:
    return f"{NAMESPACE}blocks:{job}"


def state_key(kind: Kind, state: State) -> str:
    return f"{NAMESPACE}state:{kind}:{state}"


def record_from_pairs(pairs: list[str]) -> Record:
    """A record as a script answers it: names and values of its hash in turn."""
    return parse_record(dict(zip(pairs[::2], pairs[1::2], strict=True)))
