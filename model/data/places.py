"""Finds where on a good part a cut-out defect belongs."""

from __future__ import annotations

import numpy as np

from model.data.cutout import Bounds, Cutout, Starts
from model.data.level_places import find_level_place
from model.data.surroundings import blurred, find_alike, surroundings
from model.data.two_levels import TwoLevels
from model.types import ImageArray, MaskArray


def searchable(picture: ImageArray, levels: TwoLevels | None) -> ImageArray:
    """Return what a picture `(H, W, 3)` is compared by: itself where there are but two levels, otherwise blurred."""
    return blurred(picture) if levels is None else picture


def find_place(
    cutout: Cutout,
    start: Starts,
    seen: ImageArray,
    levels: TwoLevels | None,
    bounds: Bounds,
    product: MaskArray | None,
    rng: np.random.Generator,
) -> tuple[Starts, float]:
    """Find where a cut-out's surroundings are like those of the real defect.

    Args:
        start: `(2,)`, a place that is kept if nothing is known of the real one's surroundings, or, where there are more
            than two levels, if it is good enough.
        seen: `(H, W, 3)` uint8, the good part as `searchable` returns it.
        levels: of the real photographs, where they have but two.
        product: `(H, W)` bool, where the defect should lie; None where nothing is known.

    Returns:
        The start, `(2,)`; and how unlike the surroundings are there: 0 for equals, about 2 without likeness.
    """
    if levels is not None:
        return find_level_place(cutout, start, seen, levels, bounds, product, rng)
    around = surroundings(cutout, seen, rng)
    if around is None:
        return start, 0.0
    start = find_alike(around, start, bounds, cutout.mask, product, rng)
    return start, float(around.unlikeness(start[None])[0])
