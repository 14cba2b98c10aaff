"""Starts for anchored sampling: changed copies of a real defect on normal images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from model.data.copy_paste import MARGIN, NEARBY, SCALES, CopyPaste, draw_copy_paste
from model.types import GREY, ImageArray, MaskArray, Pair
from tests.support.tiny_data import surface

SIDE = 64
SEEDS = range(12)
MANY = range(150)
NO_INNER = np.zeros((SIDE, SIDE), np.bool_)


def reference(rows: slice = slice(20, 40), columns: slice = slice(28, 36), level: int = 20) -> Pair:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[rows, columns] = True
    image = np.full((SIDE, SIDE, 3), 100, np.uint8)
    image[mask] = level
    return Pair("real", image, mask)


def normal(level: int = 100) -> ImageArray:
    return np.full((SIDE, SIDE, 3), level, np.uint8)


def sketched(seed: int, pair: Pair | None = None, on: ImageArray | None = None) -> CopyPaste:
    pair, on = pair or reference(), normal() if on is None else on
    return draw_copy_paste(pair, on, NO_INNER, (False, False), np.random.default_rng(seed))


def mask_of(sketch: CopyPaste) -> MaskArray:
    found: MaskArray = (sketch.part != GREY).any(2)
    return found


def test_the_same_draw_gives_the_same_sketch_and_every_other_another() -> None:
    assert np.array_equal(sketched(3).image, sketched(3).image)
    assert len({sketched(seed).image.tobytes() for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_image_and_part_agree_and_the_surroundings_are_the_normals(seed: int) -> None:
    on = surface(seed, SIDE, SIDE)
    sketch = sketched(seed, on=on)
    mask = sketch.mask
    assert np.array_equal(mask, mask_of(sketch))
    assert np.array_equal(sketch.part[mask], sketch.image[mask])
    assert np.array_equal(sketch.image[~mask], on[~mask])
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
    mirrored = draw_copy_paste(pair, normal(), NO_INNER, (False, True), np.random.default_rng(seed))
    assert mask_of(sketched(seed, pair))[0].any()
    assert mask_of(mirrored)[-1].any()


def test_brightness_follows_the_surroundings() -> None:
    dark, bright = (sketched(0, on=normal(level)) for level in (50, 120))
    mask = mask_of(dark)
    assert abs(int(dark.image[mask].min()) - 10) < 4
    assert abs(int(bright.image[mask].min()) - 24) < 6


@pytest.mark.parametrize(("side", "width"), [(64, 1), (128, 1), (160, 1), (256, 2)])
def test_a_hairline_keeps_its_length(side: int, width: int) -> None:
    image = np.full((side, side, 3), 100, np.uint8)
    mask = np.zeros((side, side), np.bool_)
    mask[side // 5 : 4 * side // 5, side // 2 : side // 2 + width] = True
    image[mask] = 20
    masks = [mask_of(sketched(seed, Pair("hairline", image, mask))) for seed in MANY]
    lengths = [np.ptp(np.argwhere(each), axis=0).max() for each in masks]
    areas = [each.sum() for each in masks]
    assert min(lengths) > 0.4 * 0.6 * SIDE
    assert float(np.median(areas)) > 0.5 * 0.6 * SIDE


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(0, 2), slice(20, 26)),
        (slice(0, 4), slice(0, 4)),
        (slice(0, 1), slice(30, 31)),
        (slice(60, 64), slice(10, 18)),
        (slice(10, 14), slice(62, 64)),
        (slice(4, 60), slice(30, 36)),
        (slice(0, 64), slice(30, 36)),
        (slice(2, 62), slice(2, 62)),
    ],
)
def test_whatever_the_defect_the_sketch_is_one_like_it(rows: slice, columns: slice) -> None:
    """Small, in corners, from border to border, almost as large as the window: never lost, blown up or cut in two."""
    pair = reference(rows, columns)
    area = pair.mask.sum()
    for seed in MANY:
        mask = mask_of(sketched(seed, pair))
        assert mask.any()
        assert mask.sum() <= 2.5 * area + 8
        assert mask.sum() >= 0.2 * area
        assert ndimage.label(mask, np.ones((3, 3)))[1] <= 2
        if rows.start == 0:
            assert mask[0].any()
        if columns.stop == SIDE:
            assert mask[:, -1].any()


def test_no_defect_is_laid_on_borders_that_lie_inside_the_photograph() -> None:
    inner = NO_INNER.copy()
    inner[:4] = True
    pair = reference(slice(0, 12), slice(20, 44))
    for seed in SEEDS:
        sketch = draw_copy_paste(pair, normal(), inner, (False, False), np.random.default_rng(seed))
        assert mask_of(sketch).any()
        assert not mask_of(sketch)[:4].any()


def test_each_colour_follows_its_surroundings() -> None:
    pair = reference()
    pair.image[...] = np.where(pair.mask[..., None], (40, 30, 20), (80, 60, 40)).astype(np.uint8)
    blue = np.broadcast_to(np.array([40, 60, 80], np.uint8), (SIDE, SIDE, 3)).copy()
    sketch = sketched(0, pair, blue)
    inside = ndimage.binary_erosion(mask_of(sketch), iterations=2)
    assert np.abs(sketch.image[inside].mean(0) - (20, 30, 40)).max() <= 8


@pytest.mark.parametrize("shape", [(90, 90), (40, 40)])
def test_references_of_another_size_are_resized(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.bool_)
    mask[10:25, 12:20] = True
    image = np.where(mask[..., None], np.uint8(20), np.uint8(100)).repeat(3, 2)
    assert mask_of(sketched(0, Pair("other", image, mask))).any()
