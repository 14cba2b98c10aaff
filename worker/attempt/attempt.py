"""One attempt at a record: claim it, work on it while the lease holds, and write how that ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from service.core.record import Record
from worker.attempt.claim import claim
from worker.attempt.completion import Completion
from worker.attempt.context import Context, new_owner
from worker.attempt.delivery import Delivery
from worker.attempt.lease import Lease
from worker.attempt.workspace import workspace
from worker.monitoring.metrics import RunOutcome

log = structlog.stdlib.get_logger(__name__)


def run_attempt(
    context: Context,
    record: str,
    delivery: Delivery | None,
    *,
    take: Callable[[str, str], Record | None],
    send: Callable[[], object],
    work: Callable[[Record, Lease, Path], bool],
    event: str,
) -> None:
    """Work on a record unless another worker does, or nothing is left to do.

    Args:
        delivery: delivery of the message that started this.
        take: tries once to claim the record for an owner.
        send: sends a message for the record to its queue, where it is to be tried again.
        work: given the record, the lease and a scratch folder, says whether it has brought the record to success.
        event: log event of a successful claim.
    """
    owner = new_owner()
    taken = claim(context, record, owner, lambda: take(record, owner), delivery)
    if taken is None:
        return
    log.info(event)
    with (
        Lease(context, record, owner, delivery) as lease,
        Completion(context, taken, lease, send) as completion,
        workspace(context.settings, owner) as folder,
    ):
        if work(taken, lease, folder):
            completion.ended = RunOutcome.SUCCEEDED
