"""Keeps each physical part on one side of a split, whichever defect types its photographs stand under.

Photographs are named `<kind>/<stem>`, where the kind is a defect type or `normal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from service.core.uploads.problems import enumerated

Sides = Mapping[str, tuple[AbstractSet[str], AbstractSet[str]]]
"""Kind → the stems that train, and those that test."""


def joined_groups(groups: Iterable[Iterable[str]]) -> list[list[str]]:
    """Join the groups that share a photograph: they show one part."""
    parts: list[set[str]] = []
    for group in map(set, groups):
        touching = [part for part in parts if part & group]
        parts = [part for part in parts if not part & group]
        parts.append(group.union(*touching))
    return [sorted(part) for part in parts]


def of_kind(groups: Iterable[Sequence[str]], kind: str) -> list[list[str]]:
    """Return the stems of one kind in each group, without the groups that have none."""
    found = ([name.removeprefix(f"{kind}/") for name in group if name.startswith(f"{kind}/")] for group in groups)
    return [stems for stems in found if stems]


def parted(groups: Iterable[Sequence[str]], sides: Sides) -> list[str]:
    """List the groups that train and test; names in both lists of one kind are another mistake and not told again."""
    train, test = ({f"{kind}/{stem}" for kind, pair in sides.items() for stem in pair[side]} for side in (0, 1))
    return [
        f"{enumerated(sorted(left))} in train and {enumerated(sorted(right))} in test show the same part: move them to "
        "the same side"
        for group in groups
        if (left := train.intersection(group)) and (right := test.intersection(group)) and left != right
    ]
