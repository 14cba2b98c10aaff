"""Budgets: what a user may change about them, and the paper's numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.main import get_command

from model.cli.app import app
from model.evaluation.profiles import PROFILES, profile_named
from service.core.errors import UsageError
from service.core.options.evaluation import DURATIONS


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="profile is 'fast'; it must be quick, cpu or paper"):
        profile_named("fast")


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_have_three_seeds_and_are_json(name: str) -> None:
    profile = profile_named(name)
    assert profile.name == name
    assert profile.seeds == (0, 1, 2)
    assert json.loads(json.dumps(profile.as_dict())) == profile.as_dict()


def test_readme_and_help_tell_the_same_duration_of_every_profile() -> None:
    readme = " ".join((Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8").split())
    told = readme[readme.index("## Does it help?") : readme.index("## As a service")]
    evaluate = get_command(app).commands["evaluate"]  # type: ignore[attr-defined]
    (profile,) = (option for option in evaluate.params if option.name == "profile")
    assert DURATIONS.keys() == PROFILES.keys()
    assert [f"{name}: {time}" in profile.help for name, time in DURATIONS.items()] == [True] * 3
    assert [name for name, time in DURATIONS.items() if time not in told] == []


def test_choices_replace_a_profiles_own_and_nothing_else() -> None:
    quick = profile_named("quick")
    assert quick.with_choices() == quick
    assert quick.with_choices(rows=()) == quick
    longer = quick.with_choices(detectors=2, steps=9)
    assert (longer.detectors, longer.steps, longer.pairs) == (2, 9, quick.pairs)
    chosen = quick.with_choices(pairs=7, seeds=2, rows=("real",))
    assert (chosen.pairs, chosen.seeds, chosen.rows) == (7, (0, 1), ("real",))
    assert {name: value for name, value in chosen.as_dict().items() if name not in {"pairs", "seeds", "rows"}} == {
        name: value for name, value in quick.as_dict().items() if name not in {"pairs", "seeds", "rows"}
    }


def test_the_paper_trains_for_200_epochs_of_500_samples() -> None:
    paper = profile_named("paper")
    assert paper.steps * paper.batch == 200 * 500
    assert (paper.pairs, paper.resolution, paper.square, paper.lr) == (500, 256, True, 1e-4)
