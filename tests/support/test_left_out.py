from __future__ import annotations

from datetime import date, timedelta

import pytest

from tests.support.left_out import A_DAY, in_turn


@pytest.mark.parametrize("number", [0, 1, 3, 7, 12])
def test_every_test_has_its_turn_within_a_round_and_none_twice(number: int) -> None:
    days = -(-number // A_DAY)
    rounds = [in_turn(list(range(number)), date(2026, 12, 30) + timedelta(day)) for day in range(days)]
    assert sorted(item for turn in rounds for item in turn) == list(range(number))
    assert all(len(turn) <= A_DAY for turn in rounds)


def test_a_day_has_the_same_tests_again() -> None:
    assert in_turn(list("abcdefgh"), date(2026, 11, 28)) == in_turn(list("abcdefgh"), date(2026, 11, 28))
