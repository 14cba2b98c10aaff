"""How many pairs of each defect type a dataset gets, and which candidate is of which type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from service.core.errors import UsageError


@dataclass(frozen=True)
class TypePlan:
    """The pairs of each type; the type of a candidate follows from its index alone.

    Candidates take the types in turn, each as often as pairs of it are wanted.

    Attributes:
        pairs: type → accepted pairs, in the adapter's order; some may be 0, but not all.
    """

    pairs: Mapping[str, int]

    def number(self, index: int) -> int:
        """Return the number of a candidate's type in the adapter."""
        return self._round[index % len(self._round)][0]

    def name(self, index: int) -> str:
        """Return a candidate's type."""
        return list(self.pairs)[self.number(index)]

    def rank(self, index: int) -> int:
        """Return how many earlier candidates are of the same type."""
        rounds, place = divmod(index, len(self._round))
        number, before = self._round[place]
        return before + rounds * self._shares[number]

    @cached_property
    def _shares(self) -> list[int]:
        """Candidates of each type in a round of the smallest length."""
        divisor = math.gcd(*self.pairs.values())
        return [count // divisor for count in self.pairs.values()]

    @cached_property
    def _round(self) -> list[tuple[int, int]]:
        """Each place's type in a round, and how often it came before: the type that lags most, the first of equals."""
        total, given = sum(self._shares), [0] * len(self._shares)
        found = []
        for place in range(1, total + 1):
            lags = [share * place - total * count for share, count in zip(self._shares, given, strict=True)]
            number = lags.index(max(lags))
            found.append((number, given[number]))
            given[number] += 1
        return found


def spread_evenly(types: Sequence[str], num_pairs: int) -> dict[str, int]:
    """Divide pairs among types; where they do not divide, the first types get one more."""
    each, more = divmod(num_pairs, len(types))
    return {name: each + (number < more) for number, name in enumerate(types)}


def plan_types(types: Sequence[str], num_pairs: int, wanted: Mapping[str, int] | None) -> TypePlan | None:
    """Plan a dataset; None for an adapter of a single type.

    Args:
        wanted: type → pairs, together `num_pairs`; types that are not named get none. None to spread them evenly.

    Raises:
        UsageError: naming types that the adapter did not learn.
    """
    if wanted is not None and (unknown := [name for name in wanted if name not in types]):
        raise UsageError(f"the adapter did not learn {', '.join(unknown)}; it knows {', '.join(types)}")
    if len(types) < 2:
        return None
    shares = spread_evenly(types, num_pairs) if wanted is None else {name: wanted.get(name, 0) for name in types}
    return TypePlan(shares)
