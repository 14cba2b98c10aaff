"""Draws again until a draw is good enough, and draws in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

_Drawn = TypeVar("_Drawn")

TURN = 2
"""Tells the random order of turns from a candidate's own draws."""


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


def draw_in_turn(choices: Sequence[_Drawn], index: int, *seeds: int) -> _Drawn:
    """Draw the choice of candidate `index`: each is taken once before any is taken again, in an order by chance."""
    turn, place = divmod(index, len(choices))
    order = np.random.default_rng([*seeds, TURN, turn]).permutation(len(choices))
    return choices[int(order[place])]
