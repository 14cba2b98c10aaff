"""Which candidate is of which defect type: in turn, as often as pairs are wanted."""

from __future__ import annotations

from collections import Counter

import pytest

from model.data.type_plan import TypePlan, plan_types, spread_evenly
from service.core.errors import UsageError


def test_pairs_are_spread_evenly_and_the_first_types_get_what_is_left() -> None:
    assert spread_evenly(["a", "b", "c"], 8) == {"a": 3, "b": 3, "c": 2}
    assert spread_evenly(["a", "b", "c"], 2) == {"a": 1, "b": 1, "c": 0}


def test_equal_numbers_take_turns() -> None:
    plan = TypePlan({"a": 5, "b": 5, "c": 5})
    assert [plan.name(index) for index in range(7)] == list("abcabca")
    assert [plan.rank(index) for index in range(7)] == [0, 0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize("pairs", [{"a": 1, "b": 7}, {"a": 6, "b": 4, "c": 2}, {"a": 0, "b": 3}, {"a": 7, "b": 6}])
def test_every_stretch_holds_the_types_in_their_proportion(pairs: dict[str, int]) -> None:
    plan, total = TypePlan(pairs), sum(pairs.values())
    seen: Counter[str] = Counter()
    for index in range(3 * total):
        assert plan.rank(index) == seen[plan.name(index)]
        seen[plan.name(index)] += 1
        assert all(abs(seen[name] - (index + 1) * count / total) <= 1 for name, count in pairs.items())
    assert seen == Counter({name: 3 * count for name, count in pairs.items()})


def test_a_single_type_needs_no_plan_and_unknown_ones_are_named() -> None:
    assert plan_types(["crack"], 4, None) is None
    assert plan_types(["crack"], 4, {"crack": 4}) is None
    plan = plan_types(["crack", "break"], 4, {"break": 4})
    assert plan is not None
    assert plan.pairs == {"crack": 0, "break": 4}
    with pytest.raises(UsageError, match="the adapter did not learn dent; it knows crack, break"):
        plan_types(["crack", "break"], 4, {"dent": 4})
