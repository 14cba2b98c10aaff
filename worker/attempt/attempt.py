"""One attempt at a record: claim it, work on it while the lease holds, and write how that ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from service.core.object_keys import Kind
from service.core.record import Record
from worker.attempt.claim import claim, claim_next
from worker.attempt.completion import Completion
from worker.attempt.context import Context, new_owner
from worker.attempt.delivery import Delivery
from worker.attempt.lease import Lease
from worker.attempt.workspace import workspace
from worker.monitoring.metrics import RunOutcome

log = structlog.stdlib.get_logger(__name__)


def run_attempt(
    context: Context,
    kind: Kind,
    record: str | None,
    delivery: Delivery | None,
    *,
    work: Callable[[Record, Lease, Path], bool],
    event: str,
) -> None:
    """Work on a record unless another worker does, or nothing is left to do.

    Args:
        record: id of the record; None for the next one of the kind.
        delivery: delivery of the message that started this.
        work: given the record, the lease and a scratch folder, says whether it has brought the record to success.
        event: log event of a successful claim.
    """
    owner = new_owner()
    if record is None:
        taken = claim_next(context, kind, owner, delivery)
    else:
        claims = context.store.claims
        take = claims.claim if kind is Kind.ADAPTER else claims.join
        taken = claim(context, record, owner, lambda: take(record, owner), delivery)
    if taken is None:
        return
    log.info(event)
    with (
        Lease(context, taken.id, owner, delivery) as lease,
        Completion(context, taken, lease, lambda: context.dispatcher.send_one(taken.id)) as completion,
        workspace(context.settings, owner) as folder,
    ):
        if work(taken, lease, folder):
            completion.ended = RunOutcome.SUCCEEDED
        else:
            lease.check_cancelled()
