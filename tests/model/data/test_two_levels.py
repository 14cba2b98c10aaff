"""Pictures of black and white stay so; pictures with greys or colours are told from them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from model.data.detail import Redrawn, learn_detail
from model.data.laying import Generated, change_by
from model.data.two_levels import TwoLevels, find_two_levels
from model.types import ImageArray, MaskArray, Pair
from tests.support.tiny_data import surface

SIDE = 64


def tracks(dark: int = 0, bright: int = 255) -> ImageArray:
    """Conductors on a board: dark stripes."""
    columns = np.mgrid[:SIDE, :SIDE][1]
    return np.repeat(np.where(columns % 16 < 6, dark, bright).astype(np.uint8)[..., None], 3, 2)


def spot(radius: float = 7) -> MaskArray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.hypot(rows - 32, columns - 31.5) < radius


def compressed(image: ImageArray) -> ImageArray:
    """Add some grey levels, as JPEG does around edges."""
    noise = np.random.default_rng(0).integers(-9, 10, (SIDE, SIDE, 1))
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("dark", "bright"), [(0, 255), (40, 190)])
def test_levels_are_found_through_compression(dark: int, bright: int) -> None:
    found = find_two_levels([Pair("board", compressed(tracks(dark, bright)), spot())])
    assert found is not None
    assert (found.dark, found.bright) == pytest.approx((dark, bright), abs=5)


def test_pictures_with_greys_colours_or_one_level_have_no_two_levels() -> None:
    green = tracks()
    green[..., 1] //= 2
    small = np.asarray(Image.fromarray(tracks()).resize((30, 30), Image.Resampling.LANCZOS).resize((SIDE, SIDE)))
    scratched = np.where(spot()[..., None], np.uint8(120), tracks())
    for image in (surface(0, SIDE, SIDE), green, small, scratched, np.full_like(green, 255), tracks(100, 150)):
        assert find_two_levels([Pair("other", image, spot())]) is None


def test_one_grey_defect_among_others_is_enough_to_keep_greys() -> None:
    scratched = np.where(spot(3)[..., None], np.uint8(120), tracks())
    boards = [Pair("board", tracks(), spot())] * 20
    assert find_two_levels(boards) is not None
    assert find_two_levels([*boards, Pair("scratched", scratched, spot(3))]) is None


def test_what_is_laid_on_two_levels_has_these_alone_and_ends_with_its_mask() -> None:
    real, mask = compressed(tracks()), spot()
    real[mask] = 0
    levels = find_two_levels([Pair("board", real, mask)])
    assert levels is not None
    detail = learn_detail([Redrawn(real, levels.nearest(real), mask)], levels)
    drawn = ndimage.gaussian_filter(np.where(mask[..., None], 60.0, 255.0), (3, 3, 0)).astype(np.float32)
    alpha = np.clip(1 - ndimage.distance_transform_edt(~mask) / 2, 0, 1).astype(np.float32)
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    change = change_by(Generated(drawn, white.astype(np.float32), alpha), white, mask, (SIDE, SIDE), detail, 0).whole
    laid = np.clip(white + change.round(), 0, 255)
    assert not ((laid > 32) & (laid < 223)).any()
    assert (laid[spot(4)] < 32).all()
    assert (laid[~mask] == 255).all()


def test_each_pixel_gets_the_level_that_it_is_nearer_to() -> None:
    values = np.repeat(np.array([[10.0, 99.0, 101.0, 250.0]])[..., None], 3, 2)
    assert TwoLevels(20, 180).nearest(values)[0, :, 1].tolist() == [20, 20, 180, 180]


def test_a_mask_ends_where_the_change_does_if_that_is_near_its_end() -> None:
    mask, drawn, good = spot(9), spot(7.5), compressed(tracks())
    image = compressed(np.where(drawn[..., None], 255 - tracks(), tracks()))
    left = TwoLevels(0, 255).end_with_change(mask, image, good)
    assert np.array_equal(left, drawn)


def test_what_was_not_drawn_inside_of_a_mask_stays_in_it_for_the_checks_to_see() -> None:
    mask, ring = spot(9), spot(9) & ~spot(3)
    good = tracks()
    for drawn in (ring, spot(4), np.zeros_like(mask)):
        image = np.where(drawn[..., None], 255 - good, good)
        assert np.array_equal(TwoLevels(0, 255).end_with_change(mask, image, good), mask)


def test_a_thin_mask_of_which_a_stretch_was_not_drawn_keeps_it() -> None:
    mask, drawn = (np.zeros((SIDE, SIDE), np.bool_) for _ in range(2))
    mask[30:34, 10:50] = True
    drawn[30:34, 10:36] = True
    image = np.where(drawn[..., None], 255 - tracks(), tracks())
    left = TwoLevels(0, 255).end_with_change(mask, image, tracks())
    assert left[30:34, 40:50].all()
    assert not left[31:33, 36].any()
