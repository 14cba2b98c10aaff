"""Finds places on black and white good parts where a real defect does what it does: joins, cuts off or eats away.

There, what matters is which pixels touch the defect and have its level, so that it grows out of them or joins them, and
which have the other. All places are compared, by a convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from model.data.crops import bounding_box
from model.data.cutout import Bounds, Cutout, Starts
from model.data.two_levels import TwoLevels
from model.types import ImageArray, MaskArray

_Part = TypeVar("_Part")

NEAR = 4.0
"""Distance from the defect over which a pixel's weight falls by e, pixels."""

FARTHEST = 8
"""Distance from the defect up to which pixels tell whether it fits, pixels."""

FAR, FAR_SHARE = 8.0, 0.2
"""As `NEAR`, of the pixels beyond; and how much their unlikeness counts in choosing among the places that fit: excess
copper lies off the conductors, a spur may have another conductor beside it."""

FROM_SHARE = 4.0
"""Unlikeness, as `model.data.surroundings` has it, of a pattern of which all pixels have the other level."""

MOST = 512
"""Most rows and columns in which a defect may start that are compared: a part of a large photograph, drawn anew each
time."""

FITS = 0.1
"""Unlikeness up to which a place is good enough."""

PLACE_TRIES, PARTS = 5, 8
"""How often a defect is changed anew until it fits; and on how many good parts, some of which have no place for it."""

AS_GOOD = 0.02
"""A place is drawn among those that are worse than the best by at most this."""


def parts_to_try(first: _Part, parts: Sequence[_Part], rng: np.random.Generator) -> list[_Part]:
    """Return the good part whose turn it is, and some others, in case a defect has no place on it."""
    return [first, *(parts[number] for number in rng.permutation(len(parts))[: PARTS - 1])]


def find_level_place(
    cutout: Cutout,
    picture: ImageArray,
    levels: TwoLevels,
    bounds: Bounds,
    product: MaskArray | None,
    off_product: float,
    rng: np.random.Generator,
) -> tuple[Starts, float]:
    """Find where a cut-out's defect would fit best.

    Args:
        picture: `(H, W, 3)` uint8, a good part.
        product: `(H, W)` bool, where the defect should lie; None for everywhere.
        off_product: unlikeness that is added for a defect off the product, times the share of it.

    Returns:
        The start, `(2,)`; and how unlike the real one's surroundings are there: 0 for equals, 2 for any place.
    """
    near, far, pattern = _pattern(cutout, levels)
    used = bounding_box(near + far > 0)
    low, high = _span(bounds, rng)
    rows, columns = (
        np.arange(first + part.start, last + part.stop) for first, last, part in zip(low, high, used, strict=True)
    )
    here = np.ix_(rows.clip(0, picture.shape[0] - 1), columns.clip(0, picture.shape[1] - 1))
    found = _signs(levels.nearest(picture[here]), levels)
    unlike = FROM_SHARE * (1 - _summed(found, (near * pattern)[used])) / 2
    if product is not None:
        inside = np.logical_and.outer(
            *((each >= 0) & (each < n) for each, n in zip((rows, columns), product.shape, strict=True))
        )
        unlike += off_product * (1 - _summed(product[here] & inside, cutout.mask[used] / cutout.mask.sum()))
    fault = unlike - FAR_SHARE * FROM_SHARE * _summed(found, (far * pattern)[used]) / 2
    good = np.argwhere(fault <= fault.min() + AS_GOOD)
    place = good[int(rng.integers(len(good)))]
    return low + place, max(float(unlike[tuple(place)]), 0.0)


def _pattern(cutout: Cutout, levels: TwoLevels) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Return a cut-out's weights of near and of far pixels, which add up to 1, and its levels before the defect, ±1.

    All are `(h, w)`. Of near pixels the defect, what touches it and has its level, and what has the other, count alike,
    however large they are. Where the mask is wider than the defect nothing is known.
    """
    shown = _signs(levels.nearest(cutout.image), levels)
    own = np.sign(shown[cutout.mask].sum()) or 1.0
    distance, known = ndimage.distance_transform_edt(~cutout.mask), ~cutout.others
    around = np.exp(-distance / NEAR) * ((distance <= FARTHEST) & known)
    groups = (cutout.mask & (shown == own), around * (shown == own), around * (shown != own))
    near = _share(np.sum([_share(np.asarray(group, np.float64)) for group in groups], axis=0))
    far = _share(np.exp(-distance / FAR) * ((distance > FARTHEST) & known))
    return near, far, np.where(cutout.mask, -own, shown).astype(np.float32)


def _share(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide weights by their sum, unless all are 0."""
    total = float(weights.sum())
    return weights / total if total else weights


def _signs(values: NDArray[np.float32], levels: TwoLevels) -> NDArray[np.float32]:
    """Return the levels of `(h, w, 3)` as `(h, w)`: 1 for bright, -1 for dark."""
    return np.where(values[..., 0] == np.float32(levels.bright), np.float32(1), np.float32(-1))


def _span(bounds: Bounds, rng: np.random.Generator) -> tuple[Starts, Starts]:
    """Return the first and the last start that are compared, both `(2,)`."""
    low = np.where(bounds.fixed, bounds.ends, bounds.low)
    high = np.where(bounds.fixed, bounds.ends, bounds.high)
    low = low + rng.integers(np.maximum(high - low - MOST, 0) + 1)
    return low, np.minimum(high, low + MOST)


def _summed(values: NDArray[np.generic], weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the weighted sum of a picture's pixels for every place where the weights fit into it."""
    return np.asarray(fftconvolve(values.astype(np.float64), weights[::-1, ::-1], mode="valid"), np.float64)
