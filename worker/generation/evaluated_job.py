"""Evaluates a job's pairs so that the dataset is never lost by it, and goes on after the rows of earlier attempts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog
import torch
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from model.generation.request import GenerationRequest
from model.runtime.progress import Progress
from model.types import Candidate
from service.core import object_keys
from service.core.errors import TransientError, UsageError
from service.core.options.evaluation import DURATIONS, FOR_GPUS
from service.core.storage import MissingObject
from worker.attempt.context import Context
from worker.attempt.inputs import read_held_out, read_inputs
from worker.attempt.lease import Lease, StopError
from worker.attempt.model_cache import Loaded
from worker.attempt.progress import Reporter
from worker.attempt.retry import retry
from worker.generation.evaluation import (
    ROWS,
    STAGE,
    MeasuredRow,
    evaluate_pairs,
    not_measured,
    prepare_evaluation,
    rows_of,
)

log = structlog.stdlib.get_logger(__name__)

CHECKPOINT = "evaluation"
"""Part of a job's checkpoint: name of a row → object key of its numbers."""


class EvaluatedJob:
    """The evaluation of one job by one attempt.

    Args:
        asked: the job's request.
        work: folder for the rows' numbers.
    """

    def __init__(self, context: Context, lease: Lease, report: Reporter, asked: dict[str, Any], work: Path) -> None:
        options = asked["evaluation"]
        self._context = context
        self._lease = lease
        self._report = report
        self._adapter = asked["adapter_id"]
        self._profile = context.profiles[options["profile"]].with_choices(seeds=options["seeds"])
        self._work = work
        self._kept: dict[str, str] = {}

    def evaluate(self, request: GenerationRequest, loaded: Loaded, accepted: Iterable[Candidate]) -> dict[str, Any]:
        """Measure the accepted pairs; where that fails, the verdict says why.

        Raises:
            StopError: the work must stop.
            TransientError: a server is away.
        """
        try:
            return self._measured(request, loaded, accepted)
        except (StopError, TransientError, RedisError, OperationalError):
            raise
        except UsageError as error:
            return self._failed("; ".join(error.problems))
        except (MemoryError, torch.OutOfMemoryError):
            return self._failed("the worker ran out of memory")
        except Exception as error:  # noqa: BLE001  the pairs are good, whatever went wrong here
            return self._failed(f"an internal error occurred: {type(error).__name__}", error)

    def _measured(self, request: GenerationRequest, loaded: Loaded, accepted: Iterable[Candidate]) -> dict[str, Any]:
        _require_gpu(self._profile.name, request.adapter.base.device)
        check, objects = self._lease.check, self._context.objects
        record = retry(lambda: self._context.store.records.get(self._lease.record), check)
        starts = record.strikes + record.deaths if record is not None else 0
        if starts >= self._context.settings.max_attempts:
            raise UsageError(f"left out, because the last {starts} starts of this job ended without progress")
        before = record.checkpoint.get(CHECKPOINT, {}) if record is not None and record.checkpoint is not None else {}
        self._report.report(Progress(STAGE, len(before), len(ROWS) * len(self._profile.seeds), "rows"))
        training, held_out = read_inputs(objects, self._adapter, check), read_held_out(objects, self._adapter, check)
        evaluation = prepare_evaluation(request, loaded.networks, accepted, training, held_out, self._profile)
        for each in rows_of(evaluation, self._work):
            self._restore(each, before.get(each.name))
        return evaluate_pairs(evaluation, self._work, self._on_progress, self._keep)

    def _on_progress(self, progress: Progress) -> None:
        self._lease.check()
        self._report.report(progress)

    def _restore(self, row: MeasuredRow, key: str | None) -> None:
        """Download a row's numbers, unless they are gone."""
        if key is None:
            return
        row.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            retry(lambda: self._context.objects.download(key, row.path), self._lease.check)
        except MissingObject:
            return
        self._kept[row.name] = key

    def _keep(self, row: MeasuredRow) -> None:
        """Store a row's numbers for later attempts."""
        job, owner, check = self._lease.record, self._lease.owner, self._lease.check
        key = object_keys.evaluated(job, row.seed, row.row.name, owner)
        retry(lambda: self._context.objects.put(key, row.path, content_type="application/json"), check)
        self._kept[row.name] = key
        checkpoint = {CHECKPOINT: dict(self._kept)}
        retry(lambda: self._context.store.claims.save_checkpoint(job, owner, checkpoint), check)

    def _failed(self, detail: str, error: Exception | None = None) -> dict[str, Any]:
        log.warning("evaluation_failed", detail=detail, exc_info=error)
        return not_measured(self._profile, detail)


def _require_gpu(profile: str, device: torch.device) -> None:
    """Refuse to measure on a CPU what would take days there.

    Raises:
        UsageError: names the profiles that a CPU can do.
    """
    if profile in FOR_GPUS and device.type == "cpu":
        others = " or ".join(name for name in DURATIONS if name not in FOR_GPUS)
        raise UsageError(f"the profile {profile} needs a GPU; this worker computes on a CPU: ask for {others}")
