"""Options are declared once: command line, API and checks say the same of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from service.core.errors import UsageError
from service.core.limits import read_limits
from service.core.options.declaration import Option, choose, declared
from service.core.options.dualanodiff import SamplingConfig, TrainingConfig
from service.core.options.methods import METHOD_OPTIONS, MethodName, Stage, offered, own_options, refusals
from service.core.options.quality import QualityLimits
from service.core.requests import JobRequest, QualityOptions, TrainingOptions

DECLARATIONS: tuple[type[Any], ...] = (
    *(METHOD_OPTIONS["dualanodiff"].training, METHOD_OPTIONS["dualanodiff"].sampling),
    *(METHOD_OPTIONS["anomalydiffusion"].training, METHOD_OPTIONS["anomalydiffusion"].sampling),
    *(METHOD_OPTIONS["copy-paste"].training, METHOD_OPTIONS["copy-paste"].sampling),
    *(METHOD_OPTIONS["perlin"].sampling, QualityLimits),
)
REQUESTS = (
    (offered("training"), TrainingOptions),
    (offered("sampling"), JobRequest),
    (declared(QualityLimits), QualityOptions),
)


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_every_option_has_help_whose_first_sentence_is_short(declaration: type[Any]) -> None:
    options = declared(declaration)
    assert list(options) == [field.name for field in fields(declaration)]
    for option in options.values():
        assert option.help.endswith("."), option.name
        assert len(option.summary) <= 120, option.name


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_defaults_keep_to_the_ranges(declaration: type[Any]) -> None:
    assert choose(declaration, "options") == declaration()


@pytest.mark.parametrize(("options", "request_type"), REQUESTS)
def test_the_api_shows_range_and_help(options: Mapping[str, Option], request_type: type[Any]) -> None:
    shown = request_type.model_json_schema()["properties"]
    for option in options.values():
        if option.name == "seed":  # drawn where it is not chosen, so never null
            continue
        assert shown[option.name]["description"] == option.help
        assert shown[option.name]["default"] is None
        value, null = shown[option.name]["anyOf"]
        assert null == {"type": "null"}
        if option.most_served is not None:
            assert value["maximum"] == option.most_served


def test_the_library_goes_beyond_the_ends_that_the_api_sets() -> None:
    assert choose(TrainingConfig, "options", {"steps": 200_000}).steps == 200_000
    with pytest.raises(ValidationError, match="less than or equal to 100000"):
        TrainingOptions.model_validate({"steps": 200_000})


def test_later_layers_count_before_earlier_ones() -> None:
    assert choose(SamplingConfig, "options", {"steps": 9, "batch": 2}, {"steps": 5}) == SamplingConfig(steps=5, batch=2)


def test_every_impossible_value_is_named_with_what_would_be_right() -> None:
    wrong = {"steps": 0, "strength": 1.5, "guidance_scale": float("inf"), "mask_method": "magic", "precision": 8}
    with pytest.raises(UsageError) as caught:
        choose(SamplingConfig, "sampling options", wrong, check=lambda config: [f"{config.batch} pairs are too many"])
    assert caught.value.summary == "The sampling options cannot be used"
    assert caught.value.problems == [
        "steps is 0; it must be at least 1",
        "guidance_scale is inf; it must be a finite number",
        "mask_method is 'magic'; it must be 'u2net', 'attention' or 'threshold'",
        "strength is 1.5; it must be at most 1",
        "precision is 8; it must be 'fp32' or 'bf16'",
        "8 pairs are too many",
    ]


def test_limits_in_a_file_are_converted_to_their_types(tmp_path: Path) -> None:
    (tmp_path / "limits.json").write_text('{"min_visibility": "1.5", "ring": "3", "full_area": null}')
    assert read_limits(tmp_path / "limits.json") == {"min_visibility": 1.5, "ring": 3}


def test_values_together_are_checked_as_what_they_become() -> None:
    seen: list[SamplingConfig] = []

    def check(config: SamplingConfig) -> list[str]:
        seen.append(config)
        return []

    with pytest.raises(UsageError):
        choose(SamplingConfig, "options", {"steps": "many", "batch": "3"}, check=check)
    assert seen == [SamplingConfig(batch=3)]


def test_unknown_options_are_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown limits smell; known are accepted_copy, border_ratio"):
        choose(QualityLimits, "limits", {"smell": 1, "ring": 0})


def test_every_method_that_may_be_asked_for_declares_options() -> None:
    assert set(get_args(MethodName)) == set(METHOD_OPTIONS)


OWN_DEFAULTS = {"guidance_scale", "sizes", "view"}
"""DualAnoDiff has its authors' guidance, and defects as large as the real ones; AnomalyDiffusion works in windows."""


@pytest.mark.parametrize("stage", ["training", "sampling"])
def test_an_option_of_several_methods_is_the_same_with_each(stage: Stage) -> None:
    for name, option in offered(stage).items():
        kinds = [options.of(stage)[name] for options in METHOD_OPTIONS.values() if name in options.of(stage)]
        declarations = [getattr(options, stage)() for options in METHOD_OPTIONS.values() if name in options.of(stage)]
        assert {(repr(kind.annotation), kind.help, kind.most_served) for kind in kinds} == {
            (repr(option.annotation), kinds[0].help, option.most_served)
        }
        assert len({getattr(declaration, name) for declaration in declarations}) == 1 or name in OWN_DEFAULTS


def test_help_names_the_methods_of_an_option_that_not_all_have() -> None:
    shown = offered("sampling")
    assert shown["seed"].help == "Seed of every random draw."
    assert shown["steps"].help == "Denoising steps. Of dualanodiff and anomalydiffusion alone."
    assert shown["largest_area"].help.endswith(" Of perlin alone.")
    assert offered("training")["view"].help == METHOD_OPTIONS["perlin"].of("training")["view"].help


def test_an_option_of_another_method_is_refused_naming_what_the_method_has() -> None:
    values = {"seed": 1, "lr": 0.1, "rank": None, "flip_vertical": False}
    assert refusals("training", "copy-paste", values) == {
        "lr": "lr is an option of dualanodiff and anomalydiffusion, not of copy-paste; "
        "that has resolution, view, flip_horizontal, flip_vertical, seed"
    }
    assert own_options("training", "copy-paste", values) == {"seed": 1, "flip_vertical": False}
    assert refusals("training", "dualanodiff", values) == {}
    assert own_options("training", "dualanodiff", values) == values
