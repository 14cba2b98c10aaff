"""All stores of records over one connection to Redis.

A record is a hash in Redis. Each change of state is one script that checks the previous state, so it is atomic. Every
method of the stores may raise `redis.exceptions.RedisError`: the server cannot be reached.
"""

from __future__ import annotations

from redis import Redis

from service.core.records.blocks import Blocks
from service.core.records.claims import Claims
from service.core.records.database import Database
from service.core.records.records import Records
from service.core.records.states import States
from service.core.records.submissions import Submissions
from service.core.records.upkeep import Upkeep
from service.core.settings import Settings
from service.core.telemetry import Telemetry


class RecordStore:
    """The stores, by subject.

    Args:
        telemetry: counts the records that end by these stores.

    Attributes:
        submissions: creates records, within quotas and once per idempotency key.
        records: reads, lists, cancels and removes them.
        states: finds and counts them by state.
        claims: what a worker writes about a record that it holds.
        blocks: blocks of a job's candidates, and who judges them.
        upkeep: what the reconciler needs.
    """

    def __init__(self, redis: Redis, settings: Settings, telemetry: Telemetry | None = None) -> None:
        self.redis = redis
        database = Database(redis, settings, telemetry)
        self.submissions = Submissions(database, settings)
        self.records = Records(database)
        self.states = States(database)
        self.claims = Claims(database)
        self.blocks = Blocks(database)
        self.upkeep = Upkeep(database)
