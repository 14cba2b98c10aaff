"""Starts for anchored sampling: changed copies of a real defect on normal images."""

from __future__ import annotations

import numpy as np
import pytest

from model.sketch import MARGIN, NEARBY, SCALES, Sketch, draw_sketch
from model.types import GREY, ImageArray, MaskArray, Pair
from tests.tiny_data import surface

SIDE = 64
SEEDS = range(12)


def reference(rows: slice = slice(20, 40), columns: slice = slice(28, 36), level: int = 30) -> Pair:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[rows, columns] = True
    image = np.full((SIDE, SIDE, 3), 160, np.uint8)
    image[mask] = level
    return Pair("real", image, mask)


def normal(level: int = 160) -> ImageArray:
    return np.full((SIDE, SIDE, 3), level, np.uint8)


def sketched(seed: int, pair: Pair | None = None, on: ImageArray | None = None) -> Sketch:
    pair, on = pair or reference(), normal() if on is None else on
    return draw_sketch(pair, on, (False, False), np.random.default_rng(seed))


def mask_of(sketch: Sketch) -> MaskArray:
    found: MaskArray = (sketch.part != GREY).any(2)
    return found


def test_the_same_draw_gives_the_same_sketch_and_every_other_another() -> None:
    assert np.array_equal(sketched(3).image, sketched(3).image)
    assert len({sketched(seed).image.tobytes() for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_image_and_part_agree_and_the_surroundings_are_the_normals(seed: int) -> None:
    on = surface(seed, SIDE, SIDE)
    sketch = sketched(seed, on=on)
    mask = mask_of(sketch)
    assert np.array_equal(sketch.part[mask], sketch.image[mask])
    assert np.array_equal(sketch.image[~sketch.nearby], on[~sketch.nearby])
    assert sketch.nearby[mask].all()
    assert sketch.nearby.sum() < mask.sum() + (NEARBY + 1) * 4 * (mask.any(0).sum() + mask.any(1).sum() + NEARBY)


@pytest.mark.parametrize("seed", SEEDS)
def test_size_and_place_stay_within_their_ranges(seed: int) -> None:
    mask = mask_of(sketched(seed))
    share = mask.sum() / reference().mask.sum()
    assert SCALES[0] ** 2 * 0.5 < share < SCALES[1] ** 2 * 2
    rows, columns = np.nonzero(mask)
    assert min(rows.min(), columns.min()) >= MARGIN
    assert max(rows.max(), columns.max()) < SIDE - MARGIN


@pytest.mark.parametrize("seed", SEEDS)
def test_a_defect_at_the_border_stays_there(seed: int) -> None:
    pair = reference(slice(0, 12), slice(20, 44))
    mirrored = draw_sketch(pair, normal(), (False, True), np.random.default_rng(seed))
    assert mask_of(sketched(seed, pair))[0].any()
    assert mask_of(mirrored)[-1].any()


def test_brightness_follows_the_surroundings() -> None:
    dark, bright = (sketched(0, on=normal(level)) for level in (80, 240))
    mask = mask_of(dark)
    assert abs(int(dark.image[mask].min()) - 15) < 4
    assert abs(int(bright.image[mask].min()) - 45) < 8


def test_a_hairline_thinner_than_a_pixel_is_not_lost() -> None:
    image = np.full((4 * SIDE, 4 * SIDE, 3), 160, np.uint8)
    mask = np.zeros(image.shape[:2], np.bool_)
    mask[40:200, 130] = True
    image[mask] = 20
    for seed in SEEDS:
        assert mask_of(sketched(seed, Pair("hairline", image, mask))).any()
