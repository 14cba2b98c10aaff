"""Defects as visible as the real ones: what is measured, what is chosen, and who decides in the end."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.anomalydiffusion.calibration import LARGEST, match_contrast, visibility
from model.diffusion.base import Base, load_base
from model.methods import load_adapter, method_named, train_adapter
from model.types import Pair
from tests.support.tiny_anomaly import NORMALS, tiny_adapter, tiny_request
from tests.support.tiny_data import drawn_pair


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


@pytest.fixture(scope="module")
def adapter(base: Base) -> AnomalyDiffusionAdapter:
    return tiny_adapter(base)


def bar(levels: int) -> Pair:
    """A bar that is darker than its surroundings by so many grey levels."""
    image, mask = np.full((48, 48, 3), 250, np.uint8), np.zeros((48, 48), np.bool_)
    mask[20:28, 8:40] = True
    image[mask] -= levels
    return Pair(str(levels), image, mask)


def result_of(steps: Generator[Any, None, float]) -> float:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return float(end.value)


def test_visibility_is_that_of_the_more_visible_half() -> None:
    unmarked = replace(bar(0), mask=np.zeros((48, 48), np.bool_))
    assert visibility([bar(100), bar(0), bar(100), bar(0), unmarked]) == pytest.approx(100)
    assert visibility([unmarked]) == 0


def test_defects_that_are_visible_enough_are_left_as_they_are(adapter: AnomalyDiffusionAdapter) -> None:
    assert result_of(match_contrast(adapter, [bar(2)], NORMALS, None)) == 1.0


def test_defects_that_are_too_faint_are_pushed_away_from_the_normal(adapter: AnomalyDiffusionAdapter) -> None:
    """An untrained autoencoder's defects hardly change, so the largest scale is chosen."""
    assert result_of(match_contrast(adapter, [bar(250)], NORMALS, None)) == LARGEST


def test_training_chooses_and_a_request_may_choose_otherwise(base: Base, tmp_path: Path) -> None:
    pairs = [drawn_pair(seed) for seed in range(2)]
    request = replace(tiny_request(base, pairs), normals=NORMALS)
    (tmp_path / "work").mkdir()
    stages = [item.stage for item in train_adapter(request, tmp_path / "adapter", tmp_path / "work")]
    assert "match contrast" in stages
    trained = load_adapter(tmp_path / "adapter", base)
    method = method_named("anomalydiffusion")

    def scale(**chosen: Any) -> float:
        settings = method.resolve_sampling(base, chosen, has_normals=True, adapter=trained)
        return float(settings.as_dict()["normal_guidance"])

    assert 1 <= trained.card["normal_guidance"] <= LARGEST
    assert scale() == trained.card["normal_guidance"]
    assert scale(normal_guidance=2.0) == 2.0


@pytest.mark.parametrize("chosen", [{"match_contrast": False}, {"steps": 0}])
def test_nothing_is_chosen_where_it_is_turned_off_or_nothing_was_learned(
    base: Base, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    request = replace(tiny_request(base, [drawn_pair(0), drawn_pair(1)], **chosen), normals=NORMALS)
    (tmp_path / "work").mkdir()
    for _ in train_adapter(request, tmp_path / "adapter", tmp_path / "work"):
        pass
    assert "normal_guidance" not in load_adapter(tmp_path / "adapter", base).card
