"""Holding a record while working on it: renewing, and learning that the work is to stop."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from enum import StrEnum
from types import TracebackType
from typing import Self

import structlog
from redis.exceptions import RedisError

from service.core.messaging import renew_delivery
from service.core.object_keys import kind_of
from service.core.record import State
from worker.attempt.context import Context
from worker.attempt.delivery import Delivery

log = structlog.stdlib.get_logger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at the record: what bounds how long a cancelled job goes on."""

RENEWALS_PER_LEASE = 6


class StopReason(StrEnum):
    """Why work stops before its end."""

    CANCELLED = "cancelled"
    LOST = "lost"
    HANDOVER = "handover"


class StopError(Exception):
    """Raised in the work, at its next report."""

    def __init__(self, reason: StopReason) -> None:
        self.reason = reason
        super().__init__(reason)


class Lease:
    """Renews an attempt's hold on a record from a thread of its own, as long as it is entered.

    While Redis is away nothing is renewed and nothing stops: whether the hold was lost shows when it is back. A hold
    that is lost must not write; the record refuses its writes in any case.

    Args:
        delivery: of the message that the attempt came with, which is kept from being delivered again.
    """

    def __init__(self, context: Context, record: str, owner: str, delivery: Delivery | None = None) -> None:
        self.record = record
        self.owner = owner
        self._context = context
        self._tag = delivery.tag if delivery is not None else None
        self._reason: StopReason | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._keep,), name=f"lease-{record}", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def reason(self) -> StopReason | None:
        """Why to stop; None to go on."""
        return self._reason

    def check(self) -> None:
        """Raise `StopError` if the work is to stop."""
        if self._reason is not None:
            raise StopError(self._reason)

    def check_unless_handover(self) -> None:
        """As `check`, for work that hands over at a place of its own choice."""
        if self._reason is not StopReason.HANDOVER:
            self.check()

    def _keep(self) -> None:
        pause = min(LOOK_SECONDS, self._context.settings.lease_seconds / RENEWALS_PER_LEASE)
        renewed = 0.0
        while not self._ended.wait(pause):
            try:
                if time.monotonic() - renewed >= self._context.settings.lease_seconds / RENEWALS_PER_LEASE:
                    state = self._context.store.claims.renew(self.record, self.owner)
                    self._judge(state)
                    if state is not None:
                        self._context.metrics.lease_renewals.labels(kind_of(self.record)).inc()
                    if self._tag is not None:
                        renew_delivery(self._context.redis, self._tag)
                    renewed = time.monotonic()
                else:
                    found = self._context.store.records.get(self.record)
                    self._judge(found.state if found is not None else None)
            except RedisError as error:
                log.warning("lease_not_renewed", error=repr(error))
            if self._reason is None and self._context.stopping():
                self._reason = StopReason.HANDOVER

    def _judge(self, state: State | None) -> None:
        """A stop is final, but being cancelled or lost outranks a handover."""
        if self._reason in {StopReason.CANCELLED, StopReason.LOST}:
            return
        if state in {State.CANCELLING, State.CANCELLED}:
            self._reason = StopReason.CANCELLED
        elif state is not State.RUNNING:
            self._reason = StopReason.LOST
