"""Work that is asked to end at a given moment, however quick or busy the machine is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.relay import Held, relayed
from tests.support.servers import RedisServer
from tests.worker.stored import Service
from worker.attempt.context import Context


@contextmanager
def asked_to_end_at(service: Service, redis_server: RedisServer, *parts: bytes) -> Iterator[Context]:
    """The context of a worker that is asked to end when it sends a command to Redis with these bytes in it.

    The command goes on only once the worker has noticed: it then asks of the record again.
    """
    held, asked = Held(*parts), threading.Event()

    def stopping() -> bool:
        if held.reached.is_set():
            asked.set()
        return asked.is_set()

    def before(sent: bytes) -> None:
        if asked.is_set():
            held.let_go.set()
        held(sent)

    with relayed(redis_server.port, before=before) as relay:
        yield service.context(stopping, redis_url=f"redis://127.0.0.1:{relay.port}/0", lease_seconds=0.6)
