"""Widths of masks: what is measured, and how far a further defect's may be from the real ones'."""

from __future__ import annotations

import numpy as np
import pytest

from model.quality.stroke import stroke_width, usual_widths
from model.types import MaskArray


def strip(width: int, length: int = 60) -> MaskArray:
    """A strip that ends inside the picture."""
    mask = np.zeros((80, 80), np.bool_)
    mask[20 : 20 + width, 10 : 10 + length] = True
    return mask


@pytest.mark.parametrize("width", [4, 8, 12])
def test_a_long_strip_is_as_wide_as_it_is(width: int) -> None:
    long = np.zeros((80, 400), np.bool_)
    long[20 : 20 + width] = True
    assert stroke_width(long) == pytest.approx(width, rel=0.05)


def test_the_length_of_a_stroke_hardly_matters() -> None:
    assert stroke_width(strip(6, 30)) == pytest.approx(stroke_width(strip(6, 60)), rel=0.1)


def test_borders_are_outline() -> None:
    mask = strip(10)[20:]
    assert stroke_width(mask) == stroke_width(np.pad(mask, 5))
    assert stroke_width(np.ones((30, 40), np.bool_)) < 30


def test_few_alike_defects_leave_room_for_others() -> None:
    few, many = usual_widths([strip(6)] * 3), usual_widths([strip(6)] * 30)
    width = stroke_width(strip(6))
    assert few[0] < many[0] < width < many[1] < few[1]
    assert few[1] / width == pytest.approx(width / few[0])
    assert 1.5 < few[1] / width < 2.5


def test_defects_of_many_widths_leave_more_room() -> None:
    alike, varied = usual_widths([strip(6)] * 4), usual_widths([strip(each) for each in (3, 6, 12, 24)])
    assert varied[1] / varied[0] > 4 * alike[1] / alike[0]
