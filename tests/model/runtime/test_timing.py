"""Stages are told to an observer, and to nobody without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.runtime.timing import observe_stages, stage


@pytest.fixture
def told() -> Iterator[list[tuple[str, float]]]:
    stages: list[tuple[str, float]] = []
    observe_stages(lambda name, seconds: stages.append((name, seconds)))
    yield stages
    observe_stages(None)


def test_a_stage_is_told_when_it_is_done(told: list[tuple[str, float]]) -> None:
    with stage("outer"), stage("inner"):
        assert told == []
    assert [name for name, _ in told] == ["inner", "outer"]
    assert 0 < told[0][1] < told[1][1]


def test_a_stage_that_breaks_is_not_told(told: list[tuple[str, float]]) -> None:
    with pytest.raises(ValueError, match="broke"), stage("broken"):
        raise ValueError("broke")
    assert told == []


def test_nobody_is_told_after_the_observer_has_gone(told: list[tuple[str, float]]) -> None:
    observe_stages(None)
    with stage("unseen"):
        pass
    assert told == []
