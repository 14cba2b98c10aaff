"""Writes to the record how an attempt ended: done, failed for good, to be retried, or handed over."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import structlog
import torch
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from service.core import object_keys
from service.core.disk import disk_is_full
from service.core.errors import DivergedError, TransientError, UsageError
from service.core.record import Record
from service.core.storage import ObjectStore
from worker.attempt.context import Context
from worker.attempt.lease import Lease, StopError, StopReason
from worker.attempt.retry import retry, wait
from worker.attempt.workspace import is_crowded
from worker.monitoring.gpu import forget_peak
from worker.monitoring.metrics import RunOutcome

log = structlog.stdlib.get_logger(__name__)

ENDING_PATIENCE = 30.0
"""Seconds to retry writing the end to the record; after that, the lease expires and the reconciler finds the record."""


FREEING_PATIENCE = 1.0

SCRATCH_PATIENCE = 5.0
"""Seconds to retry deleting scratch objects; they are deleted with the record in any case."""

PAUSE = 30.0
"""Seconds that a worker takes no new work after it ran out of disk space or memory, since that would fail as well."""


def delete_scratch(objects: ObjectStore, record: str) -> None:
    """Delete objects that only unfinished work needs."""
    for folder in ("checkpoints", "blocks", "evaluation"):
        objects.delete_prefix(f"{object_keys.prefix(record)}{folder}/")


def delete_beside(objects: ObjectStore, folder: str, kept: str) -> None:
    """Delete the folders of all attempts in a folder, except the one to keep."""
    found = {folder + each.key.removeprefix(folder).partition("/")[0] + "/" for each in objects.list(folder)}
    for other in sorted(found - {kept}):
        objects.delete_prefix(other)


class Completion:
    """Ends the attempt by what its `with` block raises; only errors that end the process pass through.

    Args:
        send: sends a message for the record to its queue.

    Attributes:
        ended: how the attempt ended; the block sets it on success.
    """

    def __init__(self, context: Context, record: Record, lease: Lease, send: Callable[[], object]) -> None:
        self._context = context
        self._record = record
        self._owner = lease.owner
        self._lease = lease
        self._send = send
        self._metrics = context.metrics
        self._began = time.perf_counter()
        self.ended = RunOutcome.ELSEWHERE

    def __enter__(self) -> Self:
        self._metrics.busy.set(1)
        forget_peak()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            return self._handled(error)
        finally:
            seconds = time.perf_counter() - self._began
            self._metrics.runs.labels(self._record.kind, self.ended).observe(seconds)
            self._metrics.training_loss.set(0)
            self._metrics.busy.set(0)

    def _handled(self, error: BaseException | None) -> bool:
        if not isinstance(error, Exception):
            return error is None
        if self._lease.reason in {StopReason.CANCELLED, StopReason.LOST}:
            error = StopError(self._lease.reason)
        try:
            self._end(self._after_pause(error))
        except (RedisError, TransientError, OperationalError) as away:
            log.warning("end_not_told", error=repr(away))
        return True

    def _after_pause(self, error: Exception) -> Exception:
        """Return the error to end with, after a pause in which the machine may recover; the record is held meanwhile.

        A disk that is full although this attempt's files are gone is not the record's fault, so it is handed over.
        """
        try:
            if disk_is_full(error) and is_crowded(self._context.settings):
                log.warning("disk_full")
                self._wait_for_room()
                return StopError(StopReason.HANDOVER)
            if isinstance(error, torch.OutOfMemoryError | MemoryError):
                log.warning("memory_short")
                self._metrics.out_of_memory.labels(self._record.kind).inc()
                wait(PAUSE, self._lease.check)
        except StopError as stopped:
            return stopped
        return error

    def _wait_for_room(self) -> None:
        until = time.monotonic() + PAUSE
        while is_crowded(self._context.settings) and time.monotonic() < until:
            wait(1.0, self._lease.check)

    def _end(self, error: Exception) -> None:
        match error:
            case StopError(reason=StopReason.CANCELLED):
                self._cancel()
            case StopError(reason=StopReason.LOST):
                self.ended = RunOutcome.LOST
                self._metrics.leases_lost.labels(self._record.kind).inc()
                log.warning("lease_lost")
            case StopError(reason=StopReason.OVERDUE):
                hours = self._context.settings.max_run_seconds / 3600
                self._fail("took_too_long", f"stopped after {hours:g} hours, the longest that this server works on it")
            case StopError():
                self._hand_over()
            case DivergedError():
                self._fail("diverged", error.summary, error.problems)
            case UsageError():
                self._fail("unusable_input", error.summary or error.problems[0], error.problems)
            case TransientError() | RedisError() | OperationalError():
                self._try_again(str(error))
            case torch.OutOfMemoryError() | MemoryError():
                self._try_again("the worker ran out of memory, even with batches of one")
            case _ if disk_is_full(error):
                self._try_again("the worker's disk is full")
            case _:
                log.error("attempt_broke", exc_info=error)
                self._fail("internal_error", f"an internal error occurred: {type(error).__name__}")

    def _cancel(self) -> None:
        """Delete the objects, then mark the record; the reconciler deletes objects that remain."""
        self.ended = RunOutcome.CANCELLED
        store, objects, record = self._context.store, self._context.objects, self._record.id
        try:
            retry(lambda: objects.delete_prefix(object_keys.prefix(record)), patience=FREEING_PATIENCE)
        except TransientError as away:
            log.warning("objects_left_behind", error=repr(away))
        self._retried(lambda: store.claims.mark_cancelled(record, self._owner))
        log.info("cancelled")

    def _try_again(self, reason: str) -> None:
        """Queue the record again after a pause, when the reconciler sends its message.

        The record limits the attempts, and fails with the reason after the last.
        """
        self.ended = RunOutcome.RETRIED
        self._metrics.retries.labels(self._record.kind).inc()
        log.warning("attempt_failed", reason=reason)
        self._retried(lambda: self._context.store.claims.retry(self._record.id, self._owner, reason))

    def _hand_over(self) -> None:
        self.ended = RunOutcome.HANDED_OVER
        if self._retried(lambda: self._context.store.claims.release(self._record.id, self._owner)):
            self._retried(self._send)

    def _fail(self, code: str, detail: str, problems: list[str] | None = None) -> None:
        """Mark the record as failed and delete what it no longer needs; `code` is one of `service.core.failures`."""
        self.ended = RunOutcome.FAILED
        error: dict[str, Any] = {"code": code, "detail": detail, "problems": problems or []}
        record = self._record.id
        log.info("failed", code=code)
        if self._retried(lambda: self._context.store.claims.fail(record, self._owner, error)):
            retry(lambda: delete_scratch(self._context.objects, record), patience=SCRATCH_PATIENCE)

    def _retried(self, action: Callable[[], Any]) -> Any:
        return retry(action, patience=ENDING_PATIENCE)
