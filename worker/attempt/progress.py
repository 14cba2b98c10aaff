"""Reports progress to a record: often enough to watch, rarely enough to cost nothing."""

from __future__ import annotations

import math
import time
from typing import Any

import structlog
from redis.exceptions import RedisError

from model.runtime.progress import Progress
from worker.attempt.context import Context

log = structlog.stdlib.get_logger(__name__)

PAUSE = 1.0
"""Seconds between two reports of the same stage."""


class Reporter:
    """Writes progress to a record; skips reports when Redis fails.

    Attributes:
        request: the request with all defaults filled in; part of every report once it is known.
    """

    def __init__(self, context: Context, record: str, owner: str) -> None:
        self.request: dict[str, Any] | None = None
        self._context = context
        self._record = record
        self._owner = owner
        self._reported_at = 0.0
        self._stage = ""

    def report(self, progress: Progress, counts: dict[str, Any] | None = None) -> None:
        """Write progress, unless the same stage was reported a moment ago and is not complete.

        A loss that is not finite is left out, as JSON cannot hold it; a training fails by it, a detector need not.
        """
        now = time.monotonic()
        if progress.stage == self._stage and now - self._reported_at < PAUSE and progress.completed < progress.total:
            return
        self._reported_at, self._stage = now, progress.stage
        facts: dict[str, Any] = {
            "stage": progress.stage,
            "completed": progress.completed,
            "total": progress.total,
            "unit": progress.unit,
            "rate": round(progress.rate, 4) or None,
            "eta": None if progress.eta is None else round(progress.eta, 1),
        }
        if progress.loss is not None and math.isfinite(progress.loss):
            facts["loss"] = progress.loss
        if self.request is not None:
            facts["request"] = self.request
        try:
            self._context.store.claims.report(self._record, self._owner, facts, counts)
        except RedisError as error:
            log.warning("report_lost", error=repr(error))

    def stage(self, name: str) -> None:
        """Report the start of a stage without units."""
        self.report(Progress(name, 0, 1, "parts"))
