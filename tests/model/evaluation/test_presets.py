"""What the paper's preset needs of a base, and which methods have none."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.diffusion.base import Base, load_base
from model.evaluation.presets import check_preset
from model.evaluation.profiles import profile_named
from model.evaluation.rows import SOURCES, parse_rows
from service.core.errors import UsageError

PAPER = profile_named("paper")
LACKING = "the preset paper does not exist for anomalydiffusion: what the base recommends is taken"


def checked(base: Base, *rows: str, profile: str = "paper") -> list[str]:
    return check_preset(profile_named(profile), parse_rows(rows or PAPER.rows, SOURCES), SOURCES, base)


@pytest.fixture
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def test_a_base_of_another_size_is_refused(base: Base) -> None:
    with pytest.raises(UsageError, match=rf"trains dualanodiff at 512 pixels, but .* pictures of {base.resolution}:"):
        checked(base)


def test_without_rows_of_the_preset_any_base_will_do(base: Base) -> None:
    assert checked(base, "real", "copy-paste") == []
    assert checked(base, "real", "real+anomalydiffusion") == [LACKING]


def test_methods_without_the_preset_are_named(base: Base) -> None:
    base.unet.register_to_config(sample_size=512 // base.factor)
    assert base.resolution == 512
    assert checked(base) == [LACKING]


@pytest.mark.parametrize("profile", ["quick", "cpu"])
def test_profiles_without_a_preset_take_any_base(base: Base, profile: str) -> None:
    assert checked(base, profile=profile) == []
