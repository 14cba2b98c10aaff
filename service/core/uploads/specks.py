"""Finds specks: stray pixels that segmenters and brushes leave in a mask beside the defect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MASK_PER_SPECK = 500
"""A speck is at most 2 pixels across, or, in larger pictures, this fraction of their shorter side."""

SPECK_SHARE = 0.02
"""A part of a mask is a speck only if its area is at most this share of the rest, or of the largest part."""

ALL_SPECKS = 0.25
"""If all small parts together exceed this share of the rest, they are the defect, such as spatter."""


def speck_side(shape: tuple[int, ...]) -> int:
    """Return the most that a speck measures across in a picture of this `(height, width)`, pixels."""
    return max(2, round(min(shape) / MASK_PER_SPECK))


def without_specks(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """Remove specks if they are few beside a larger defect; returns the mask and how many pixels were removed.

    Args:
        mask: `(H, W)` bool.
    """
    area = int(mask.sum())
    for side in range(speck_side(mask.shape), 0, -1):
        specks = mask & _isolated(mask, side)
        count = int(specks.sum())
        small = side == 1 or side**2 <= SPECK_SHARE * (area - count)
        if small and 0 < count <= ALL_SPECKS * (area - count):
            return mask & ~specks, count
    return mask, 0


def _isolated(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return where squares of `side` lie that the mask does not touch from outside, as `(H, W)` bool."""
    padded = np.pad(mask, side)
    rows, columns = (_any_of(padded, side + 2, axis) for axis in (1, 0))
    ring = rows[: -side - 1] | rows[side + 1 :] | columns[:, : -side - 1] | columns[:, side + 1 :]
    free = np.pad(~ring, side - 1)
    covered = _any_of(_any_of(free, side, 0), side, 1)
    offset = side - 1
    return covered[offset : offset + mask.shape[0], offset : offset + mask.shape[1]]


def _any_of(values: NDArray[np.bool_], length: int, axis: int) -> NDArray[np.bool_]:
    """Return for every run of `length` values along an axis whether one is True."""
    count = values.shape[axis] - length + 1
    runs = [values[start : start + count] if axis == 0 else values[:, start : start + count] for start in range(length)]
    found = runs[0].copy()
    for run in runs[1:]:
        found |= run
    return found
