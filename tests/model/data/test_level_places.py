"""On black and white good parts, a defect is laid where it joins, cuts off or eats away what the real one did."""

from __future__ import annotations

import numpy as np
import pytest

from model.data.copying import copy_defect
from model.data.cutout import Changes, cut_out, draw_start, find_bounds
from model.data.level_places import FITS, LARGEST, MOST, find_level_place
from model.data.two_levels import TwoLevels
from model.types import ImageArray, MaskArray, Pair

SHAPE = (120, 160)
LEVELS = TwoLevels(0, 255)


def board(*columns: int, shape: tuple[int, int] = SHAPE) -> ImageArray:
    """A white board with black conductors, 12 pixels wide, that run from top to bottom."""
    image = np.full((*shape, 3), 255, np.uint8)
    for column in columns:
        image[:, column : column + 12] = 0
    return image


def real(image: ImageArray, row: int, column: int, height: int, width: int, colour: int) -> Pair:
    image, mask = image.copy(), np.zeros(image.shape[:2], np.bool_)
    mask[row : row + height, column : column + width] = True
    image[mask] = colour
    return Pair("real", image, mask)


SHORT = real(board(40, 70), 50, 52, 8, 18, 0)
BITE = real(board(60), 50, 60, 8, 5, 255)


def placed(pair: Pair, good: ImageArray, seed: int, product: MaskArray | None = None) -> tuple[MaskArray, float]:
    rng = np.random.default_rng(seed)
    cutout = cut_out(pair, (False, False), rng)
    bounds = find_bounds(cutout, good.shape)
    first = draw_start(cutout, good.shape, bounds, product, rng)
    start, unlikeness = find_level_place(cutout, first, good, LEVELS, bounds, product, rng)
    rows, columns = np.argwhere(cutout.mask).T + start[:, None]
    mask = np.zeros(good.shape[:2], np.bool_)
    mask[rows, columns] = True
    return mask, unlikeness


def test_a_short_joins_the_two_conductors_that_are_as_far_apart() -> None:
    rows = set()
    for seed in range(8):
        mask, unlikeness = placed(SHORT, board(10, 45, 75, 120), seed)
        assert np.ptp(np.nonzero(mask)[1]) == 17
        assert mask[:, 57].any()
        assert mask[:, 74].any()
        assert unlikeness < FITS
        rows.add(int(np.nonzero(mask)[0][0]))
    assert len(rows) > 4, "it lies at all heights, where all are as good"


def test_a_bite_lies_at_that_side_of_a_conductor_which_it_ate_from() -> None:
    mask, unlikeness = placed(BITE, board(100), 0)
    assert np.nonzero(mask)[1].min() == 100
    assert unlikeness < FITS


def test_where_nothing_fits_it_is_told() -> None:
    _, unlikeness = placed(SHORT, board(), 0)
    assert unlikeness > 2 * FITS


def test_the_place_that_fits_is_left_for_where_it_may_lie() -> None:
    good, product = board(20, 50, 90, 120), np.zeros(SHAPE, np.bool_)
    product[:, 85:] = True
    for seed in range(4):
        assert product[placed(SHORT, good, seed, product)[0]].all()


def test_what_other_defects_hide_does_not_count() -> None:
    """Beside the short, another defect covers the second conductor."""
    both = SHORT.mask.copy()
    both[30:80, 70:82] = True
    cutout = cut_out(SHORT, (False, False), np.random.default_rng(0), both)
    rng, bounds = np.random.default_rng(0), find_bounds(cutout, SHAPE)
    _, unlikeness = find_level_place(cutout, bounds.low, board(45), LEVELS, bounds, None, rng)
    assert unlikeness < FITS


def test_where_nothing_is_known_it_stays() -> None:
    cutout = cut_out(SHORT, (False, False), np.random.default_rng(0), np.ones(SHAPE, np.bool_))
    rng, start = np.random.default_rng(0), np.array([7, 11])
    found, unlikeness = find_level_place(cutout, start, board(45), LEVELS, find_bounds(cutout, SHAPE), None, rng)
    assert found is start
    assert unlikeness == 0


def test_what_lies_farther_away_never_outweighs_that_it_fits() -> None:
    """Beside a gap as wide as the real one nothing is as it was; beside one that is a little wider all is."""
    pair = real(board(16, 40, 70, 94), 50, 52, 8, 18, 0)
    good = board(10, 34, 65, 89, shape=(120, 300))  # 19 pixels apart
    good[:, 190:212] = good[:, 230:252] = 0
    for seed in range(4):
        mask, unlikeness = placed(pair, good, seed)
        assert np.nonzero(mask)[1].min() == 212
        assert unlikeness < FITS


def test_where_nothing_fits_it_lies_anywhere() -> None:
    assert len({tuple(np.argwhere(placed(SHORT, board(), seed)[0])[0]) for seed in range(8)}) > 4


@pytest.mark.parametrize("row", [0, SHAPE[0] - 8])
def test_a_defect_at_its_photographs_border_stays_there(row: int) -> None:
    pair = real(board(40, 70), row, 52, 8, 18, 0)
    mask, unlikeness = placed(pair, board(15, 45, 100), 0)
    assert np.nonzero(mask)[0].min() == row
    assert mask[:, 27].any()
    assert unlikeness < FITS


def test_of_a_large_photograph_a_part_is_searched_in_which_a_defect_may_lie() -> None:
    side = 3 * MOST
    good, product = board(45, 75, shape=(200, side)), np.zeros((200, side), np.bool_)
    found = [placed(SHORT, good, seed)[0] for seed in range(12)]
    fitting = [bool(mask[:, 57].any() and mask[:, 74].any()) for mask in found]
    assert set(fitting) == {True, False}, "the only gap is out of reach of a place that was drawn far from it"
    product[50:150, 40:95] = True
    for seed in range(4):
        mask, unlikeness = placed(SHORT, good, seed, product)
        assert product[mask].all()
        assert unlikeness < FITS


def test_copies_of_crops_lie_all_over_a_large_photograph() -> None:
    """Where in its crop a defect lies says nothing of where it lies on a board."""
    good, rng = board(*range(20, 2900, 30), shape=(120, 3000)), np.random.default_rng(0)
    masks = [
        copy_defect(SHORT, good, None, (False, False), rng, levels=LEVELS, seen=good, cropped=True)[1]
        for _ in range(24)
    ]
    columns = [int(np.argwhere(mask)[0, 1]) for mask in masks]
    assert min(columns) < 800
    assert max(columns) > 2200


def test_a_thin_long_defect_keeps_to_its_region() -> None:
    pair, region = real(board(shape=(60, 600)), 30, 50, 1, 500, 0), np.zeros((300, 700), np.bool_)
    region[200:260] = True
    for seed in range(4):
        rows = np.nonzero(placed(pair, board(shape=(300, 700)), seed, region)[0])[0]
        assert rows.min() >= 200
        assert rows.max() < 260


def test_a_large_defect_is_compared_coarsely() -> None:
    columns = (100, 1200)
    pair = real(board(*columns, shape=(900, 1400)), 300, 112, 300, 1088, 0)
    good = board(30, 1130, shape=(900, 1400))
    mask, unlikeness = placed(pair, good, 0)
    assert abs(int(np.nonzero(mask)[1].min()) - 42) <= 1088 // LARGEST + 1
    assert unlikeness < 2 * FITS


@pytest.mark.parametrize("seed", range(4))
def test_a_copy_is_turned_by_a_right_angle_if_it_may_be_mirrored_both_ways(seed: int) -> None:
    good = np.ascontiguousarray(board(30, 60, 100).swapaxes(0, 1))
    rng, as_it_is = np.random.default_rng(seed), Changes((1.0, 1.0), (0.0, 0.0))

    def least(flips: tuple[bool, bool]) -> tuple[ImageArray, MaskArray, float]:
        drawn = [
            copy_defect(SHORT, good, None, flips, rng, levels=LEVELS, seen=good, changes=as_it_is) for _ in range(16)
        ]
        return min(drawn, key=lambda one: one[2])

    image, mask, unlikeness = least((True, True))
    assert unlikeness < FITS
    assert np.ptp(np.nonzero(mask)[0]) > np.ptp(np.nonzero(mask)[1])
    assert (image[mask] == 0).all()
    assert least((True, False))[2] > FITS
