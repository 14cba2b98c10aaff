"""How many pairs of each defect type and of each given mask a dataset gets, and which candidate is of which."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest

from service.core.errors import UsageError
from service.core.options.combinations import no_mask, spread_evenly, unmasked
from service.core.places import GivenMask


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What some pairs of a dataset have in common.

    Attributes:
        label: names it among the kinds of a plan, in counts and messages.
        pairs: how many are wanted.
        defect: their defect type; None where the adapter has a single one.
        given: the mask that they fill; None where masks are made.
    """

    label: str
    pairs: int
    defect: str | None = None
    given: GivenMask | None = None


@dataclass(frozen=True)
class Plan:
    """The kinds of a dataset's pairs; the kind of a candidate follows from its index alone.

    Candidates take the kinds in turn, each as often as pairs of it are wanted.

    Attributes:
        kinds: some may have 0 pairs, but not all.
    """

    kinds: Sequence[Kind]

    def kind(self, index: int) -> Kind:
        """Return what a candidate is of."""
        return self.kinds[self._round[index % len(self._round)]]

    def turn(self, index: int) -> tuple[int, int]:
        """Return the number of a candidate's kind, and how many earlier candidates are of it."""
        rounds, place = divmod(index, len(self._round))
        number = self._round[place]
        return number, rounds * self._round.count(number) + self._round[:place].count(number)

    @property
    def defects(self) -> dict[str, int]:
        """Return defect type → pairs; empty where the adapter has a single one."""
        found = dict.fromkeys((kind.defect for kind in self.kinds if kind.defect is not None), 0)
        for kind in self.kinds:
            if kind.defect is not None:
                found[kind.defect] += kind.pairs
        return found

    @property
    def masks(self) -> dict[str, int]:
        """Return label → pairs of what fills given masks; empty where masks are made."""
        return {kind.label: kind.pairs for kind in self.kinds if kind.given is not None}

    @cached_property
    def _round(self) -> list[int]:
        """The number of each place's kind in the shortest round: the one that lags most, the first of equals."""
        divisor = math.gcd(*(kind.pairs for kind in self.kinds))
        shares = [kind.pairs // divisor for kind in self.kinds]
        total, given = sum(shares), [0] * len(shares)
        found = []
        for place in range(1, total + 1):
            lags = [share * place - total * count for share, count in zip(shares, given, strict=True)]
            number = lags.index(max(lags))
            found.append(number)
            given[number] += 1
        return found


def plan_pairs(
    types: Sequence[str], num_pairs: int, wanted: Mapping[str, int] | None = None, masks: Sequence[GivenMask] = ()
) -> Plan | None:
    """Plan a dataset; None for an adapter of a single type without given masks, whose pairs are all alike.

    Args:
        types: that the adapter learned.
        wanted: type → pairs, together `num_pairs`; types that are not named get none. None to spread them evenly.
        masks: to fill; the pairs of a type are spread evenly over those that may be filled with it.

    Raises:
        UsageError: naming types that the adapter did not learn, or that no mask is for.
    """
    if wanted is not None and (unknown := [name for name in wanted if name not in types]):
        raise UsageError(f"the adapter did not learn {', '.join(unknown)}; it knows {', '.join(types)}")
    shares = spread_evenly(types, num_pairs) if wanted is None else {name: wanted.get(name, 0) for name in types}
    if masks:
        if lacking := unmasked(shares, [given.defect for given in masks]):
            raise UsageError(no_mask(lacking, [given.defect for given in masks if given.defect]))
        return Plan(_filling(shares, masks))
    return Plan([Kind(name, pairs, name) for name, pairs in shares.items()]) if len(types) > 1 else None


def _filling(shares: Mapping[str, int], masks: Sequence[GivenMask]) -> list[Kind]:
    """Return the kinds of pairs that fill given masks: first each type's first mask, then their second ones."""
    columns, titles = list[list[Kind]](), list(_told_apart(given.name for given in masks))
    for name, pairs in shares.items():
        own = {titles[number]: given for number, given in enumerate(masks) if given.defect in {None, name}}
        defect = name if len(shares) > 1 else None
        columns.append(
            [
                Kind(f"{title} ({name})" if defect and own[title].defect is None else title, share, defect, own[title])
                for title, share in (spread_evenly(list(own), pairs) if own else {}).items()
            ]
        )
    return [kind for kind in chain.from_iterable(zip_longest(*columns)) if kind is not None]


def _told_apart(names: Iterable[str]) -> Iterator[str]:
    """Number the names that came before, such that no two results are alike."""
    seen, taken = Counter[str](), set[str]()
    for name in names:
        title = name
        while title in taken:
            seen[name] += 1
            title = f"{name} #{seen[name] + 1}"
        taken.add(title)
        yield title
