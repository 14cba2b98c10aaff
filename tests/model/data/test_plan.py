"""Which candidate is of which defect type and given mask: in turn, as often as pairs are wanted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from model.data.plan import Kind, Plan, plan_pairs
from service.core.errors import UsageError
from service.core.options.combinations import spread_evenly
from service.core.places import GivenMask


def plan_of(pairs: dict[str, int]) -> Plan:
    return Plan([Kind(name, count, name) for name, count in pairs.items()])


def given(name: str, defect: str | None = None) -> GivenMask:
    return GivenMask(name, np.zeros((2, 2), np.bool_), defect)


def test_pairs_are_spread_evenly_and_the_first_types_get_what_is_left() -> None:
    assert spread_evenly(["a", "b", "c"], 8) == {"a": 3, "b": 3, "c": 2}
    assert spread_evenly(["a", "b", "c"], 2) == {"a": 1, "b": 1, "c": 0}


def test_equal_numbers_take_turns() -> None:
    plan = plan_of({"a": 5, "b": 5, "c": 5})
    assert [plan.kind(index).label for index in range(7)] == list("abcabca")


@pytest.mark.parametrize("pairs", [{"a": 1, "b": 7}, {"a": 6, "b": 4, "c": 2}, {"a": 0, "b": 3}, {"a": 7, "b": 6}])
def test_every_stretch_holds_the_kinds_in_their_proportion(pairs: dict[str, int]) -> None:
    plan, total = plan_of(pairs), sum(pairs.values())
    seen: Counter[str] = Counter()
    for index in range(3 * total):
        seen[plan.kind(index).label] += 1
        assert all(abs(seen[name] - (index + 1) * count / total) <= 1 for name, count in pairs.items())
    assert seen == Counter({name: 3 * count for name, count in pairs.items()})


def test_every_candidate_knows_how_many_of_its_kind_came_before() -> None:
    plan = plan_of({"a": 6, "b": 4, "c": 2})
    seen: Counter[int] = Counter()
    for index in range(30):
        number, before = plan.turn(index)
        assert plan.kinds[number] is plan.kind(index)
        assert before == seen[number]
        seen[number] += 1


def test_a_single_type_needs_no_plan_and_unknown_ones_are_named() -> None:
    assert plan_pairs(["crack"], 4) is None
    assert plan_pairs(["crack"], 4, {"crack": 4}) is None
    plan = plan_pairs(["crack", "break"], 4, {"break": 4})
    assert plan is not None
    assert plan.defects == {"crack": 0, "break": 4}
    assert plan.masks == {}
    with pytest.raises(UsageError, match="the adapter did not learn dent; it knows crack, break"):
        plan_pairs(["crack", "break"], 4, {"dent": 4})


def test_a_mask_that_is_named_as_another_was_numbered_keeps_its_pairs() -> None:
    plan = plan_pairs(["crack"], 4, masks=[given("a"), given("a #2"), given("a"), given("a")])
    assert plan is not None
    assert plan.masks == {"a": 1, "a #2": 1, "a #3": 1, "a #4": 1}


def test_pairs_are_spread_evenly_over_given_masks_and_the_first_ones_get_what_is_left() -> None:
    plan = plan_pairs(["crack"], 8, masks=[given("a"), given("b"), given("a")])
    assert plan is not None
    assert plan.masks == {"a": 3, "b": 3, "a #2": 2}
    assert plan.defects == {}
    assert [plan.kind(index).label for index in range(4)] == ["a", "b", "a #2", "a"]
    few = plan_pairs(["crack"], 2, masks=[given("a"), given("b"), given("c")])
    assert few is not None
    assert {few.kind(index).label for index in range(20)} == {"a", "b"}


def test_each_type_has_its_own_masks_and_those_for_any() -> None:
    masks = [given("crack/a", "crack"), given("b"), given("break/c", "break")]
    plan = plan_pairs(["crack", "break"], 6, {"crack": 4, "break": 2}, masks)
    assert plan is not None
    assert plan.masks == {"crack/a": 2, "b (crack)": 2, "b (break)": 1, "break/c": 1}
    assert plan.defects == {"crack": 4, "break": 2}
    for kind in plan.kinds:
        assert kind.given is not None
        assert kind.given.defect in {None, kind.defect}
    with pytest.raises(UsageError, match=r"no mask is for break: give one, or ask .* --defects crack=3"):
        plan_pairs(["crack", "break"], 6, masks=masks[:1])
    assert plan_pairs(["crack", "break"], 6, {"crack": 6}, masks[:1]) is not None
