"""Finds places on a good part whose surroundings are like those that a real defect had.

A short joins two conductors and a mouse bite lies at the edge of one: laid elsewhere, their masks ask for what no such
defect looks like. Both surroundings are blurred, so that grain does not count: on an even surface all places are alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from model.data.crops import bounding_box
from model.data.cutout import SURROUNDINGS, Bounds, Cutout, Starts
from model.data.drawing import draw_best
from model.types import ImageArray, MaskArray, Pair

BLUR = 1.5
"""Standard deviation of the blur, pixels."""

NEAR = 8.0
"""Distance from the defect over which a pixel's weight falls by e, pixels."""

POINTS = 200
"""Pixels of the surroundings that are compared."""

GRAIN = 12.0
"""Deviation that hardly counts, grey levels: shading, and what the blur leaves of the grain."""

LIGHT = 40.0
"""Difference of mean brightness that does not count, grey levels."""

RANGE = (2, 98)
"""Percentiles of a photograph's brightness; surroundings that are darker or brighter are compared with these, since the
light may have been another."""

ALIKE = 0.35
"""Unlikeness up to which a place is good enough."""

UNLIKE = 0.5
"""Unlikeness from which on another mask may find a better place."""

ROUGH, FINE, STEPS = 256, 6, 5
"""How many places are compared where the first is not good enough; around how many of the best is searched; and the
steps along each axis of such a search."""

OFF_PRODUCT = 4.0
"""Unlikeness that is added for a defect off the product, times the share of it."""

SAMPLED = 400
"""Most pixels of a defect that are looked at to learn which share of it lies on the product, and most rows and columns
of a photograph to learn how bright it is."""

TINY = 1e-6
"""Keeps a quotient finite where nothing is known."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around a cut-out defect, to be compared with places of a photograph.

    Attributes:
        offsets: `(n, 2)`, rows and columns of the cut-out.
        colours: `(n, 3)`, 0–255, blurred.
        photograph: `(H, W, 3)` uint8, blurred.
        brightness: `(3,)`, wanted on average.
    """

    offsets: NDArray[np.int_]
    colours: NDArray[np.float32]
    photograph: ImageArray
    brightness: NDArray[np.float32]

    def unlikeness(self, starts: Starts) -> NDArray[np.float64]:
        """Return `(k,)`, the squared difference as a share of the structure: 0 for equals, about 2 without likeness.

        What lies beyond the photograph is taken to be like its border.
        """
        height, width = self.photograph.shape[:2]
        places = (starts[:, None] + self.offsets).clip(0, (height - 1, width - 1))
        found = self.photograph.reshape(-1, 3).take(places @ np.array([width, 1]), axis=0).astype(np.float32)
        mean, squares = found.mean(1), np.einsum("knc,knc->kc", found, found) / POINTS
        together = np.einsum("knc,nc->kc", found, self.colours) / POINTS
        own, structure = self.colours.mean(0), self.colours.var(0)
        here = squares - mean**2
        difference = here + structure - 2 * (together - mean * own)
        lighter = np.maximum(np.abs(mean - self.brightness) - LIGHT, 0)
        shares = np.maximum(here.sum(1), structure.sum()) + 3 * GRAIN**2
        return np.asarray((difference + lighter**2).sum(1) / shares, np.float64)


def structure_around(pair: Pair) -> float:
    """Return how uneven the surroundings of a defect are: the variance of what the blur leaves, near pixels first.

    Args:
        pair: its mask is not empty.

    Returns:
        A multiple of the variance of grain: below 1 on an even surface, 0 where the defect fills the picture.
    """
    box = tuple(slice(max(0, each.start - SURROUNDINGS), each.stop + SURROUNDINGS) for each in bounding_box(pair.mask))
    mask = pair.mask[box]
    weights = _weights(mask, mask)
    if not weights.any():
        return 0.0
    colours = _blurred_where(pair.image[box].astype(np.float32), ~mask)
    means = np.average(colours, axis=(0, 1), weights=np.stack([weights] * 3, -1))
    spread = np.average(np.square(colours - means).sum(-1), weights=weights)
    return float(spread / (3 * GRAIN**2))


def surroundings(cutout: Cutout, photograph: ImageArray, rng: np.random.Generator) -> Surroundings | None:
    """Draw pixels around a defect, near ones more often; None if nothing is known of what lies there.

    Args:
        photograph: `(H, W, 3)` uint8, blurred, see `blurred`.
    """
    weights = _weights(cutout.mask, cutout.others)
    if not weights.any():
        return None
    colours = _blurred_where(cutout.image, ~cutout.others)
    chosen = rng.choice(weights.size, POINTS, p=weights.ravel() / weights.sum())
    rows, columns = np.unravel_index(chosen, weights.shape)
    own = colours[rows, columns]
    stride = -(-max(photograph.shape) // SAMPLED)
    least, most = np.percentile(photograph[::stride, ::stride], RANGE, axis=(0, 1))
    return Surroundings(
        np.stack([rows, columns], -1), own.astype(np.float32), photograph, own.mean(0).clip(least, most)
    )


def _weights(mask: MaskArray, others: MaskArray) -> NDArray[np.float64]:
    """Return the weights of the pixels around a mask, `(h, w)`; 0 where `others` is."""
    return np.asarray(~others * np.exp(-ndimage.distance_transform_edt(~mask) / NEAR))


def _blurred_where(image: NDArray[np.float32], known: MaskArray) -> NDArray[np.float32]:
    """Blur `(h, w, 3)` as if there was nothing where it is not known."""
    share = ndimage.gaussian_filter(known.astype(np.float32), BLUR)
    return np.asarray(ndimage.gaussian_filter(image * known[..., None], (BLUR, BLUR, 0)) / (share[..., None] + TINY))


def blurred(image: ImageArray) -> ImageArray:
    """Blur a photograph, so that surroundings can be compared."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR)))


def find_alike(
    around: Surroundings,
    start: Starts,
    bounds: Bounds,
    mask: MaskArray,
    product: MaskArray | None,
    rng: np.random.Generator,
) -> Starts:
    """Keep a place whose surroundings are alike, or search for one; returns its start, `(2,)`.

    Args:
        start: `(2,)`, of the place.
        mask: `(h, w)` bool, the cut-out's defect.
        product: `(H, W)` bool, where the defect should lie; None where nothing is known.
    """
    places = np.argwhere(mask)
    sample = places[:: -(-len(places) // SAMPLED)]

    def fault(starts: Starts) -> NDArray[np.float64]:
        off = 0.0 if product is None else OFF_PRODUCT * (1 - _share_on(product, sample, starts))
        return around.unlikeness(starts) + off

    if fault(start[None])[0] <= ALIKE:
        return start
    rough = np.concatenate([start[None], bounds.draw(rng, ROUGH)])
    best = rough[np.argsort(fault(rough), kind="stable")[:FINE]]
    reach = float(np.sqrt(np.prod(bounds.high - bounds.low + 1) / ROUGH))
    turns = iter(rng.permutation(best))

    def search_one() -> tuple[float, Starts]:
        found = _searched(next(turns), fault, bounds, reach)
        return -float(fault(found[None])[0]), found

    return draw_best(search_one, -ALIKE, FINE - 1)


def _searched(start: Starts, fault: Callable[[Starts], NDArray[np.float64]], bounds: Bounds, reach: float) -> Starts:
    """Search around a place in ever smaller steps, the last of which are single pixels."""
    steps = np.indices((STEPS, STEPS)).reshape(2, -1).T - STEPS // 2
    while True:
        step = max(1.0, reach / (STEPS // 2))
        around = bounds.kept(start + (step * steps).round().astype(int))
        start = around[int(np.argmin(fault(around)))]
        if step == 1:
            return start
        reach /= 2


def _share_on(product: MaskArray, places: NDArray[np.int_], starts: Starts) -> NDArray[np.float64]:
    """Return, `(n,)`, which share of a cut-out's places lies on the product."""
    size = np.array(product.shape)
    found = starts[:, None] + places
    inside = ((found >= 0) & (found < size)).all(-1)
    rows, columns = np.moveaxis(found.clip(0, size - 1), -1, 0)
    return np.asarray((product[rows, columns] & inside).mean(1), np.float64)
