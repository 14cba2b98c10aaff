"""Judging the blocks of a job in order, whoever made them: one worker at a time goes on where the last stopped."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from model.generation import Judge, Tally
from model.types import Candidate
from worker.blocks import Blocks, Verdict
from worker.context import Context
from worker.lease import Lease, StopError, StopReason
from worker.patience import patiently
from worker.plan import Plan


class Judging:
    """What one worker knows of the verdicts so far, and adds while it is the judge.

    The judge remembers accepted pairs to find copies of them; a worker that becomes judge reads them from the blocks
    first. For one thread; others may look at the tally, which is replaced and never changed.

    Attributes:
        tally: as far as this worker knows.
    """

    def __init__(self, context: Context, lease: Lease, blocks: Blocks, plan: Plan) -> None:
        self.tally = Tally()
        self._records = context.records
        self._metrics = context.metrics
        self._lease = lease
        self._blocks = blocks
        self._plan = plan
        self._judge: Judge | None = None
        self._next = 0
        self._accepted: dict[int, list[int]] = {}
        self._blocks_done: dict[int, str] = {}

    @property
    def complete(self) -> bool:
        """Whether nothing is left to judge: enough pairs, or no attempts."""
        return self._ends(self.tally)

    def _ends(self, tally: Tally) -> bool:
        return tally.accepted >= self._plan.num_pairs or tally.attempts >= self._plan.allowed

    def look(self) -> None:
        """Learn how far the judge got, whoever that is."""
        state = self._told(lambda: self._records.judged(self._lease.record))
        if state is not None:
            self.tally = _tally(state)

    def advance(self) -> bool:
        """Judge all blocks that are there, if no other worker is the judge; returns whether this one is."""
        job, owner = self._lease.record, self._lease.owner
        if not self._told(lambda: self._records.claim_judge(job, owner)):
            return False
        judge = self._catch_up()
        while not self.complete and self._next in self._blocks_done:
            self._judge_block(judge)
        return True

    def accepted(self) -> Iterator[Candidate]:
        """The accepted pairs in order, block after block."""
        self._catch_up()
        verdicts = self._told(lambda: self._records.verdicts(self._lease.record))
        for number in sorted(self._accepted):
            if not self._accepted[number]:
                continue
            scores = self._blocks.verdict(verdicts[number]).accepted
            for candidate in self._blocks.candidates(self._blocks_done[number], self._accepted[number]):
                candidate.scores.update(scores[candidate.index])
                yield candidate

    def _judge_block(self, judge: Judge) -> None:
        number = self._next
        accepted: dict[int, dict[str, float]] = {}
        before, tally = self.tally, copy.deepcopy(self.tally)
        for candidate in self._blocks.candidates(self._blocks_done[number]):
            self._lease.check()
            if self._ends(tally):
                break
            judged = judge.verdict(candidate)
            tally.count(judged)
            if judged.accepted:
                accepted[candidate.index] = candidate.scores
        verdict = self._blocks.store_verdict(number, Verdict(accepted))
        self._accepted[number] = list(accepted)
        self._next += 1
        state = {"next_block": self._next, **tally.as_dict()}
        job, owner = self._lease.record, self._lease.owner
        if not self._told(lambda: self._records.save_judged(job, owner, state, verdict)):
            raise StopError(self._lease.reason or StopReason.LOST)
        self.tally = tally
        self._metrics.judged.inc(tally.attempts - before.attempts)
        self._metrics.accepted.inc(len(accepted))
        for reason, count in (tally.rejected - before.rejected).items():
            self._metrics.rejected.labels(reason).inc(count)

    def _catch_up(self) -> Judge:
        """A judge that knows all that was accepted, also by others."""
        state = self._told(lambda: self._records.judged(self._lease.record))
        if self._judge is None:
            self._judge = self._plan.judge()
        reached = 0 if state is None else int(state["next_block"])
        self._blocks_done = self._told(lambda: self._records.blocks_done(self._lease.record))
        verdicts = self._told(lambda: self._records.verdicts(self._lease.record)) if self._next < reached else {}
        while self._next < reached:
            verdict = self._blocks.verdict(verdicts[self._next])
            for candidate in self._blocks.candidates(self._blocks_done[self._next], list(verdict.accepted)):
                self._judge.remember(candidate)
            self._accepted[self._next] = list(verdict.accepted)
            self._next += 1
        if state is not None:
            self.tally = _tally(state)
        return self._judge

    def _told(self, action: Callable[[], Any]) -> Any:
        return patiently(action, self._lease.check)


def _tally(state: dict[str, Any]) -> Tally:
    return Tally(state["attempts"], state["accepted"], Counter(state["rejected"]))
