"""The scale of a defect, and the windows that cover it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from model.data.windows import OVERLAP, finer_canvas, finer_scale, make_canvas, work_scale
from model.types import MaskArray


def box(shape: tuple[int, int], rows: slice, columns: slice) -> MaskArray:
    mask = np.zeros(shape, np.bool_)
    mask[rows, columns] = True
    return mask


CRACK = box((400, 1600), slice(200, 203), slice(50, 1550))


def test_a_long_crack_stays_at_its_own_scale() -> None:
    assert work_scale(CRACK, "window", 64) == 1.0
    canvas = make_canvas(np.zeros((400, 1600, 3), np.uint8), CRACK, 1.0, 64, 4, np.random.default_rng(0))
    assert canvas.mask.sum() == CRACK.sum()
    assert canvas.mask.any(axis=1).sum() == 3
    assert len(canvas.corners) >= 1500 / 64


def test_large_compact_defects_are_reduced_small_ones_never() -> None:
    blot = box((400, 400), slice(100, 300), slice(100, 300))
    assert work_scale(blot, "window", 64) == pytest.approx(0.6 * 64 / 200, rel=0.01)
    assert work_scale(box((400, 400), slice(50, 60), slice(50, 60)), "window", 64) == 1.0
    assert work_scale(CRACK, "whole", 64) == 64 / 400
    assert work_scale(box((32, 40), slice(3, 5), slice(3, 5)), "window", 64) == 2.0


@pytest.mark.parametrize(("shape", "scale"), [((400, 1600), 1.0), ((50, 70), 64 / 50), ((401, 333), 0.37)])
def test_windows_cover_the_defect_inside_their_photograph(shape: tuple[int, int], scale: float) -> None:
    mask = box(shape, slice(shape[0] // 3, shape[0] // 3 + 8), slice(4, shape[1] - 6))
    image = np.arange(shape[0] * shape[1] * 3, dtype=np.uint32).astype(np.uint8).reshape(*shape, 3)
    canvas = make_canvas(image, mask, scale, 64, 4, np.random.default_rng(1))
    top, left, bottom, right = canvas.box
    assert top >= 0
    assert left >= 0
    assert bottom - shape[0] < 4 / scale
    assert right - shape[1] < 4 / scale
    assert not mask[:top].any()
    assert not mask[:, :left].any()
    covered = np.zeros_like(canvas.mask)
    for row, column in canvas.corners.tolist():
        assert row % 4 == column % 4 == 0
        assert canvas.windows(canvas.mask).shape[1:] == (64, 64)
        covered[row : row + 64, column : column + 64] = True
    assert covered[canvas.mask].all()
    columns = sorted({column for _, column in canvas.corners.tolist()})
    assert all(after - before <= (1 - OVERLAP) * 64 + 4 for before, after in pairwise(columns))
    if scale == 1:
        assert np.array_equal(canvas.image, image[top:bottom, left:right])


def test_what_is_drawn_small_is_drawn_again_up_to_four_times_as_large_and_no_larger_than_the_photograph() -> None:
    assert finer_scale(0.1) == 0.4
    assert finer_scale(0.5) == 1.0
    assert finer_scale(0.7) is None
    assert finer_scale(2.0) is None


def test_a_finer_canvas_shows_the_same_part_of_the_photograph() -> None:
    mask = box((401, 333), slice(100, 300), slice(90, 250))
    image = np.random.default_rng(0).integers(0, 256, (401, 333, 3), dtype=np.uint8)
    coarse = make_canvas(image, mask, work_scale(mask, "window", 64), 64, 4, np.random.default_rng(1))
    finer = finer_canvas(coarse, image, mask, 1.0, 4)
    top, left, bottom, right = finer.box
    assert (top, left) == coarse.box[:2]
    assert 0 <= bottom - coarse.box[2] < 4
    assert 0 <= right - coarse.box[3] < 4
    shown = image[top:bottom, left:right]
    assert np.array_equal(finer.image[: shown.shape[0], : shown.shape[1]], shown), "nothing is resampled"
    assert finer.mask.sum() * coarse.scale**2 == pytest.approx(coarse.mask.sum(), rel=0.05)
    covered = np.zeros_like(finer.mask)
    for row, column in finer.corners.tolist():
        covered[row : row + 64, column : column + 64] = True
    assert covered[finer.mask].all()
