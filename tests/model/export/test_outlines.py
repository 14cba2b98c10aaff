from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from model.export.outlines import bounding_box, components, edge_ring, inner_ring
from model.types import MaskArray

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)
MASKS = hnp.arrays(np.bool_, SHAPES)


@given(MASKS)
def test_components_are_disjoint_and_together_the_mask(mask: MaskArray) -> None:
    parts = components(mask)
    assert np.array_equal(sum((part.astype(int) for part in parts), np.zeros(mask.shape, int)), mask.astype(int))


@given(MASKS)
def test_edge_rings_fill_to_their_components_in_the_coco_rasteriser(mask: MaskArray) -> None:
    for part in components(mask):
        (encoded,) = coco_mask.frPyObjects([edge_ring(part).ravel().tolist()], *mask.shape)
        assert np.array_equal(coco_mask.decode(encoded), part)


@given(MASKS)
def test_edge_rings_enclose_as_much_area_as_there_are_pixels(mask: MaskArray) -> None:
    for part in components(mask):
        x, y = edge_ring(part).T
        assert abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 == part.sum()


@given(MASKS)
def test_inner_rings_filled_with_their_border_are_their_components(mask: MaskArray) -> None:
    for part in components(mask):
        ring = inner_ring(part)
        assert len(ring) >= 3
        filled = cv2.fillPoly(np.zeros(mask.shape, np.uint8), [ring.astype(np.int32)], 1)
        assert np.array_equal(filled, part)


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_rectangle_has_four_corners(height: int, width: int) -> None:
    mask = np.zeros((12, 12), np.bool_)
    mask[2 : 2 + height, 1 : 1 + width] = True
    corners = {(1, 2), (1 + width, 2), (1, 2 + height), (1 + width, 2 + height)}
    assert len(edge_ring(mask)) == 4
    assert {(int(x), int(y)) for x, y in edge_ring(mask)} == corners
    assert bounding_box(mask) == (1, 2, width, height)


@pytest.mark.parametrize(
    ("rows", "count"),
    [(["#.", ".#"], 1), (["#.#", "...", "#.#"], 4), (["...", "..."], 0)],
    ids=["diagonal neighbours belong together", "four corners", "empty"],
)
def test_number_of_components(rows: list[str], count: int) -> None:
    assert len(components(np.array([[char == "#" for char in row] for row in rows]))) == count
