"""Holds a record during work on it: renews the lease, and learns when the work must stop."""

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
from worker.attempt.retry import retry

log = structlog.stdlib.get_logger(__name__)

LOOK_SECONDS = 1.0
"""Seconds between two reads of the record; limits how long a cancelled job continues."""

RENEWALS_PER_LEASE = 6

CANCELLED = frozenset({State.CANCELLING, State.CANCELLED})


class StopReason(StrEnum):
    """Reasons to stop work before its end."""

    CANCELLED = "cancelled"
    LOST = "lost"
    HANDOVER = "handover"
    OVERDUE = "overdue"


class StopError(Exception):
    """Ends the work at its next check."""

    def __init__(self, reason: StopReason) -> None:
        self.reason = reason
        super().__init__(reason)


class Lease:
    """Renews an attempt's lease on a record in another thread, within a `with` block.

    While Redis is away, nothing is renewed and nothing stops; once it is back, the lease may turn out to be lost. The
    record refuses writes of an attempt that has lost its lease.

    Args:
        delivery: delivery of the message that started the attempt; it is renewed too, so that it does not come again.
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
        """Return why to stop; None to continue."""
        return self._reason

    def check(self) -> None:
        """Raise `StopError` if the work must stop."""
        if self._reason is not None:
            raise StopError(self._reason)

    def check_unless_handover(self) -> None:
        """Do the same as `check`, for work that chooses itself when to hand over."""
        if self._reason is not StopReason.HANDOVER:
            self.check()

    def check_cancelled(self) -> None:
        """Look at the record and raise `StopError` if it was cancelled: when it refuses a write, that may be why."""
        found = retry(lambda: self._context.store.records.get(self.record))
        if found is not None and found.state in CANCELLED:
            raise StopError(StopReason.CANCELLED)

    def _keep(self) -> None:
        pause = min(LOOK_SECONDS, self._context.settings.lease_seconds / RENEWALS_PER_LEASE)
        renewed, began = 0.0, time.monotonic()
        while not self._ended.wait(pause):
            try:
                if time.monotonic() - renewed >= self._context.settings.lease_seconds / RENEWALS_PER_LEASE:
                    state = self._context.store.claims.renew(self.record, self.owner)
                    self._update_reason(state)
                    if state is not None:
                        self._context.metrics.lease_renewals.labels(kind_of(self.record)).inc()
                    if self._tag is not None:
                        renew_delivery(self._context.redis, self._tag)
                    renewed = time.monotonic()
                else:
                    found = self._context.store.records.get(self.record)
                    self._update_reason(found.state if found is not None else None)
            except RedisError as error:
                log.warning("lease_not_renewed", error=repr(error))
            if self._reason is None and time.monotonic() - began > self._context.settings.max_run_seconds:
                self._reason = StopReason.OVERDUE
            if self._reason is None and self._context.stopping():
                self._reason = StopReason.HANDOVER

    def _update_reason(self, state: State | None) -> None:
        """Set the reason to stop; it is final, except that being cancelled or lost replaces a handover."""
        if self._reason in {StopReason.CANCELLED, StopReason.LOST}:
            return
        if state in CANCELLED:
            self._reason = StopReason.CANCELLED
        elif state is not State.RUNNING:
            self._reason = StopReason.LOST
