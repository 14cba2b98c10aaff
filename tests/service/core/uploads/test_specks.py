"""Which parts of a mask are specks: tiny, few, and beside something larger."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.uploads.specks import speck_side, without_specks


def scratch(side: int = 160) -> NDArray[np.bool_]:
    mask = np.zeros((side, side), np.bool_)
    mask[side // 2 : side // 2 + 6, side // 8 : side // 2] = True
    return mask


def with_squares(mask: NDArray[np.bool_], side: int, count: int) -> NDArray[np.bool_]:
    """Lay squares of `side` in a row at the top, in touch with nothing."""
    marked = mask.copy()
    for number in range(count):
        left = number * (side + 2)
        marked[:side, left : left + side] = True
    return marked


@pytest.mark.parametrize("side", [1, 2])
def test_specks_beside_a_defect_are_removed_and_counted(side: int) -> None:
    cleaned, removed = without_specks(with_squares(scratch(), side, 5))
    np.testing.assert_array_equal(cleaned, scratch())
    assert removed == 5 * side**2


def test_a_speck_is_larger_in_a_larger_picture() -> None:
    assert (speck_side((160, 4000)), speck_side((2000, 3000))) == (2, 4)
    large = scratch(2000)
    np.testing.assert_array_equal(without_specks(with_squares(large, 4, 3))[0], large)
    assert without_specks(with_squares(large, 5, 3))[1] == 0


@pytest.mark.parametrize(("side", "count"), [(3, 1), (4, 2), (10, 1)])
def test_a_small_defect_beside_a_large_one_stays(side: int, count: int) -> None:
    two_sizes = with_squares(scratch(), side, count)
    cleaned, removed = without_specks(two_sizes)
    assert removed == 0
    np.testing.assert_array_equal(cleaned, two_sizes)


@pytest.mark.parametrize("side", [1, 2])
def test_what_is_many_is_no_dust(side: int) -> None:
    spatter = np.zeros((160, 160), np.bool_)
    for row in range(2, 150, 8):
        spatter |= np.roll(with_squares(np.zeros_like(spatter), side, 12), row, axis=0)
    assert without_specks(spatter)[1] == 0
    assert without_specks(spatter | scratch())[1] == 0


def test_two_pixels_beside_a_tiny_defect_may_be_defects_too() -> None:
    tiny = np.zeros((60, 60), np.bool_)
    tiny[20:28, 20:28] = True
    assert without_specks(with_squares(tiny, 2, 2))[1] == 0
    assert without_specks(with_squares(tiny, 1, 2))[1] == 2
