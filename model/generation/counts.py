"""Counts the candidates of a request, and the pairs of each kind among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from model.data.plan import Kind
from model.quality.gate import Verdict


@dataclass(slots=True)
class Counts:
    """Counts accepted and rejected candidates.

    Attributes:
        attempts: candidates checked.
        accepted: candidates that are part of the dataset.
        rejected: reason → how often; a candidate with two reasons counts under both.
        skipped: candidates of kinds that were complete, which are neither checked nor necessarily made.
        defects: defect type → accepted pairs, where the adapter has several.
        masks: label of a kind → accepted pairs, where masks are given.
        masks_rejected: label of a kind → reason → how often, likewise.
    """

    attempts: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    defects: dict[str, int] = field(default_factory=dict)
    masks: dict[str, int] = field(default_factory=dict)
    masks_rejected: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def reached(self) -> int:
        """Return the index of the next candidate."""
        return self.attempts + self.skipped

    def lacks(self, kind: Kind) -> bool:
        """Return whether pairs of a kind are missing. As they only grow, what is complete stays complete."""
        made = self.defects if kind.given is None else self.masks
        return made.get(kind.label, 0) < kind.pairs

    def count(self, verdict: Verdict, kind: Kind | None = None) -> None:
        """Count the next candidate.

        Args:
            kind: its own, where the request has a plan.
        """
        self.attempts += 1
        self.accepted += verdict.accepted
        reasons = [] if verdict.accepted else [str(reason) for reason in verdict.reasons]
        self.rejected.update(reasons)
        if kind is not None and kind.defect is not None:
            self.defects[kind.defect] = self.defects.get(kind.defect, 0) + verdict.accepted
        if kind is not None and kind.given is not None:
            self.masks[kind.label] = self.masks.get(kind.label, 0) + verdict.accepted
            if reasons:
                self.masks_rejected.setdefault(kind.label, Counter()).update(reasons)

    def as_dict(self) -> dict[str, object]:
        """Return the counts as plain values, for the dataset."""
        rejected = dict(sorted(self.rejected.items()))
        why = {name: dict(sorted(each.items())) for name, each in self.masks_rejected.items()}
        made: dict[str, dict[str, Any]] = {"defects": self.defects, "masks": self.masks, "masks_rejected": why}
        kinds = {name: dict(sorted(each.items())) for name, each in made.items() if each}
        planned = {"skipped": self.skipped, **kinds} if kinds else {}
        return {"attempts": self.attempts, "accepted": self.accepted, "rejected": rejected, **planned}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `as_dict` returned; other entries are ignored."""
        defects, masks = (dict(values.get(name, {})) for name in ("defects", "masks"))
        rejected = Counter(values["rejected"])
        why = {name: Counter(each) for name, each in values.get("masks_rejected", {}).items()}
        return cls(values["attempts"], values["accepted"], rejected, values.get("skipped", 0), defects, masks, why)
