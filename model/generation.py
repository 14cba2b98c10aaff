"""From an adapter to N accepted pairs: sample, check, replace what is rejected, within a stated number of attempts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from model.adapter import Adapter
from model.drafts import Draft
from model.objects import Objects
from model.overlap import overlapped
from model.placement import NormalImage
from model.progress import Meter, Progress
from model.quality import QualityGate, QualityLimits, Verdict
from model.sampler import prepare_sampling, sample_drafts
from model.sampling import SamplingConfig
from model.stages import stage
from model.types import Candidate, Pair
from model.u2net import U2Net, for_inference
from model.views import resize_image, resize_mask

ATTEMPTS_PER_PAIR = 10
"""By default at most this many candidates are tried per wanted pair."""


@dataclass(slots=True)
class Tally:
    """What became of the candidates so far.

    Attributes:
        attempts: candidates made.
        accepted: of them, part of the dataset.
        rejected: reason → how often; a candidate with two reasons counts under both.
    """

    attempts: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def count(self, verdict: Verdict) -> None:
        """Count the next candidate."""
        self.attempts += 1
        if verdict.accepted:
            self.accepted += 1
        else:
            self.rejected.update(str(reason) for reason in verdict.reasons)

    def as_dict(self) -> dict[str, object]:
        """Plain values, for the dataset."""
        return {"attempts": self.attempts, "accepted": self.accepted, "rejected": dict(sorted(self.rejected.items()))}


def generate_pairs(  # noqa: PLR0913 - what a request says, one by one
    adapter: Adapter,
    config: SamplingConfig,
    num_pairs: int,
    tally: Tally,
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
        tally: counts, updated as candidates are yielded; of a resumed job, as it was left.
        limits: of the quality checks.
        max_attempts: candidates tried at most; 10 per pair by default.
        resumed: the pairs accepted before an interruption, in order; read once, none is kept.
        keep: told, by that thread, of every accepted candidate and its number among them, some time before it is
            yielded; when generation stops, also of some that never are.
        on_rejected: told of every rejected candidate.
    """
    judge = Judge(adapter, config, normals=normals, object_net=object_net, limits=limits)
    for candidate in resumed:
        judge.remember(candidate)
    allowed = attempts_allowed(num_pairs, max_attempts)
    meter = Meter("sample", num_pairs, "pairs", resumed=tally.accepted)
    if tally.accepted >= num_pairs or tally.attempts >= allowed:
        return
    finishing = _Finishing(judge, keep, tally.accepted)
    sampler = prepare_sampling(adapter, config, normals=normals, object_net=object_net)
    drafts = sample_drafts(sampler, tally.attempts, allowed)
    with closing(
        overlapped(drafts, finishing, ahead=config.batch, enough=lambda waiting: tally.accepted + waiting >= num_pairs)
    ) as items:
        for item in items:
            if isinstance(item, Progress):
                yield item
                continue
            candidate, verdict = item
            tally.count(verdict)
            if verdict.accepted:
                yield candidate
            elif on_rejected is not None:
                on_rejected(candidate)
            yield meter.report(tally.accepted, note=f"{tally.attempts - tally.accepted} rejected")
            if tally.accepted >= num_pairs:
                return


def attempts_allowed(num_pairs: int, max_attempts: int | None) -> int:
    """Candidates tried at most for `num_pairs` accepted ones."""
    return max_attempts if max_attempts is not None else ATTEMPTS_PER_PAIR * num_pairs


class Judge:
    """Decides candidate after candidate, in the order of their indices, which become part of the dataset.

    Args:
        limits: of the quality checks.
    """

    def __init__(
        self,
        adapter: Adapter,
        config: SamplingConfig,
        *,
        normals: Sequence[NormalImage] = (),
        object_net: U2Net | None = None,
        limits: QualityLimits | None = None,
    ) -> None:
        self._gate = QualityGate(gate_references(adapter, config), limits)
        net = for_inference(object_net, config.dtype) if object_net is not None else None
        self._objects = Objects(net, normals) if net is not None else None

    def verdict(self, candidate: Candidate) -> Verdict:
        """The verdict on the next candidate; what was measured is added to the candidate's scores."""
        with stage("check"):
            found = self._objects.in_candidate(candidate) if self._objects is not None else None
            verdict = self._gate.check(candidate, found)
        candidate.scores.update(verdict.scores)
        if verdict.accepted:
            self._gate.accept(candidate)
        return verdict

    def remember(self, candidate: Candidate) -> None:
        """Take in a pair that was accepted and counted before; its `part` is not looked at."""
        self._gate.accept(candidate)


class _Finishing:
    """What is left to do for a sampled pair, in the order of indices.

    Args:
        first: number of the first pair that will be accepted.
    """

    def __init__(self, judge: Judge, keep: Callable[[int, Candidate], None] | None, first: int) -> None:
        self._judge = judge
        self._keep = keep
        self._numbers = itertools.count(first)

    def __call__(self, draft: Draft) -> tuple[Candidate, Verdict]:
        candidate = draft.finish()
        verdict = self._judge.verdict(candidate)
        if verdict.accepted and self._keep is not None:
            self._keep(next(self._numbers), candidate)
        return candidate, verdict


def gate_references(adapter: Adapter, config: SamplingConfig) -> list[Pair]:
    """The real views at the scale at which candidates come: their own when anchored, else the model's resolution."""
    if config.anchored:
        return adapter.references
    side = adapter.model.config.resolution
    return [
        Pair(pair.name, resize_image(pair.image, side), resize_mask(pair.mask, side)) for pair in adapter.references
    ]
