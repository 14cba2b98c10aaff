"""A defect is laid where the good part looks like what lay around the real one."""

from __future__ import annotations

import numpy as np
import pytest

from model.data.cutout import cut_out, find_bounds
from model.data.surroundings import ALIKE, Surroundings, blurred, find_alike, structure_around, surroundings
from model.types import ImageArray, MaskArray, Pair

SHAPE = (120, 160)


def board(*columns: int) -> ImageArray:
    """A white board with black conductors, 12 pixels wide, that run from top to bottom."""
    image = np.full((*SHAPE, 3), 255, np.uint8)
    for column in columns:
        image[:, column : column + 12] = 0
    return image


def spot(row: int, column: int, height: int, width: int) -> MaskArray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[row : row + height, column : column + width] = True
    return mask


def real(image: ImageArray, mask: MaskArray, colour: int) -> Pair:
    image = image.copy()
    image[mask] = colour
    return Pair("real", image, mask)


CUT = real(board(70), spot(50, 70, 10, 12), 255)
BRIDGE = real(board(40, 70), spot(50, 52, 8, 18), 0)
HOLE = real(np.zeros((*SHAPE, 3), np.uint8), spot(50, 60, 8, 8), 255)


def placed(pair: Pair, good: ImageArray, seed: int, allowed: MaskArray | None = None) -> MaskArray:
    """Lay a real mask, which is not changed, on a good part, beginning at a place far from all that is alike."""
    rng = np.random.default_rng(seed)
    cutout = cut_out(pair, (False, False), rng)
    around = surroundings(cutout, blurred(good), rng)
    assert around is not None
    start = find_alike(around, np.array([5, 5]), find_bounds(cutout, SHAPE), cutout.mask, allowed, rng)
    rows, columns = np.argwhere(cutout.mask).T + start[:, None]
    mask = np.zeros(SHAPE, np.bool_)
    mask[rows, columns] = True
    return mask


def test_surroundings_have_structure_where_they_are_uneven() -> None:
    """Grain and the defect itself have none."""
    grain = np.random.default_rng(0).normal(150, 12, (*SHAPE, 3)).clip(0, 255).astype(np.uint8)
    assert structure_around(real(grain, spot(50, 70, 10, 12), 20)) < 0.5
    assert structure_around(CUT) > 20
    assert structure_around(HOLE) == pytest.approx(0, abs=1e-6)
    assert structure_around(real(grain, np.ones(SHAPE, np.bool_), 20)) == 0
    far = board(0)
    assert structure_around(real(far, spot(50, 110, 10, 12), 0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_what_cuts_a_conductor_lies_on_one_and_what_joins_two_between_them(seed: int) -> None:
    good = board(110, 140)
    conductor = good[..., 0] == 0
    assert conductor[placed(CUT, good, seed)].mean() > 0.8
    bridge = placed(BRIDGE, good, seed)
    assert not conductor[bridge].mean() > 0.2
    assert bridge[:, 122].any()
    assert bridge[:, 139].any()


@pytest.mark.parametrize("seed", range(4))
def test_brightness_counts_though_both_places_are_even(seed: int) -> None:
    good = board()
    good[:, 100:] = 0
    assert good[placed(HOLE, good, seed)].max() == 0


def test_all_of_it_lies_where_it_may() -> None:
    good, allowed = board(30, 110), np.zeros(SHAPE, np.bool_)
    allowed[60:, 90:] = True
    mask = placed(CUT, good, 0, allowed)
    assert allowed[mask].all()
    assert (good[mask] == 0).mean() > 0.8


def test_on_an_even_surface_in_another_light_the_first_place_is_kept() -> None:
    rng = np.random.default_rng(0)
    pair = real(rng.normal(90, 12, (*SHAPE, 3)).clip(0, 255).astype(np.uint8), spot(50, 60, 12, 12), 20)
    cutout = cut_out(pair, (False, False), rng)
    around = surroundings(cutout, blurred(rng.normal(190, 12, (*SHAPE, 3)).clip(0, 255).astype(np.uint8)), rng)
    assert around is not None
    starts = find_bounds(cutout, SHAPE).draw(rng, 50)
    assert around.unlikeness(starts).max() < ALIKE
    first = starts[0]
    assert find_alike(around, first, find_bounds(cutout, SHAPE), cutout.mask, None, rng) is first


def test_unlikeness_is_the_squared_difference_but_for_light_as_a_share_of_the_structure() -> None:
    rng = np.random.default_rng(1)
    cutout = cut_out(CUT, (False, False), rng)
    around = surroundings(cutout, blurred(board(110)), rng)
    assert around is not None
    (same,) = around.unlikeness(np.array([[20, 110 - 24]]))
    (white,) = around.unlikeness(np.array([[20, 20]]))
    assert same < 0.05
    assert 0.8 < white < 2


def test_nothing_is_compared_where_nothing_is_known() -> None:
    rng = np.random.default_rng(0)
    cutout = cut_out(CUT, (False, False), rng, np.ones(SHAPE, np.bool_))
    unknown = Pair("filled", np.zeros((*SHAPE, 3), np.uint8), CUT.mask)
    found = surroundings(cut_out(unknown, (False, False), rng, ~spot(40, 60, 30, 32)), blurred(board(60)), rng)
    assert isinstance(found, Surroundings)
    assert found.colours.max() < 1  # the white that is unknown is not seen
    assert surroundings(cutout, blurred(board(60)), rng) is None


def test_beyond_the_border_nothing_is_known_where_the_crop_ends_before_it() -> None:
    """Where a picture is not known it is black, and so is what lies beyond its border."""
    mask = spot(50, 8, 10, 10)
    unknown = np.ones(SHAPE, np.bool_)
    unknown[40:104, 6:70] = False
    image = np.where(unknown[..., None], 0, 255).repeat(3, -1).astype(np.uint8)
    rng = np.random.default_rng(0)
    cutout = cut_out(Pair("real", image, mask), (False, False), rng, unknown)
    assert (cutout.image[~cutout.others] == 255).all()
    even = surroundings(cutout, blurred(np.full((*SHAPE, 3), 255, np.uint8)), rng)
    assert even is not None
    assert even.unlikeness(np.array([[40, 60]]))[0] < ALIKE
