"""Finding repetitions, so that expensive work is done once for equal inputs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def first_occurrences(contents: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Find the first of all equal items.

    Returns:
        The positions of first occurrences, and for every item the place of its own first occurrence among them.
    """
    firsts: dict[Hashable, int] = {}
    for position, content in enumerate(contents):
        firsts.setdefault(content, position)
    places = {content: place for place, content in enumerate(firsts)}
    return list(firsts.values()), [places[content] for content in contents]
