"""Claims a certain record, or the next one, also from a worker that just died."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from structlog.contextvars import bind_contextvars

from service.core import object_keys
from service.core.object_keys import Kind
from service.core.record import Record, State
from worker.attempt.context import Context
from worker.attempt.delivery import Delivery
from worker.attempt.retry import retry, wait

log = structlog.stdlib.get_logger(__name__)


def claim(
    context: Context, record: str, owner: str, attempt: Callable[[], Record | None], delivery: Delivery | None
) -> Record | None:
    """Claim the record; returns None if another worker works on it, or nothing is left to do.

    A message is delivered again at about the time when the lease of its dead worker ends. A living worker renews its
    lease several times as often, so this waits for a lease that is not renewed.

    Args:
        owner: name of this attempt.
        attempt: tries once to claim the record.
        delivery: delivery of the message.
    """
    taken = _claimed(context, record, attempt)
    kind = object_keys.kind_of(record)
    _count(context, kind, taken, owner, delivery)
    return taken


def claim_next(context: Context, kind: Kind, owner: str, delivery: Delivery | None) -> Record | None:
    """Claim the next record of a kind; returns None if there is nothing to do.

    Waits for a lease that may be a dead worker's, for the message is delivered again at about the time when it ends.
    """
    taken, soon = retry(lambda: context.store.claims.next(kind, owner))
    while taken is None and soon and not context.stopping():
        wait(0.3)
        taken, soon = retry(lambda: context.store.claims.next(kind, owner))
    if taken is None:
        log.info("nothing_to_do")
    else:
        bind_contextvars(record=taken.id, attempt=taken.attempt, request_id=taken.request_id)
    _count(context, kind, taken, owner, delivery)
    return taken


def _count(context: Context, kind: Kind | None, taken: Record | None, owner: str, delivery: Delivery | None) -> None:
    begun = taken is not None and taken.owner == owner
    metrics = context.metrics
    if taken is not None and begun:
        metrics.queue_wait.labels(kind).observe(taken.transitions[State.RUNNING] - taken.transitions[State.QUEUED])
    if (delivery is not None and delivery.again) or (taken is not None and begun and taken.attempt > 1):
        metrics.redeliveries.labels(kind).inc()


def _claimed(context: Context, record: str, attempt: Callable[[], Record | None]) -> Record | None:
    bind_contextvars(record=record)
    renewed_to = 0.0
    while True:
        taken = retry(attempt)
        if taken is not None:
            bind_contextvars(attempt=taken.attempt, request_id=taken.request_id)
            return taken
        found = retry(lambda: context.store.records.get(record))
        if found is not None and found.state is State.CANCELLED:
            retry(lambda: context.objects.delete_prefix(object_keys.prefix(record)))
        held = found is not None and found.state in {State.RUNNING, State.CANCELLING}
        until = (found.lease_until or 0.0) if found is not None and held else 0.0
        renewed = renewed_to and until > renewed_to
        fresh = until - retry(context.store.upkeep.now) > 0.75 * context.settings.lease_seconds
        if not held or renewed or fresh or context.stopping():
            log.info("not_claimed", state=found.state if found is not None else "removed")
            return None
        renewed_to = until
        wait(0.3)
