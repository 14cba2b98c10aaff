"""Finds places on black and white good parts where a real defect does what it does: joins, cuts off or eats away.

There, what matters is which pixels touch the defect and have its level, so that it grows out of them or joins them, and
which have the other. All places are compared, by a convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from model.data.crops import bounding_box
from model.data.cutout import Bounds, Cutout, Starts
from model.data.drawing import draw_best
from model.data.surroundings import OFF_PRODUCT
from model.data.two_levels import TwoLevels
from model.types import ImageArray, MaskArray

_Part = TypeVar("_Part")
_Drawn = TypeVar("_Drawn")

NEAR, TOUCHING = 4.0, 1.5
"""Distance from the defect over which the weight of a pixel falls by e, pixels; and of one with the defect's own level,
which it is to touch."""

FARTHEST = 8
"""Distance from the defect up to which pixels tell whether it fits, pixels."""

FAR, FAR_SHARE = 8.0, 0.2
"""As `NEAR`, of the pixels beyond; and how much their unlikeness counts in choosing among the places that fit: excess
copper lies off the conductors, a spur may have another conductor beside it."""

FROM_SHARE = 4.0
"""Unlikeness, as `model.data.surroundings` has it, of a pattern of which all pixels have the other level."""

MOST = 512
"""Along each axis of a large photograph, no more starts than these are compared, around one that is drawn by chance."""

LARGEST = 192
"""Rows and columns of a pattern above which only every second one, or fewer, are compared."""

FITS = 0.1
"""Unlikeness up to which a place is good enough."""

PLACE_TRIES, PARTS = 5, 8
"""How many more times a defect is changed until it fits; and on how many good parts: some have no place for it."""

AS_GOOD = 0.02
"""A place is drawn among those that are worse than the best by at most this."""


def draw_where_it_fits(
    first: _Part,
    parts: Sequence[_Part],
    rng: np.random.Generator,
    draw_on: Callable[[_Part], tuple[float, _Drawn]],
) -> _Drawn:
    """Draw on a good part, and on others where a defect has no place on it, until it fits.

    Args:
        first: the good part whose turn it is.
        parts: all of them.
        draw_on: draws on a good part; returns also how well the defect lies there, 0 at best and else below.
    """
    others = [part for part in parts if part is not first]
    tried = iter([first, *(others[number] for number in rng.permutation(len(others))[: PARTS - 1])])
    return draw_best(lambda: draw_on(next(tried)), -FITS, min(len(others), PARTS - 1))


def find_level_place(
    cutout: Cutout,
    start: Starts,
    picture: ImageArray,
    levels: TwoLevels,
    bounds: Bounds,
    product: MaskArray | None,
    rng: np.random.Generator,
) -> tuple[Starts, float]:
    """Find where a cut-out's defect would fit best.

    Args:
        start: `(2,)`, a place within the bounds, kept if nothing is known of the real one's surroundings.
        picture: `(H, W, 3)` uint8, a good part.
        product: `(H, W)` bool, where the defect should lie; None for everywhere.

    Returns:
        The start, `(2,)`; and how unlike the real one's surroundings are there: 0 for equals, about 2 without likeness.
    """
    distance = ndimage.distance_transform_edt(~cutout.mask)
    around = (distance > 0) & (distance <= FARTHEST) & ~cutout.others
    if not around.any():
        return start, 0.0
    near, far, pattern = _pattern(cutout, levels, distance, around)
    used = bounding_box(near + far > 0)
    low, high = _span(start, bounds, rng)
    step = max(1, -(-max(part.stop - part.start for part in used) // LARGEST))
    rows, columns = (
        np.arange(first + part.start, last + part.stop, step) for first, last, part in zip(low, high, used, strict=True)
    )
    here = np.ix_(rows.clip(0, picture.shape[0] - 1), columns.clip(0, picture.shape[1] - 1))
    found = _signs(levels.nearest(picture[here]), levels)
    weights = [_coarse(each[used], step) for each in (near, far)]
    signs = pattern[used][::step, ::step]
    unlike, farther = FROM_SHARE / 2 * (1 - _summed(found, np.stack([each * signs for each in weights])))
    fault = np.maximum(unlike, 0)
    if product is not None:
        inside = np.logical_and.outer(
            *((each >= 0) & (each < n) for each, n in zip((rows, columns), product.shape, strict=True))
        )
        defect = _coarse(_share(cutout.mask[used].astype(np.float64)), step)
        fault += OFF_PRODUCT * (1 - _summed(product[here] & inside, defect[None])[0]).clip(0)
    among = fault <= max(FITS, float(fault.min()) + AS_GOOD)
    fault = np.where(among, fault + FAR_SHARE * farther, np.inf)
    good = np.argwhere(fault <= fault.min() + AS_GOOD)
    place = good[int(rng.integers(len(good)))]
    return np.minimum(low + step * place, high), max(float(unlike[tuple(place)]), 0.0)


def _pattern(
    cutout: Cutout, levels: TwoLevels, distance: NDArray[np.float64], around: MaskArray
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Return the weights of a cut-out's near and of its far pixels, and its levels before the defect, ±1, all `(h, w)`.

    Either's weights add up to 1, if there are any. Of near pixels the defect, what is around it and has its level, and
    what has the other, count alike, however large they are. Where the mask is wider than the defect nothing is known.

    Args:
        distance: `(h, w)`, from the defect, pixels.
        around: `(h, w)` bool, the pixels around the defect that tell whether it fits.
    """
    shown = _signs(levels.nearest(cutout.image), levels)
    own = np.sign(shown[cutout.mask].sum()) or 1.0
    groups = (
        cutout.mask & (shown == own),
        np.exp(-distance / TOUCHING) * (around & (shown == own)),
        np.exp(-distance / NEAR) * (around & (shown != own)),
    )
    near = _share(np.sum([_share(np.asarray(group, np.float64)) for group in groups], axis=0))
    far = _share(np.exp(-distance / FAR) * ((distance > FARTHEST) & ~cutout.others))
    return near, far, np.where(cutout.mask, -own, shown).astype(np.float32)


def _share(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide weights by their sum, unless all are 0."""
    total = float(weights.sum())
    return weights / total if total else weights


def _coarse(weights: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Add up weights in squares of `step` pixels, the last ones smaller."""
    for axis in (0, 1):
        weights = np.add.reduceat(weights, np.arange(0, weights.shape[axis], step), axis=axis)
    return weights


def _signs(values: NDArray[np.float32], levels: TwoLevels) -> NDArray[np.float32]:
    """Return the levels of `(h, w, 3)` as `(h, w)`: 1 for bright, -1 for dark."""
    return np.where(values[..., 0] == np.float32(levels.bright), np.float32(1), np.float32(-1))


def _span(start: Starts, bounds: Bounds, rng: np.random.Generator) -> tuple[Starts, Starts]:
    """Return the first and the last start that are compared, both `(2,)`; the one that was drawn lies between them."""
    low = np.where(bounds.fixed, bounds.ends, bounds.low)
    high = np.where(bounds.fixed, bounds.ends, bounds.high)
    first = start - rng.integers(0, MOST + 1, 2)
    low = first.clip(low, np.maximum(high - MOST, low))
    return low, np.minimum(high, low + MOST)


def _summed(values: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of a picture's pixels, weighted each way, for every place where the weights fit into it.

    Args:
        values: `(H, W)`.
        weights: `(n, h, w)`.

    Returns:
        `(n, H - h + 1, W - w + 1)`.
    """
    turned = weights[:, ::-1, ::-1].astype(np.float32)
    return np.asarray(fftconvolve(values[None].astype(np.float32), turned, mode="valid", axes=(1, 2)), np.float64)
