"""Measures how sharp and grainy defects are beside what surrounds them, at the photograph's own scale.

What a generator draws small and enlarges lacks the finest detail, while the surface around it has the camera's. Detail
is what a slight blur takes away, as its root mean square: inside the mask, against a ring outside it. The blur does not
reach across the mask's edge, so that a defect's contrast is no detail. A real defect has a ratio of its own (a scratch
is sharper than its surface, a stain is not), so generated pairs are compared with real ones.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.types import ImageArray, MaskArray

BLUR = 1.0
"""Standard deviation of the blur, pixels: what remains is finer than about six pixels."""

GAP, LEAST_RING = 3, 8
"""Pixels between a mask and its ring, which the defect's own edge reaches, and the ring's least width."""

LEAST_DETAIL = 12**-0.5
"""Detail that rounding to whole grey levels leaves on its own: a plain surface has no less."""

FEWEST = 4
"""Pixels that either side needs."""


def inner_sharpness(defects: Iterable[tuple[ImageArray, MaskArray]]) -> float | None:
    """Return the geometric mean, over the defects, of the detail inside over the detail in the ring.

    Args:
        defects: images, `(H, W, 3)` uint8, each with its mask, `(H, W)` bool. Those whose mask leaves no room for a
            ring do not count.

    Returns:
        1 where defects are as detailed as what surrounds them; None without any that count.
    """
    ratios = [ratio for image, mask in defects if (ratio := _ratio(image, mask)) is not None]
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else None


def _ratio(image: ImageArray, mask: MaskArray) -> float | None:
    if not mask.any():
        return None
    width = max(LEAST_RING, round(np.sqrt(mask.sum()) / 2))
    box = _around(mask, GAP + width + round(4 * BLUR))
    mask = mask[box]
    away = ndimage.distance_transform_edt(~mask)
    ring = (away > GAP) & (away <= GAP + width)
    if min(int(mask.sum()), int(ring.sum())) < FEWEST:
        return None
    grey = image[box].mean(axis=2)
    return _detail(grey, mask, mask) / _detail(grey, ~mask, ring)


def _around(mask: MaskArray, margin: int) -> tuple[slice, slice]:
    """Return the part of the image that holds a mask, with a margin where there is room."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )


def _detail(grey: NDArray[np.float64], side: MaskArray, measured: MaskArray) -> float:
    """Return the root mean square, over the measured pixels, of what a blur among those of their side takes away."""
    weight = ndimage.gaussian_filter(side.astype(float), BLUR)[measured]
    mean = ndimage.gaussian_filter(np.where(side, grey, 0.0), BLUR)[measured] / weight
    return max(float(np.sqrt(np.square(grey[measured] - mean).mean())), LEAST_DETAIL)
