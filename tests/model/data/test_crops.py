"""Views of photographs of any size: inside the picture, with the defect, never stretched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from model.data.crops import (
    DEFECT_SHARE,
    LARGEST_CANVAS,
    SIDE_JITTER,
    THICKNESS_SHARE,
    canvas_side,
    cut_image,
    cut_mask,
    detail_side,
    draw_detail,
    draw_window,
    find_defects,
    resize_share,
)
from model.types import MaskArray
from service.core.options.common import CropKind

RESOLUTIONS = (16, 32)
KINDS: tuple[CropKind, ...] = ("whole", "window")


@st.composite
def masks(draw: st.DrawFn) -> MaskArray:
    """One to three boxes or thin diagonals, from one pixel to the whole picture, in pictures of any shape."""
    height, width = draw(st.integers(8, 90)), draw(st.integers(8, 90))
    mask = np.zeros((height, width), np.bool_)
    for _ in range(draw(st.integers(1, 3))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        tall, wide = draw(st.integers(1, height - top)), draw(st.integers(1, width - left))
        if draw(st.booleans()):
            mask[top : top + tall, left : left + wide] = True
        else:
            steps = np.arange(min(tall, wide))
            mask[top + steps, left + steps] = True
    return mask


anything = given(
    mask=masks(), kind=st.sampled_from(KINDS), resolution=st.sampled_from(RESOLUTIONS), seed=st.integers(0, 2**31)
)


@anything
@settings(max_examples=200)
def test_a_window_lies_inside_and_shows_a_whole_defect_where_it_fits(
    mask: MaskArray, kind: CropKind, resolution: int, seed: int
) -> None:
    height, width = mask.shape
    window = draw_window(mask, kind, resolution, np.random.default_rng(seed))
    left, top, right, bottom = window.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert right - left == bottom - top == window.side
    assert mask[window.slices].any()
    boxes = ndimage.find_objects(ndimage.label(mask, np.ones((3, 3)))[0])
    fitting = [
        max(rows.stop - rows.start, columns.stop - columns.start) <= min(height, width) for rows, columns in boxes
    ]
    if all(fitting):
        assert any(
            top <= rows.start and rows.stop <= bottom and left <= columns.start and columns.stop <= right
            for rows, columns in boxes
        )


@anything
def test_the_same_draw_gives_the_same_window(mask: MaskArray, kind: CropKind, resolution: int, seed: int) -> None:
    one, again = (draw_window(mask, kind, resolution, np.random.default_rng(seed)) for _ in range(2))
    assert one == again


@anything
def test_a_view_always_shows_a_defect(mask: MaskArray, kind: CropKind, resolution: int, seed: int) -> None:
    """However thin it becomes."""
    window = draw_window(mask, kind, resolution, np.random.default_rng(seed))
    small = cut_mask(mask, window, resolution)
    assert small.shape == (resolution, resolution)
    assert small.dtype == np.bool_
    assert small.any()


@anything
def test_windows_are_as_small_as_their_rule_allows(mask: MaskArray, kind: CropKind, resolution: int, seed: int) -> None:
    limit = min(mask.shape)
    window = draw_window(mask, kind, resolution, np.random.default_rng(seed))
    if kind == "whole":
        assert window.side == limit
        return
    boxes = ndimage.find_objects(ndimage.label(mask, np.ones((3, 3)))[0])
    extents = [max(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in boxes]
    needed = [max(resolution, int(np.ceil(extent / DEFECT_SHARE))) for extent in extents]
    assert min(limit, *needed) <= window.side <= min(limit, max(needed) * SIDE_JITTER)


@pytest.mark.parametrize("shape", [(90, 40), (40, 90)])
def test_a_circle_stays_a_circle(shape: tuple[int, int]) -> None:
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    disc = np.hypot(rows - height / 2, columns - width / 2) < 12
    window = draw_window(disc, "whole", 32, np.random.default_rng(0))
    down, across = (np.ptp(np.flatnonzero(cut_mask(disc, window, 32).any(axis))) for axis in (1, 0))
    assert abs(int(down) - int(across)) <= 1


def test_every_defect_of_a_photograph_is_shown_in_turn() -> None:
    mask = np.zeros((200, 200), np.bool_)
    mask[10:20, 10:20] = mask[170:180, 180:190] = True
    draws = [draw_window(mask, "window", 16, np.random.default_rng(seed)) for seed in range(40)]
    assert {bool(window.top < 100) for window in draws} == {True, False}


def two_sizes() -> MaskArray:
    """A scratch and, far off, a pit of a hundredth of its area."""
    mask = np.zeros((400, 400), np.bool_)
    mask[40:64, 40:140] = True
    mask[350:354, 350:356] = True
    return mask


def with_dust(mask: MaskArray) -> MaskArray:
    dusty = mask.copy()
    dusty[200:230:6, 20:380:12] = True
    dusty[240:242, 200:202] = True
    return dusty


def test_defects_are_counted_from_the_largest_and_dust_is_none() -> None:
    labels, defects = find_defects(with_dust(two_sizes()))
    assert [int((labels == defect).sum()) for defect in defects] == [2400, 24]
    lone = np.zeros((30, 30), np.bool_)
    lone[4, 4] = lone[20, 20] = True
    assert len(find_defects(lone)[1]) == 2


def test_no_window_is_drawn_for_dust() -> None:
    mask = with_dust(two_sizes())
    for seed in range(60):
        shown = mask & two_sizes()
        assert shown[draw_window(mask, "window", 16, np.random.default_rng(seed)).slices].any()


def test_a_small_defect_beside_a_large_one_is_drawn_by_its_length_and_in_its_turn() -> None:
    mask = two_sizes()
    drawn = [draw_window(mask, "window", 16, np.random.default_rng(seed)).top > 200 for seed in range(400)]
    # √24 : √2400 is 1 : 10.
    assert np.mean(drawn) == pytest.approx(1 / 11, abs=0.04)
    for turn, is_small in ((0, False), (1, True)):
        windows = [draw_window(mask, "window", 16, np.random.default_rng(seed), turn=turn) for seed in range(20)]
        assert {window.top > 200 for window in windows} == {is_small}
    assert (
        len({draw_window(mask, "window", 16, np.random.default_rng(seed), turn=2).top > 200 for seed in range(60)}) == 2
    )


def test_a_view_at_the_models_own_size_keeps_the_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 32, 3), np.uint8)
    mask = np.zeros((20, 32), np.bool_)
    mask[4:9, 6:20] = True
    window = draw_window(mask, "whole", 20, np.random.default_rng(3))
    assert np.array_equal(cut_image(image, window, 20), image[window.slices])
    assert np.array_equal(cut_mask(mask, window, 20), mask[window.slices])


def test_shares_keep_the_area() -> None:
    mask = np.random.default_rng(0).random((60, 60)) < 0.3
    assert resize_share(mask, 17).mean() == pytest.approx(mask.mean(), abs=0.01)


def hairline(length: int = 150, width: int = 3) -> MaskArray:
    mask = np.zeros((200, 200), np.bool_)
    mask[100 : 100 + width, 20 : 20 + length] = True
    return mask


def test_a_window_with_detail_is_crossed_by_a_hairline_at_the_photographs_own_scale() -> None:
    mask = hairline()
    windows = [draw_detail(mask, "window", 32, np.random.default_rng(seed)) for seed in range(60)]
    assert {window.side for window in windows} <= set(range(32, int(32 * SIDE_JITTER) + 1))
    assert all(mask[window.slices].any() for window in windows)
    lefts = [window.left for window in windows]
    assert min(lefts) < 40
    assert max(lefts) > 110
    assert draw_window(mask, "window", 32, np.random.default_rng(0)).side >= 150 / DEFECT_SHARE * 0.8


def test_a_wide_defect_fills_no_more_of_a_window_with_detail_than_its_share() -> None:
    mask = np.zeros((300, 300), np.bool_)
    mask[100:160, 20:280] = True
    assert detail_side(mask[100:160, 20:280], 32) == pytest.approx(60 / THICKNESS_SHARE, abs=3)
    assert detail_side(np.ones((10, 10), np.bool_), 32) == 32


@anything
@settings(max_examples=200)
def test_a_window_with_detail_lies_inside_and_shows_some_defect(
    mask: MaskArray, kind: CropKind, resolution: int, seed: int
) -> None:
    height, width = mask.shape
    window = draw_detail(mask, kind, resolution, np.random.default_rng(seed))
    left, top, right, bottom = window.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert mask[window.slices].any()


def test_only_defects_too_long_for_a_window_get_a_larger_canvas() -> None:
    assert canvas_side(hairline(), 200, "window", 32) == 192
    assert canvas_side(hairline(), 200, "whole", 32) == 32
    disc = np.hypot(*(np.indices((64, 64)) - 32)) < 12
    for side in (40, 50):
        assert canvas_side(disc, side, "window", 32) == 32
    assert canvas_side(hairline(), 4000, "window", 32) == LARGEST_CANVAS * 32
