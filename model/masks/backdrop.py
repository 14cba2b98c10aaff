"""Finds a product by what it is not: the plain backdrop that the frame of the photograph shows.

Industrial photographs often show a part on a tray or a belt. A network that was trained on something else may take the
whole of it for the product; its colours tell better. The frame's colours are the backdrop's, and what differs from all
of them, more clearly than chance would have it, is the product.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from model.types import ImageArray, MaskArray

FRAME = 0.05
"""Width of the frame, as a share of the shorter side."""

COLOURS = 4
"""Most colours that a backdrop has."""

LEAST_SPREAD = 4.0
"""Deviation that a colour is given at least, grey levels, so that an even backdrop is not stricter than a camera."""

CLEAR = 0.75
"""Share of the distances' variance that two groups must explain (Otsu's η); halves of one normal group explain 0.64."""

MOST_IN_FRAME = 0.05
"""Largest share of the frame that may differ from the backdrop: a product that reaches it is not told apart."""

PIECE = 0.25
"""Least size of what counts as a piece of the product, as a share of the largest one; crumbs are smaller."""

SEED = 0


def stands_out(image: ImageArray) -> MaskArray | None:
    """Find what differs from the backdrop.

    Args:
        image: `(H, W, 3)` uint8, some 128 pixels along the longer side.

    Returns:
        `(H, W)` bool, the pieces of the product; None unless something stands out clearly, away from the frame.
    """
    smooth = ndimage.gaussian_filter(image.astype(float), (1, 1, 0))
    width = max(2, round(FRAME * min(image.shape[:2])))
    frame = np.ones(image.shape[:2], bool)
    frame[width:-width, width:-width] = False
    distance = np.log1p(_from_backdrop(smooth, smooth[frame]))
    threshold, clear = otsu(distance)
    differs = distance > threshold
    if clear < CLEAR or differs[frame].mean() > MOST_IN_FRAME:
        return None
    labels, count = ndimage.label(ndimage.binary_fill_holes(ndimage.binary_opening(differs, iterations=2)))
    if not count:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= PIECE * sizes.max())[labels])


def _from_backdrop(pixels: NDArray[np.float64], backdrop: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return every pixel's distance from the nearest colour of the backdrop, in deviations of that colour."""
    different = len(np.unique(backdrop.round(), axis=0))
    centres, labels = kmeans2(backdrop, min(COLOURS, different), minit="++", rng=np.random.default_rng(SEED))
    nearest = np.full(pixels.shape[:2], np.inf)
    for number, centre in enumerate(centres):
        own = backdrop[labels == number]
        if len(own):
            spread = max(LEAST_SPREAD, float(np.sqrt(np.square(own - centre).mean())))
            nearest = np.minimum(nearest, np.linalg.norm(pixels - centre, axis=2) / spread)
    return nearest


def otsu(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the threshold that best tells two groups apart, and the share of the variance that they explain (Otsu)."""
    ordered = np.sort(values.ravel())
    count = len(ordered)
    below = np.arange(1, count)
    sums = np.cumsum(ordered)
    lower, upper = sums[:-1] / below, (sums[-1] - sums[:-1]) / (count - below)
    between = below * (count - below) / count**2 * np.square(upper - lower)
    best = int(between.argmax())
    variance = float(ordered.var())
    return float((ordered[best] + ordered[best + 1]) / 2), float(between[best]) / variance if variance else 0.0
