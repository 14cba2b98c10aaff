"""Draws again until a draw is good enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_Drawn = TypeVar("_Drawn")


def draw_best(draw_one: Callable[[], tuple[float, _Drawn]], enough: float, tries: int) -> _Drawn:
    """Draw until a draw's score is `enough`, at most `tries` times after the first; returns the best one."""
    most, best = draw_one()
    for _ in range(tries):
        if most >= enough:
            break
        score, drawn = draw_one()
        if score > most:
            most, best = score, drawn
    return best
