"""Says why given masks lack pairs, and what helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from model.generation.counts import Counts
from model.generation.request import GenerationRequest
from model.quality.gate import RejectReason
from service.core.places import some_of

FREQUENT = 2
"""Reasons that a message names of each: the most frequent ones."""


def explanations(counts: Counts, request: GenerationRequest) -> Iterator[str]:
    """Name the given masks that lack pairs and why; then say what helps against the most frequent reasons."""
    wanted = request.plan.masks if request.plan is not None else {}
    lacking = {name: pairs for name, pairs in wanted.items() if counts.masks.get(name, 0) < pairs}
    reasons = {name: counts.masks_rejected.get(name, Counter()).most_common(FREQUENT) for name in lacking}
    if lacking:
        named = []
        for name, pairs in lacking.items():
            facts = [
                f"{counts.masks.get(name, 0)} of {pairs}",
                *(f"{reason} {count}" for reason, count in reasons[name]),
            ]
            named.append(f"{name} ({', '.join(facts)})")
        yield f"too few pairs of the masks {some_of(named)}"
    if RejectReason.MASK_DIFFERS_FROM_CHANGE in {reason for each in reasons.values() for reason, _ in each}:
        yield (
            f"{RejectReason.MASK_DIFFERS_FROM_CHANGE}: the defect as drawn does not change all of the mask, perhaps "
            "because the place already looks like it; draw the mask elsewhere, or closer to the shape of a real defect"
        )
    if RejectReason.OUTSIDE_REGION in {reason for reason, _ in counts.rejected.most_common(FREQUENT)}:
        yield f"{RejectReason.OUTSIDE_REGION}: the region has too little room for such defects; widen it"
