from __future__ import annotations

from datetime import date, timedelta

import pytest

from tests.support.left_out import A_DAY, in_turn


@pytest.mark.parametrize("number", [1, 3, 7, 12, 14])
def test_every_test_has_its_turn_within_a_round(number: int) -> None:
    days = -(-number // A_DAY)
    turns = [in_turn(list(range(number)), date(2026, 12, 30) + timedelta(day)) for day in range(days)]
    assert {item for turn in turns for item in turn} == set(range(number))
    assert {len(turn) for turn in turns} == {min(number, A_DAY)}


def test_where_there_are_no_tests_none_has_its_turn() -> None:
    assert in_turn([], date(2026, 11, 28)) == []


def test_a_day_has_the_same_tests_again() -> None:
    assert in_turn(list("abcdefgh"), date(2026, 11, 28)) == in_turn(list("abcdefgh"), date(2026, 11, 28))
