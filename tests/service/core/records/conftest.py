"""A store whose leases are brief."""

from __future__ import annotations

import pytest
from redis import Redis

from service.core.records.store import RecordStore
from tests.support.records import BRIEF
from tests.support.servers import MakeSettings


@pytest.fixture
def brief(redis_client: Redis, redis_settings: MakeSettings) -> RecordStore:
    """Records whose leases are dead after `BRIEF` seconds."""
    return RecordStore(redis_client, redis_settings(lease_seconds=BRIEF, max_active_per_key=1000))
