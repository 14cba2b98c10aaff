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
from model.methods import load_adapter, train_adapter
from model.types import Pair
from tests.support.tiny_anomaly import NORMALS, sampled, tiny_adapter, tiny_request
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


def matched(adapter: AnomalyDiffusionAdapter, pairs: list[Pair], types: list[int]) -> dict[str, float]:
    steps: Generator[Any, None, dict[str, float]] = match_contrast(adapter, pairs, types, NORMALS, None)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return dict(end.value)


def test_visibility_is_that_of_the_more_visible_half() -> None:
    unmarked = replace(bar(0), mask=np.zeros((48, 48), np.bool_))
    assert visibility([bar(100), bar(0), bar(100), bar(0), unmarked]) == pytest.approx(100)
    assert visibility([unmarked]) == 0


def test_defects_that_are_visible_enough_are_left_as_they_are(adapter: AnomalyDiffusionAdapter) -> None:
    assert matched(adapter, [bar(2)], [0]) == {"crack": 1.0}


def test_defects_that_are_too_faint_are_pushed_away_from_the_normal(adapter: AnomalyDiffusionAdapter) -> None:
    """An untrained autoencoder's defects hardly change, so the largest scale is chosen."""
    assert matched(adapter, [bar(250)], [0]) == {"crack": LARGEST}


def test_every_type_of_defect_has_a_scale_of_its_own(base: Base) -> None:
    adapter = tiny_adapter(base, ("stain", "crack"))
    assert matched(adapter, [bar(2), bar(250)], [0, 1]) == {"stain": 1.0, "crack": LARGEST}


def test_what_is_drawn_is_pushed_as_its_type_needs_unless_a_request_chooses(base: Base) -> None:
    adapter = tiny_adapter(base, ("stain", "crack"), match_contrast=False)

    def drawn(card: Any, **chosen: Any) -> list[np.ndarray[Any, Any]]:
        adapter.card["normal_guidance"] = card
        return [each.image for each in sampled(adapter, 0, 2, match_detail=False, **chosen)]

    plain, one, both = drawn({}), drawn({"stain": 1.0, "crack": 5.0}), drawn(5.0)
    assert np.array_equal(plain[0], one[0])
    assert not np.array_equal(plain[1], one[1])
    assert all(map(np.array_equal, both, drawn({}, normal_guidance=5.0)))
    assert all(map(np.array_equal, plain, drawn(5.0, normal_guidance=1.0)))


def test_training_chooses_with_normals(base: Base, tmp_path: Path) -> None:
    pairs = [drawn_pair(seed) for seed in range(2)]
    request = replace(tiny_request(base, pairs), normals=NORMALS)
    (tmp_path / "work").mkdir()
    stages = [item.stage for item in train_adapter(request, tmp_path / "adapter", tmp_path / "work")]
    assert "match contrast" in stages
    trained = load_adapter(tmp_path / "adapter", base)
    assert tuple(trained.card["normal_guidance"]) == trained.model.types
    assert 1 <= trained.normal_guidance_of(0) <= LARGEST


@pytest.mark.parametrize("chosen", [{"match_contrast": False}, {"steps": 0}])
def test_nothing_is_chosen_where_it_is_turned_off_or_nothing_was_learned(
    base: Base, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    request = replace(tiny_request(base, [drawn_pair(0), drawn_pair(1)], **chosen), normals=NORMALS)
    (tmp_path / "work").mkdir()
    for _ in train_adapter(request, tmp_path / "adapter", tmp_path / "work"):
        pass
    assert "normal_guidance" not in load_adapter(tmp_path / "adapter", base).card
