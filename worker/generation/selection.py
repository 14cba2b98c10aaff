"""Filters the blocks of a job in order, from all workers; one worker at a time does it, from where the last stopped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from model.generation.counts import Counts
from model.generation.filter import CandidateFilter
from model.types import Candidate
from worker.attempt.context import Context
from worker.attempt.lease import Lease, StopError, StopReason
from worker.attempt.retry import retry
from worker.generation.blocks import Blocks, BlockVerdict
from worker.generation.job import GenerationJob


class Selection:
    """Holds the verdicts that one worker knows, and adds to them while this worker filters the candidates.

    The filter remembers accepted pairs to find copies of them; a worker that takes over filtering reads them from the
    blocks first. Used by one thread; others may read `counts`, which is replaced and never changed.

    Args:
        earlier: pairs of other jobs that the job's own pairs must not be copies of.

    Attributes:
        counts: the counts that this worker knows.
    """

    def __init__(
        self, context: Context, lease: Lease, blocks: Blocks, job: GenerationJob, earlier: Iterable[Candidate]
    ) -> None:
        self.counts = Counts()
        self._store = context.store
        self._metrics = context.metrics
        self._lease = lease
        self._blocks = blocks
        self._job = job
        self._earlier = earlier
        self._candidate_filter: CandidateFilter | None = None
        self._next = 0
        self._accepted: dict[int, list[int]] = {}
        self._blocks_done: dict[int, str] = {}

    @property
    def complete(self) -> bool:
        """Return whether filtering is over: there are enough pairs, or no attempts left."""
        return self._ends(self.counts)

    def _ends(self, counts: Counts) -> bool:
        return counts.accepted >= self._job.request.num_pairs or counts.reached >= self._job.request.attempts_allowed

    def look(self) -> None:
        """Update the counts from the worker that filters the candidates."""
        state = self._retried(lambda: self._store.blocks.judged(self._lease.record))
        if state is not None:
            self.counts = Counts.from_dict(state)

    def advance(self) -> bool:
        """Filter all finished blocks, unless another worker filters; returns whether this one does."""
        job, owner = self._lease.record, self._lease.owner
        if not self._retried(lambda: self._store.blocks.claim_judge(job, owner)):
            return False
        candidate_filter = self._catch_up()
        while not self.complete and self._next in self._blocks_done:
            self._filter_block(candidate_filter)
        return True

    def accepted(self) -> Iterator[Candidate]:
        """Yield the accepted pairs in order, block after block."""
        self._catch_up()
        verdicts = self._retried(lambda: self._store.blocks.verdicts(self._lease.record))
        for number in sorted(self._accepted):
            if not self._accepted[number]:
                continue
            scores = self._blocks.verdict(verdicts[number]).accepted
            for candidate in self._blocks.candidates(self._blocks_done[number], self._accepted[number]):
                candidate.scores.update(scores[candidate.index])
                yield candidate

    def rejected(self) -> Iterator[tuple[Candidate, list[str]]]:
        """Yield the rejected candidates in order, with the reasons."""
        self._catch_up()
        for number, key in self._retried(lambda: self._store.blocks.verdicts(self._lease.record)).items():
            found = self._blocks.verdict(key).rejected
            for candidate in self._blocks.candidates(self._blocks_done[number], list(found)) if found else ():
                reasons, scores = found[candidate.index]
                candidate.scores.update(scores)
                yield candidate, reasons

    def _filter_block(self, candidate_filter: CandidateFilter) -> None:
        number = self._next
        accepted: dict[int, dict[str, float]] = {}
        rejected: dict[int, tuple[list[str], dict[str, float]]] = {}
        before, counts = self.counts, copy.deepcopy(self.counts)
        made = {candidate.index: candidate for candidate in self._blocks.candidates(self._blocks_done[number])}
        for index in self._job.indices(number):
            self._lease.check()
            if self._ends(counts):
                break
            if not self._job.request.is_needed(index, counts):
                counts.skipped += 1
                continue
            candidate = made[index]
            verdict = candidate_filter.verdict(candidate)
            counts.count(verdict, self._job.request.kind(index))
            if verdict.accepted:
                accepted[candidate.index] = candidate.scores
            else:
                rejected[candidate.index] = [str(reason) for reason in verdict.reasons], candidate.scores
        key = self._blocks.store_verdict(number, BlockVerdict(accepted, rejected))
        self._accepted[number] = list(accepted)
        self._next += 1
        state = {"next_block": self._next, **counts.as_dict()}
        job, owner = self._lease.record, self._lease.owner
        if not self._retried(lambda: self._store.blocks.save_judged(job, owner, state, key)):
            self._lease.check_cancelled()
            raise StopError(self._lease.reason or StopReason.LOST)
        self.counts = counts
        self._metrics.judged.inc(counts.attempts - before.attempts)
        self._metrics.accepted.inc(len(accepted))
        for reason, count in (counts.rejected - before.rejected).items():
            self._metrics.rejected.labels(reason).inc(count)

    def _catch_up(self) -> CandidateFilter:
        """Return a filter that knows all accepted pairs, including those that other workers accepted."""
        state = self._retried(lambda: self._store.blocks.judged(self._lease.record))
        if self._candidate_filter is None:
            candidate_filter = self._job.candidate_filter()
            for candidate in self._earlier:
                candidate_filter.remember(candidate)
            self._candidate_filter = candidate_filter
        reached = 0 if state is None else int(state["next_block"])
        self._blocks_done = self._retried(lambda: self._store.blocks.finished(self._lease.record))
        verdicts = (
            self._retried(lambda: self._store.blocks.verdicts(self._lease.record)) if self._next < reached else {}
        )
        while self._next < reached:
            verdict = self._blocks.verdict(verdicts[self._next])
            for candidate in self._blocks.candidates(self._blocks_done[self._next], list(verdict.accepted)):
                self._candidate_filter.remember(candidate)
            self._accepted[self._next] = list(verdict.accepted)
            self._next += 1
        if state is not None:
            self.counts = Counts.from_dict(state)
        return self._candidate_filter

    def _retried(self, action: Callable[[], Any]) -> Any:
        return retry(action, self._lease.check)
