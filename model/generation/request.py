"""Defines a request for a dataset: what determines which pairs are made and accepted, and how they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from model.adapter_card import types_of
from model.data.placement import NormalImage
from model.data.plan import Kind, Plan, plan_pairs
from model.generation.counts import Counts
from model.masks.u2net import U2Net
from model.method import Adapter, Sampler, SamplingSettings
from model.methods import method_of
from service.core.options.quality import QualityLimits
from service.core.places import Places

ATTEMPTS_PER_PAIR = 10
"""Default limit of candidates per requested pair."""


@dataclass(frozen=True)
class GenerationRequest:
    """What to make a dataset from.

    Attributes:
        settings: sampling settings, resolved for the adapter.
        num_pairs: how many accepted pairs to make.
        normals: defect-free images to generate on.
        object_net: network that finds products, see `model.masks.networks.load_object_net`.
        limits: thresholds of the quality checks.
        formats: layouts to add to the dataset.
        max_attempts: limit of candidates; None means ten per pair.
        places: where the user wants defects, for methods that take places.
        defects: defect type → accepted pairs, together `num_pairs`; None to spread them evenly.
    """

    adapter: Adapter
    settings: SamplingSettings
    num_pairs: int
    normals: Sequence[NormalImage] = ()
    object_net: U2Net | None = None
    limits: QualityLimits = field(default_factory=QualityLimits)
    formats: Sequence[str] = ()
    max_attempts: int | None = None
    places: Places = field(default_factory=Places)
    defects: Mapping[str, int] | None = None

    @cached_property
    def plan(self) -> Plan | None:
        """The pairs of each defect type and given mask; None for an adapter of a single type without given masks.

        Raises:
            UsageError: naming types that the adapter did not learn, or that no mask is for.
        """
        return plan_pairs(types_of(self.adapter.card), self.num_pairs, self.defects, self.places.masks)

    def kind(self, index: int) -> Kind | None:
        """Return what a candidate is of, where there is a plan."""
        return self.plan.kind(index) if self.plan is not None else None

    def is_needed(self, index: int, counts: Counts) -> bool:
        """Return whether pairs of a candidate's kind are missing; if not, they never are again."""
        kind = self.kind(index)
        return kind is None or counts.lacks(kind)

    @property
    def attempts_allowed(self) -> int:
        """Return the limit of candidates."""
        return self.max_attempts if self.max_attempts is not None else ATTEMPTS_PER_PAIR * self.num_pairs

    def sampler(self, *, compiles: bool = False) -> Sampler:
        """Make the adapter ready for sampling.

        Args:
            compiles: whether the process runs long enough for compilation on a GPU to pay off.
        """
        return method_of(self.adapter).prepare(
            self.adapter,
            self.settings,
            normals=self.normals,
            object_net=self.object_net,
            places=self.places,
            plan=self.plan,
            compiles=compiles,
        )

    def described(self) -> dict[str, Any]:
        """Return the request as JSON, for the dataset's description."""
        return {
            "num_pairs": self.num_pairs,
            "max_attempts": self.max_attempts,
            "formats": sorted(self.formats),
            "limits": asdict(self.limits),
            **self.settings.as_dict(),
            **self._wishes(),
        }

    def identity(self) -> dict[str, Any]:
        """Return everything that determines which candidates are made and accepted, as JSON.

        The adapter's card identifies the base's weights.
        """
        return {
            "adapter": self.adapter.card,
            "num_pairs": self.num_pairs,
            "normals": [[normal.name, hashlib.sha256(normal.image.tobytes()).hexdigest()] for normal in self.normals],
            "object_net": _weights_hash(self.object_net) if self.object_net is not None else None,
            **asdict(self.limits),
            **self.settings.as_dict(),
            **self._wishes(),
        }

    def _wishes(self) -> dict[str, Any]:
        plan = {} if self.plan is None else {"defects": self.plan.defects, "masks": self.plan.masks}
        planned = {name: pairs for name, pairs in plan.items() if pairs}
        return {**planned, **({"places": self.places.identity()} if self.places else {})}


def _weights_hash(net: U2Net) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.cpu().numpy().tobytes())
    return total.hexdigest()
