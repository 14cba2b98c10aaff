"""Copies real defects to other photographs, at the photographs' own scale (as in Dwibedi et al. 2017, CutPaste)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.data.blending import lay
from model.data.copy_paste import GAINS
from model.data.cutout import Changes, changed, cut_out, draw_start, find_bounds, overlap
from model.data.drawing import draw_best
from model.data.level_places import FITS, PLACE_TRIES
from model.data.places import find_place, searchable
from model.data.surroundings import OFF_PRODUCT, UNLIKE
from model.data.two_levels import TwoLevels
from model.types import ImageArray, MaskArray, Pair
from service.core.options.baselines import Blending

RING = 8
"""Width of the surroundings in which colours are compared, pixels."""

COPY_TRIES = 4
"""How many copies are tried until one lies in surroundings like the real defect's, and where it should; where there are
but two levels, `PLACE_TRIES`."""

EVEN = (0.3, 0.6)
"""Surroundings that deviate by less than the first share of their mean tell how bright a place is; by more than the
second, as in a pattern of light and dark, they tell nothing, and colours stay as they are."""


def copy_defect(
    pair: Pair,
    picture: ImageArray,
    product: MaskArray | None,
    flips: tuple[bool, bool],
    rng: np.random.Generator,
    *,
    blending: Blending = "feather",
    levels: TwoLevels | None = None,
    seen: ImageArray | None = None,
    changes: Changes | None = None,
    cropped: bool = False,
) -> tuple[ImageArray, MaskArray, float]:
    """Mirror, turn and scale a real defect a little, and lay it on a picture.

    Args:
        pair: the photograph with the defect.
        picture: `(H, W, 3)` uint8, to lay it on.
        product: `(H, W)` bool, where the defect should lie; None where nothing is known.
        flips: whether it may be mirrored, left to right and top to bottom.
        levels: of the real photographs, where they have but two; edges are hard then.
        seen: the picture as `searchable` returns it, to look for surroundings like the real ones; None not to.
        changes: how far it is turned and scaled; by default a little.
        cropped: whether the pair is a crop of a photograph, beyond which nothing is known: a defect that goes from one
            of its borders to another need not span the picture, but fit into a square of it.

    Returns:
        The picture with the defect; its exact mask, `(H, W)` bool; and how unlike the real one's surroundings are, see
        `model.data.surroundings`: 0 where they are not looked for.
    """
    mirror = rng.random(2) < 0.5
    mirrored = (flips[0] and bool(mirror[0]), flips[1] and bool(mirror[1]))
    by_levels = levels is not None and seen is not None
    transposed = by_levels and all(flips) and rng.random() < 0.5
    cutout, shape = cut_out(pair, mirrored, rng, transposed=transposed), picture.shape[:2]
    if cropped:
        cutout, shape = replace(cutout, spans=np.zeros_like(cutout.spans)), (min(shape),) * 2
    cutout = changed(cutout, shape, rng, changes)
    bounds = find_bounds(cutout, picture.shape, nearby=product is None and not by_levels)
    start = draw_start(cutout, picture.shape, bounds, product, rng)
    unlikeness = 0.0
    if seen is not None:
        anywhere = find_bounds(cutout, picture.shape)
        start, unlikeness = find_place(cutout, start, seen, levels, anywhere, product, rng)
    here, there = overlap(cutout.mask.shape, picture.shape, start)
    patch, mask, others = cutout.image[here], cutout.mask[here], cutout.others[here]
    surface = picture[there]
    image, placed = picture.copy(), np.zeros(picture.shape[:2], np.bool_)
    if levels is None:
        patch = patch * _gain(_ring(patch, mask, others), _ring(surface, mask, mask))
        image[there] = lay(patch, surface, mask, others, blending)
    else:
        # A faded edge would be grey where nothing else is, and so is what turning and scaling made.
        image[there] = lay(levels.nearest(patch), surface, mask, others, "none")
    placed[there] = mask
    return image, placed, unlikeness


def copy_well(
    pair: Pair,
    picture: ImageArray,
    wanted: MaskArray | None,
    flips: tuple[bool, bool],
    rng: np.random.Generator,
    *,
    levels: TwoLevels | None = None,
    changes: Changes | None = None,
    cropped: bool = False,
) -> tuple[float, ImageArray, MaskArray]:
    """Copy a real defect as `copy_defect` does, a few times, until it lies in surroundings like the real one's.

    Args:
        wanted: `(H, W)` bool, where the defect should lie; None for anywhere.

    Returns:
        How well the best copy lies there, 0 at best; the picture with the defect; and its mask, `(H, W)` bool.
    """
    seen = searchable(picture, levels)

    def draw_one() -> tuple[float, tuple[float, ImageArray, MaskArray]]:
        image, mask, unlikeness = copy_defect(
            pair,
            picture,
            wanted,
            flips,
            rng,
            levels=levels,
            seen=seen,
            changes=changes,
            cropped=cropped,
        )
        outside = 0.0 if wanted is None or not mask.any() else 1 - float(wanted[mask].mean())
        score = -unlikeness - OFF_PRODUCT * outside if mask.any() else -np.inf
        return score, (score, image, mask)

    enough, tries = (-UNLIKE, COPY_TRIES) if levels is None else (-FITS, PLACE_TRIES)
    return draw_best(draw_one, enough, tries)


def _ring(image: NDArray[np.float32] | ImageArray, mask: MaskArray, avoided: MaskArray) -> NDArray[np.float64]:
    """Return the pixels around a mask, `(N, 3)`; the first one is left out, because it is a mixture.

    Args:
        image: `(H, W, 3)`.
        avoided: `(H, W)` bool, pixels that do not count.
    """
    ring = ndimage.binary_dilation(mask, iterations=RING + 1) & ~ndimage.binary_dilation(mask | avoided)
    return np.asarray(image[ring] if ring.any() else image.reshape(-1, 3), np.float64)


def _gain(real: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return what to multiply the channels of a defect by, `(3,)`, from the pixels around it there and here."""
    means = [np.maximum(pixels.mean(0), 1.0) for pixels in (real, normal)]
    deviation = max(float((pixels.std(0) / mean).max()) for pixels, mean in zip((real, normal), means, strict=True))
    trust = np.clip((EVEN[1] - deviation) / (EVEN[1] - EVEN[0]), 0, 1)
    return np.clip((means[1] / means[0]) ** trust, *GAINS).astype(np.float32)
