"""From an adapter to N accepted pairs: sample, check, replace what is rejected, within a stated number of attempts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing

from model.data.placement import NormalImage
from model.dualanodiff.adapter import Adapter
from model.dualanodiff.sampling.decode import DecodedPair
from model.dualanodiff.sampling.sampler import prepare_sampling, sample_decoded
from model.generation.filter import CandidateFilter, Counts
from model.masks.u2net import U2Net
from model.quality.gate import Verdict
from model.runtime.concurrency import overlapped
from model.runtime.progress import Meter, Progress
from model.types import Candidate
from service.core.options.dualanodiff import SamplingConfig
from service.core.options.quality import QualityLimits

ATTEMPTS_PER_PAIR = 10
"""By default at most this many candidates are tried per wanted pair."""


def generate_pairs(  # noqa: PLR0913 - what a request says, one by one
    adapter: Adapter,
    config: SamplingConfig,
    num_pairs: int,
    counts: Counts,
    *,
    normals: Sequence[NormalImage] = (),
    object_net: U2Net | None = None,
    limits: QualityLimits | None = None,
    max_attempts: int | None = None,
    resumed: Iterable[Candidate] = (),
    keep: Callable[[int, Candidate], None] | None = None,
    on_rejected: Callable[[Candidate], None] | None = None,
) -> Generator[Progress | Candidate, None, None]:
    """Yield accepted candidates until there are `num_pairs`, and progress between them.

    Candidates are judged in the order of their indices, so which ones are accepted depends on the request alone. They
    are judged while the next ones are denoised, by another thread.

    Args:
        counts: counts, updated as candidates are yielded; of a resumed job, as it was left.
        limits: of the quality checks.
        max_attempts: candidates tried at most; 10 per pair by default.
        resumed: the pairs accepted before an interruption, in order; read once, none is kept.
        keep: told, by that thread, of every accepted candidate and its number among them, some time before it is
            yielded; when generation stops, also of some that never are.
        on_rejected: told of every rejected candidate.
    """
    candidate_filter = CandidateFilter(adapter, config, normals=normals, object_net=object_net, limits=limits)
    for candidate in resumed:
        candidate_filter.remember(candidate)
    allowed = attempts_allowed(num_pairs, max_attempts)
    meter = Meter("sample", num_pairs, "pairs", resumed=counts.accepted)
    if counts.accepted >= num_pairs or counts.attempts >= allowed:
        return
    finishing = _Finishing(candidate_filter, keep, counts.accepted)
    sampler = prepare_sampling(adapter, config, normals=normals, object_net=object_net)
    decoded = sample_decoded(sampler, counts.attempts, allowed)
    with closing(
        overlapped(
            decoded, finishing, ahead=config.batch, enough=lambda waiting: counts.accepted + waiting >= num_pairs
        )
    ) as items:
        for item in items:
            if isinstance(item, Progress):
                yield item
                continue
            candidate, verdict = item
            counts.count(verdict)
            if verdict.accepted:
                yield candidate
            elif on_rejected is not None:
                on_rejected(candidate)
            yield meter.report(counts.accepted, note=f"{counts.attempts - counts.accepted} rejected")
            if counts.accepted >= num_pairs:
                return


def attempts_allowed(num_pairs: int, max_attempts: int | None) -> int:
    """Candidates tried at most for `num_pairs` accepted ones."""
    return max_attempts if max_attempts is not None else ATTEMPTS_PER_PAIR * num_pairs


class _Finishing:
    """What is left to do for a sampled pair, in the order of indices.

    Args:
        first: number of the first pair that will be accepted.
    """

    def __init__(
        self, candidate_filter: CandidateFilter, keep: Callable[[int, Candidate], None] | None, first: int
    ) -> None:
        self._candidate_filter = candidate_filter
        self._keep = keep
        self._numbers = itertools.count(first)

    def __call__(self, decoded_pair: DecodedPair) -> tuple[Candidate, Verdict]:
        candidate = decoded_pair.to_candidate()
        verdict = self._candidate_filter.verdict(candidate)
        if verdict.accepted and self._keep is not None:
            self._keep(next(self._numbers), candidate)
        return candidate, verdict
