"""Windows on normal images, and what pasting into them leaves untouched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.crops import Window
from model.data.placement import (
    JITTER,
    MOSTLY,
    SHOWN,
    Anchor,
    NormalImage,
    Placement,
    draw_anchor,
    inner_border,
    keep_to_product,
    paste,
    place_part,
)
from model.types import GREY, ImageArray, MaskArray
from tests.support.tiny_data import surface

RESOLUTION = 32
UNTOUCHED = 10
"""Model pixels from the mask beyond which nothing may change: the feather reaches 6, resampling 4 more."""


def normals(*shapes: tuple[int, int]) -> list[NormalImage]:
    return [NormalImage(f"good{number}", np.zeros((*shape, 3), np.uint8)) for number, shape in enumerate(shapes)]


def disc(radius: float, row: float = 16, column: float = 16) -> MaskArray:
    rows, columns = np.mgrid[:RESOLUTION, :RESOLUTION]
    found: MaskArray = np.hypot(rows - row, columns - column) < radius
    return found


def noise(seed: int) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (RESOLUTION, RESOLUTION, 3), np.uint8)


@given(
    height=st.integers(8, 100),
    width=st.integers(8, 100),
    side=st.integers(1, 200),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_windows_lie_inside_normals_of_any_size(
    height: int, width: int, side: int, x: float, y: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    window = draw_anchor(normals((height, width)), [Placement("real", side, x, y)], rng, (True, True)).window
    assert window.side == min(side, height, width)
    assert 0 <= window.left <= width - window.side
    assert 0 <= window.top <= height - window.side


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_windows_lie_where_real_defects_lay_or_mirrored_where_allowed(flips: tuple[bool, bool]) -> None:
    windows = [
        draw_anchor(normals((100, 100)), [Placement("real", 20, 0.3, 0.2)], np.random.default_rng(seed), flips).window
        for seed in range(60)
    ]
    travel = np.array([(window.left, window.top) for window in windows]) / 80
    for axis, place in enumerate((0.3, 0.2)):
        mirrored = travel[:, axis] > 0.5
        assert mirrored.any() == flips[axis]
        assert np.abs(np.where(mirrored, 1 - travel[:, axis], travel[:, axis]) - place).max() <= JITTER + 0.01


def right_half(normal: NormalImage) -> MaskArray:
    where = np.zeros(normal.image.shape[:2], np.bool_)
    where[:, where.shape[1] // 2 :] = True
    return where


@pytest.mark.parametrize(("x", "stays"), [(0.8, True), (0.5, True), (0.1, False)])
def test_windows_stay_where_real_defects_lay_if_they_show_the_product(x: float, *, stays: bool) -> None:
    """Also half over its rim."""
    places = [Placement("real", 40, x, 0.5)]
    for seed in range(20):
        plain, on = (
            draw_anchor(normals((100, 100)), places, np.random.default_rng(seed), (False, False), product=product)
            for product in (None, right_half)
        )
        assert (plain.window == on.window) == stays
        assert right_half(on.normal)[on.window.slices].mean() >= (SHOWN if stays else MOSTLY)
        assert np.array_equal(on.bounds, right_half(on.normal))


def test_defects_lie_on_the_product_as_far_as_they_may() -> None:
    product, left = right_half(normals((4, 4))[0]), ~right_half(normals((4, 4))[0])
    top = np.arange(4)[:, None] < np.array([2, 2, 2, 2])
    assert keep_to_product(None, None) is None
    assert keep_to_product(None, product) is product
    assert keep_to_product(top, None) is top
    assert np.array_equal(keep_to_product(top, product), top & product)
    assert keep_to_product(left, product) is left


def test_windows_at_an_edge_stay_at_edges() -> None:
    windows = [
        draw_anchor(
            normals((100, 100)), [Placement("real", 20, 0.0, 1.0)], np.random.default_rng(seed), (True, False)
        ).window
        for seed in range(20)
    ]
    assert {(window.left, window.top) for window in windows} == {(0, 80), (80, 80)}


def test_all_normals_and_all_placements_have_their_turn() -> None:
    places = [Placement("real", 10, 0.5, 0.5), Placement("real", 20, 0.5, 0.5)]
    anchors = [
        draw_anchor(normals((40, 40), (50, 50)), places, np.random.default_rng(seed), (True, True))
        for seed in range(40)
    ]
    assert {(anchor.normal.name, anchor.window.side) for anchor in anchors} == {
        (name, side) for name in ("good0", "good1") for side in (10, 20)
    }


def test_every_photograph_counts_the_same_however_many_defects_it_shows() -> None:
    places = [Placement("many", 10, 0.5, 0.5)] * 7 + [Placement("one", 20, 0.5, 0.5)]
    anchors = [draw_anchor(normals((40, 40)), places, np.random.default_rng(seed), (True, True)) for seed in range(200)]
    assert np.mean([places[anchor.place].name == "one" for anchor in anchors]) == pytest.approx(0.5, abs=0.12)
    assert {anchor.place for anchor in anchors} == set(range(8))


@pytest.mark.parametrize("side", [20, 32, 64, 81])
def test_far_from_the_mask_the_normal_stays_bit_for_bit(side: int) -> None:
    normal = NormalImage("good", surface(0, 100, 90))
    anchor = Anchor(normal, Window(5, 12, side))
    mask = disc(3)
    image, placed = paste(anchor, noise(1), noise(2), mask)
    rows, columns = anchor.window.slices
    scale = side / RESOLUTION
    grid = np.mgrid[:side, :side] / scale
    far = np.ones(image.shape[:2], np.bool_)
    far[rows, columns] = np.hypot(grid[0] - 16, grid[1] - 16) > 3 + UNTOUCHED / min(1, scale)
    assert np.array_equal(image[far], normal.image[far])
    assert (image != normal.image).any()
    assert not placed[far].any()


def test_without_scaling_exactly_the_feathered_surroundings_change() -> None:
    normal = NormalImage("good", surface(0, 60, 60))
    anchor = Anchor(normal, Window(10, 20, RESOLUTION))
    generated, reconstructed, mask = noise(1), noise(2), disc(4)
    image, placed = paste(anchor, generated, reconstructed, mask)
    window = image[anchor.window.slices]
    own = anchor.pixels.astype(int)
    expected = np.clip(own + generated.astype(int) - reconstructed, 0, 255)
    assert np.array_equal(window[mask], expected[mask])
    rows, columns = np.mgrid[:RESOLUTION, :RESOLUTION]
    beyond = np.hypot(rows - 16, columns - 16) > 4 + 6
    assert np.array_equal(window[beyond], own[beyond])
    assert np.array_equal(placed[anchor.window.slices], mask)
    assert placed.sum() == mask.sum()


def test_what_the_autoencoder_alone_changes_does_not_show() -> None:
    normal = NormalImage("good", surface(0))
    image, _ = paste(Anchor(normal, Window(0, 0, 40)), noise(1), noise(1), disc(8))
    assert np.array_equal(image, normal.image)


def test_an_empty_mask_changes_nothing() -> None:
    normal = NormalImage("good", surface(0))
    image, placed = paste(Anchor(normal, Window(0, 0, 40)), noise(1), noise(2), disc(0))
    assert np.array_equal(image, normal.image)
    assert not placed.any()


def test_the_normal_itself_is_not_written_to() -> None:
    normal = NormalImage("good", surface(0))
    before = normal.image.copy()
    paste(Anchor(normal, Window(0, 0, 40)), noise(1), noise(2), disc(8))
    assert np.array_equal(normal.image, before)


def test_a_part_lies_on_grey_in_the_frame_of_the_whole_image() -> None:
    anchor = Anchor(NormalImage("good", surface(0, 60, 50)), Window(7, 9, RESOLUTION))
    part = noise(1)
    whole = place_part(anchor, part)
    assert whole.shape == (60, 50, 3)
    assert np.array_equal(whole[anchor.window.slices], part)
    outside = np.ones((60, 50), np.bool_)
    outside[anchor.window.slices] = False
    assert (whole[outside] == GREY).all()


def test_inner_borders_are_those_that_lie_inside_the_photograph() -> None:
    normal = normals((40, 60))[0]
    border = inner_border(Anchor(normal, Window(0, 8, 32)), RESOLUTION, 4)
    expected = np.zeros((RESOLUTION, RESOLUTION), np.bool_)
    expected[:4] = True
    expected[:, -4:] = True
    assert np.array_equal(border, expected)
