"""Measures how wide the strokes of a mask are, and how wide they may be among defects like the real ones.

A crack is long and thin however long it is; a smudge of the same area is not. Areas and statistics of pixels hardly
see the difference, since both vary much more among real defects than the width does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from model.types import MaskArray

SPREAD = 0.25
"""Standard deviation of the logarithm of the width within a type of defect, for types of which few are known; among the
training photographs of eleven types on four products it is 0.06 to 0.87, with a median of 0.2."""

KNOWN = 4
"""Number of real defects that `SPREAD` counts as."""

DEVIATIONS = 4.0
"""How far from the real ones' mean a usual width lies at most, in standard deviations of the logarithm."""


def stroke_width(mask: MaskArray) -> float:
    """Return the mean width of a mask `(H, W)` bool that is not empty, pixels.

    It is four times the mean distance to the outline, which is the width of a long strip; of a disc it is 2/3 of the
    diameter. Distances are to the nearest pixel outside, half a pixel beyond the outline. Borders of the image count as
    outline: a stroke that runs along one would be endlessly wide otherwise.
    """
    inner = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return 4 * (float(inner[mask].mean()) - 0.5)


def usual_widths(masks: Sequence[MaskArray]) -> tuple[float, float]:
    """Return the least and the greatest width that a further defect of the type usually has, pixels.

    The variance of the real ones is mixed with `SPREAD`²; that of one more defect about the mean of n is 1 + 1/n times
    as large.

    Args:
        masks: `(H, W)` bool of the real defects, not empty.
    """
    widths = np.log([stroke_width(mask) for mask in masks])
    count = len(widths)
    variance = (count * float(widths.var()) + KNOWN * SPREAD**2) / (count + KNOWN)
    reach = DEVIATIONS * math.sqrt(variance * (1 + 1 / count))
    return math.exp(float(widths.mean()) - reach), math.exp(float(widths.mean()) + reach)
