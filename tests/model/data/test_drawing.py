"""Choices by chance that are fair."""

from __future__ import annotations

from model.data.drawing import draw_in_turn


def test_each_choice_is_taken_once_before_any_is_taken_again() -> None:
    choices = ["a", "b", "c", "d", "e"]

    def turns(seed: int) -> list[list[str]]:
        return [[draw_in_turn(choices, 5 * turn + place, seed) for place in range(5)] for turn in range(20)]

    assert all(sorted(turn) == choices for turn in turns(3))
    assert len({tuple(turn) for turn in turns(3)}) > 10
    assert turns(3) != turns(4)
