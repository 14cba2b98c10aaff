"""Runs one worker's share of a job: samples blocks of candidates, filters them in order, and writes the dataset.

Any number of workers can share a job. A candidate depends only on the request and its index, and candidates are
filtered in the order of indices, so the dataset does not depend on how the work was shared.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import structlog

from model.generation.dataset import finish_dataset, shortfall
from model.generation.request import GenerationRequest
from model.method import DecodedPair
from model.runtime.concurrency import overlapped
from model.runtime.progress import Meter, Progress
from model.runtime.timing import stage
from service.core import object_keys
from service.core.errors import UsageError
from service.core.object_keys import Kind
from service.core.record import Record, State
from worker.attempt.attempt import run_attempt
from worker.attempt.completion import SCRATCH_PATIENCE, delete_beside, delete_scratch
from worker.attempt.context import Context
from worker.attempt.delivery import Delivery
from worker.attempt.lease import Lease
from worker.attempt.model_cache import Loaded
from worker.attempt.progress import Reporter
from worker.attempt.retry import retry, wait
from worker.attempt.upload import upload
from worker.generation.approved import ApprovedPairs
from worker.generation.blocks import Blocks
from worker.generation.earlier import EarlierPairs
from worker.generation.evaluated_job import EvaluatedJob
from worker.generation.evaluation import STAGE
from worker.generation.job import GenerationJob, prepare_job
from worker.generation.places import read_drawn
from worker.generation.rejected import REJECTED_KEPT, pack_rejected
from worker.generation.selection import Selection
from worker.generation.stored import store_dataset

log = structlog.stdlib.get_logger(__name__)

_Item = TypeVar("_Item")

IDLE_SECONDS = 0.2
"""Seconds between two attempts to claim a block, while other workers hold all of them."""


def run_generation(job: str | None, context: Context, *, delivery: Delivery | None = None) -> None:
    """Work on a job until it is done, and write the result or error to its record.

    Args:
        job: id of the job; None for the next one.
        delivery: delivery of the message that started this.
    """
    run_attempt(
        context,
        Kind.JOB,
        job,
        delivery,
        work=lambda record, lease, folder: _share_of(record)(context, record, lease, folder).run(),
        event="generation_joined",
    )


def _share_of(record: Record) -> type[_Generation | ApprovedPairs]:
    return ApprovedPairs if record.is_selection else _Generation


@dataclass(frozen=True, slots=True)
class _Round:
    """A sampled block to complete and store; or no block, only an opportunity to filter those of other workers."""

    block: int | None = None
    decoded: Sequence[DecodedPair] = ()


class _Generation:
    """Samples blocks, while another thread stores and filters the block before; at most one block waits for it."""

    def __init__(self, context: Context, record: Record, lease: Lease, folder: Path) -> None:
        self._context = context
        self._record = record
        self._lease = lease
        self._folder = folder
        self._report = Reporter(context, record.id, lease.owner)
        self._blocks = Blocks(context, record.id, lease.owner, folder / "blocks", lease.check)
        self._earlier = EarlierPairs(context, record, lease, folder)

    def run(self) -> bool:
        """Do this worker's share; returns whether this worker completed the job."""
        if self._record.counts is None:  # otherwise another worker has already reported more
            self._report.stage("prepare")
        asked = self._record.request
        loaded = self._context.model_cache.adapter(asked["adapter_id"], self._lease.check)
        drawn = read_drawn(self._context.objects, self._record.id, asked, self._lease.check)
        job = prepare_job(asked, loaded, drawn)
        self._report.request = {**asked, **job.request.settings.as_dict(), "limits": asdict(job.request.limits)}
        selection = Selection(self._context, self._lease, self._blocks, job, self._earlier)
        selection.look()
        if self._share(job, selection):
            return self._finish(job.request, loaded, selection)
        return False

    def _share(self, job: GenerationJob, selection: Selection) -> bool:
        """Sample, store and filter until there are enough pairs; returns whether this worker writes the dataset."""
        meter = Meter("sample", job.request.num_pairs, "pairs", resumed=selection.counts.accepted)
        leading = False

        def keep(one: _Round) -> bool:
            if one.block is not None:
                self._store(one.block, one.decoded)
            led = selection.advance()
            selection.look()
            return led

        def enough(waiting: int) -> bool:
            return selection.counts.accepted + waiting * job.block_size >= job.request.num_pairs

        with closing(overlapped(self._sampled(job, selection), keep, ahead=1, enough=enough)) as rounds:
            for item in rounds:
                self._lease.check()
                if not isinstance(item, Progress):
                    leading = item
                if leading:  # Only the worker that filters knows the current counts.
                    counts = selection.counts
                    self._report.report(meter.report(counts.accepted), counts.as_dict())
                if selection.complete and not isinstance(item, Progress):
                    if leading:
                        return True
                    if self._others_finish():
                        return False
        raise AssertionError("rounds continue until the job is complete")

    def _others_finish(self) -> bool:
        """Return whether the worker that filters needs no other: it has ended the job, or evaluates the pairs.

        If it dies before, another one takes over; later, its lease expires and the reconciler sends the job again.
        """
        wait(IDLE_SECONDS, self._lease.check)
        record = retry(lambda: self._context.store.records.get(self._record.id), self._lease.check)
        if record is None or record.state is not State.RUNNING:
            return True
        if (record.progress or {}).get("stage") != STAGE:
            return False
        retry(lambda: self._context.store.claims.leave_to_others(self._record.id, self._lease.owner), self._lease.check)
        return True

    def _sampled(self, job: GenerationJob, selection: Selection) -> Generator[Progress | _Round, None, None]:
        record, owner, store = self._record.id, self._lease.owner, self._context.store
        ahead = 2 * self._context.settings.max_shards
        made: int | None = None
        yield _Round()
        while True:
            number = None
            if not selection.complete:
                claim = functools.partial(store.blocks.claim, record, owner, ahead=ahead, stop=job.blocks, besides=made)
                number = retry(claim, self._lease.check)
                if number is None:
                    wait(IDLE_SECONDS, self._lease.check)
            if number is None:
                yield _Round()
                continue
            decoded = yield from self._sample_block(job, job.indices(number), selection)
            yield _Round(number, decoded)
            made = number

    def _sample_block(
        self, job: GenerationJob, indices: Sequence[int], selection: Selection
    ) -> Generator[Progress, None, list[DecodedPair]]:
        def is_needed(index: int) -> bool:
            return job.request.is_needed(index, selection.counts)

        began, metrics, budget = time.perf_counter(), self._context.metrics, job.sampler.budget
        halvings, decoded = budget.halvings, list[DecodedPair]()
        for item in job.sampler.decoded(indices[0], indices[-1] + 1, is_needed):
            if isinstance(item, Progress):
                yield item
            else:
                decoded.append(item)
        if budget.halvings > halvings:  # if a single pair does not fit, the attempt ends, which counts it
            log.warning("batch_halved", batch=budget.pairs)
            metrics.out_of_memory.labels(self._record.kind).inc(budget.halvings - halvings)
        metrics.sampled(len(decoded), min(job.block_size, budget.pairs), time.perf_counter() - began)
        return decoded

    def _store(self, number: int, decoded: Sequence[DecodedPair]) -> None:
        job, owner, store = self._record.id, self._lease.owner, self._context.store
        candidates = [decoded_pair.to_candidate() for decoded_pair in decoded]
        with stage("store"):
            key = self._blocks.store(number, candidates)
        retry(lambda: store.blocks.finish(job, number, owner, key), self._lease.check)

    def _finish(self, request: GenerationRequest, loaded: Loaded, selection: Selection) -> bool:
        job, owner, check = self._record.id, self._lease.owner, self._lease.check
        partial = None
        if selection.counts.accepted < request.num_pairs:
            self._report.report(Progress("finish", 0, 1, "parts"), selection.counts.as_dict())
            message = shortfall(selection.counts, request)
            partial = f"{message}; allow more attempts, loosen the limits, or train longer"
            if not selection.counts.accepted:
                raise UsageError(partial)
        evaluation = self._evaluated(request, loaded, selection)
        self._report.report(Progress("finish", 0, 1, "parts"), selection.counts.as_dict())
        path = self._folder / "dataset.zip"
        self._write(request, selection, evaluation, path)
        stored, size = store_dataset(self._context, self._record, self._lease, path)
        counts = selection.counts.as_dict()
        kept = self._keep_rejected(selection, self._folder / "rejected.zip")
        if kept:
            stored["rejected"] = object_keys.rejected(job, owner)
        self._report.report(Progress("finish", 1, 1, "parts"), counts)
        result = {"request": self._report.request, "counts": counts, **stored}
        if partial is not None:
            result["partial"] = {"num_pairs": counts["accepted"], "code": "attempts_used_up", "detail": partial}
        if evaluation is not None:
            result["verdict"] = evaluation["verdict"]
        stored_bytes = self._record.stored_bytes + size + kept  # drawn masks are stored already
        succeeded = retry(lambda: self._context.store.claims.succeed(job, owner, result, stored_bytes), check)
        if succeeded:
            log.info("generation_succeeded", bytes=stored["bytes"])
            retry(lambda: self._delete_others(stored["dataset"]), patience=SCRATCH_PATIENCE)
        return succeeded

    def _keep_rejected(self, selection: Selection, path: Path) -> int:
        """Store small pictures of the first rejected candidates; returns their size in bytes, 0 if there are none."""
        rejected = self._checked(islice(selection.rejected(), REJECTED_KEPT))
        if not pack_rejected(path, rejected):
            return 0
        key = object_keys.rejected(self._record.id, self._lease.owner)
        upload(self._context.objects, key, path, "application/zip", self._lease.check)
        return path.stat().st_size

    def _evaluated(self, request: GenerationRequest, loaded: Loaded, selection: Selection) -> dict[str, Any] | None:
        """Measure what the pairs are worth, if that was asked for."""
        asked = self._record.request
        if asked.get("evaluation") is None:
            return None
        job = EvaluatedJob(self._context, self._lease, self._report, asked, self._folder / "evaluation")
        return job.evaluate(request, loaded, self._checked(selection.accepted()))

    def _delete_others(self, dataset: str) -> None:
        """Delete what only unfinished work needs, and results of attempts that died before reporting them."""
        delete_scratch(self._context.objects, self._record.id)
        delete_beside(self._context.objects, object_keys.results(self._record.id), f"{dataset.rpartition('/')[0]}/")

    def _write(
        self, request: GenerationRequest, selection: Selection, evaluation: dict[str, Any] | None, path: Path
    ) -> None:
        finish_dataset(
            request,
            path,
            self._checked(selection.accepted()),
            selection.counts,
            normals=self._checked(request.normals),
            evaluation=evaluation,
            follows=self._earlier.described(),
        )

    def _checked(self, items: Iterable[_Item]) -> Iterator[_Item]:
        for item in items:
            self._lease.check()
            yield item
