"""Generates the requested number of accepted pairs: samples, checks and replaces rejected ones, up to a limit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable
from contextlib import closing

from model.generation.counts import Counts
from model.generation.filter import CandidateFilter
from model.generation.request import GenerationRequest
from model.method import DecodedPair
from model.quality.gate import Verdict
from model.runtime.concurrency import overlapped
from model.runtime.progress import Meter, Progress
from model.types import Candidate


def generate_pairs(
    request: GenerationRequest,
    counts: Counts,
    *,
    resumed: Iterable[Candidate] = (),
    keep: Callable[[int, Candidate], None] | None = None,
    on_rejected: Callable[[Candidate, Verdict], None] | None = None,
) -> Generator[Progress | Candidate, None, None]:
    """Yield progress and accepted candidates, until there are `request.num_pairs` of them.

    Candidates are checked in the order of their indices, so which ones are accepted depends on the request alone.
    With a GPU another thread checks them while the next ones are denoised; on a CPU both need the same cores.

    Args:
        counts: updated as candidates are yielded; for a resumed request, the counts at which it stopped.
        resumed: the pairs accepted before an interruption, in order; iterated once.
        keep: called in that thread with every accepted candidate and its number, before it is yielded; when
            generation stops early, some of these candidates are never yielded.
        on_rejected: called with every rejected candidate and its verdict.
    """
    candidate_filter = CandidateFilter(request)
    for candidate in resumed:
        candidate_filter.remember(candidate)
    num_pairs, allowed = request.num_pairs, request.attempts_allowed
    meter = Meter("sample", num_pairs, "pairs", resumed=counts.accepted)
    if counts.accepted >= num_pairs or counts.reached >= allowed:
        return
    finishing = _Finishing(request, candidate_filter, keep, counts)
    decoded = request.sampler().decoded(counts.reached, allowed, finishing.is_needed)
    with closing(
        overlapped(
            decoded,
            finishing,
            ahead=request.settings.batch,
            enough=lambda waiting: counts.accepted + waiting >= num_pairs,
            beside=request.adapter.base.device.type == "cuda",
        )
    ) as items:
        for item in items:
            if isinstance(item, Progress):
                yield item
                continue
            candidate, verdict = item
            counts.skipped += candidate.index - counts.reached
            if verdict is None:
                continue
            counts.count(verdict, request.kind(candidate.index))
            if verdict.accepted:
                yield candidate
            elif on_rejected is not None:
                on_rejected(candidate, verdict)
            yield meter.report(counts.accepted, note=f"{counts.attempts - counts.accepted} rejected")
            if counts.accepted >= num_pairs:
                return
    counts.skipped += allowed - counts.reached


class _Finishing:
    """Completes and checks sampled pairs, in the order of indices.

    Args:
        counts: at which it begins.
    """

    def __init__(
        self,
        request: GenerationRequest,
        candidate_filter: CandidateFilter,
        keep: Callable[[int, Candidate], None] | None,
        counts: Counts,
    ) -> None:
        self._request = request
        self._candidate_filter = candidate_filter
        self._keep = keep
        self._counts = copy.deepcopy(counts)

    def is_needed(self, index: int) -> bool:
        """Return whether pairs of a candidate's kind are missing; asked before it is made."""
        return self._request.is_needed(index, self._counts)

    def __call__(self, decoded_pair: DecodedPair) -> tuple[Candidate, Verdict | None]:
        """Return the candidate, and the verdict; None where its kind became complete after it was begun."""
        candidate = decoded_pair.to_candidate()
        if not self.is_needed(candidate.index):
            return candidate, None
        verdict = self._candidate_filter.verdict(candidate)
        if verdict.accepted and self._keep is not None:
            self._keep(self._counts.accepted, candidate)
        self._counts.count(verdict, self._request.kind(candidate.index))
        return candidate, verdict
