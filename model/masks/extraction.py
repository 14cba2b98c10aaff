"""Finds the defect's mask on a generated anomaly part, by one of three methods, and tidies it.

The part is the defect on mid-grey. A segmentation network finds it (the paper's choice), or the distance from grey
does, or the anomaly branch's attention, averaged over layers and steps, which shows where that branch drew something.
On a good part, the image itself tells where the defect ends: where it no longer differs from the good part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from model.data.pixels import to_pixels
from model.masks.u2net import U2Net, saliency
from model.types import GREY, ImageArray, MaskArray

NEIGHBOURS = np.ones((3, 3), dtype=bool)
"""Connectivity of a pixel: diagonal neighbours touch."""

FAINTEST, LOUDEST = 8.0, 24.0
"""Grey levels: a distance below the first is never a defect, one above the second can always be one."""

CHANGED, FAINTEST_CHANGE = 0.5, 4.0
"""Where a mask ends, as a share of the root mean square change within it, the middle of an edge; and, grey levels, the
least change that counts, above noise."""

SMOOTHED = 1.0
"""Standard deviation of the blur of the change, pixels: texture agrees with that of the good part here and there."""

LEAST_KEPT, LEAST_FOUND = 0.5, 0.25
"""Shares of a piece of a mask that must have changed, and of the matched one that must have been found, for the change
to move its outline. With less, image and part show different defects, and the checks are to see that."""


def u2net_masks(net: U2Net, parts: Sequence[ImageArray]) -> list[MaskArray]:
    """Find defects with the network, at probability 1/2, in one pass.

    Args:
        net: in evaluation mode.
        parts: `(H, W, 3)` uint8 each, on mid-grey, all of one size.

    Returns:
        `(H, W)` bool each.
    """
    return list((u2net_probabilities(net, parts)[:, 0] > 0.5).cpu().numpy())


def u2net_probabilities(net: U2Net, parts: Sequence[ImageArray]) -> Tensor:
    """Return the probability of defect that the network sees in each pixel, `(B, 1, H, W)`; arguments as above."""
    device = next(net.parameters()).device
    return saliency(net, to_pixels(parts).to(device))


def u2net_mask(net: U2Net, part: ImageArray) -> MaskArray:
    """Find the defect on one part, like `u2net_masks`."""
    return u2net_masks(net, [part])[0]


def threshold_mask(part: ImageArray) -> MaskArray:
    """Find the defect as the pixels that differ from mid-grey; needs no training and no settings.

    The distance is the root mean square over channels after a light blur. Pixels beyond Otsu's threshold are seeds;
    pixels beyond half of it that touch a seed join. Neither threshold falls below 3.5 times the median distance (on
    a part that is mostly background, its noise), so a noisy part without a defect gives an empty mask.

    Args:
        part: `(H, W, 3)` uint8 on mid-grey.

    Returns:
        `(H, W)` bool.
    """
    signed = ndimage.gaussian_filter(part.astype(np.float32) - GREY, sigma=(0.5, 0.5, 0))
    distance = np.sqrt(np.square(signed).mean(axis=2))
    floor = float(np.clip(3.5 * np.median(distance), FAINTEST, LOUDEST))
    threshold = otsu(distance)
    seeds = distance > max(threshold, floor)
    return ndimage.binary_propagation(seeds, structure=NEIGHBOURS, mask=distance > max(threshold / 2, floor))


def attention_mask(attention: NDArray[np.floating], shape: tuple[int, int]) -> MaskArray:
    """Find the defect as the pixels that the anomaly branch attends to.

    Args:
        attention: `(h, w)`, averaged over layers, heads and steps; any scale.
        shape: `(H, W)` of the image.

    Returns:
        `(H, W)` bool: above Otsu's threshold; empty if the map is flat.
    """
    height, width = shape
    enlarged = np.asarray(
        Image.fromarray(attention.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    )
    return enlarged > otsu(enlarged)


def otsu(values: NDArray[np.floating], bins: int = 256) -> float:
    """Return the threshold that best separates the values into two classes (Otsu 1979); their maximum if all are equal.

    Args:
        values: any shape, finite.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return high
    counts, edges = np.histogram(values, bins, (low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sum_below = np.cumsum(counts * centres)[:-1]
    sum_above = (counts * centres).sum() - sum_below
    between = below * above * (sum_below / below - sum_above / above) ** 2
    # The criterion is constant where no value lies between the classes; take the middle of that stretch.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1 + best].mean())


def tidy_mask(mask: MaskArray, *, speck: float = 0.05) -> MaskArray:
    """Close narrow gaps, fill holes, remove specks.

    A hole larger than the whole mask stays: a ring-shaped scratch surrounds it.

    Args:
        mask: `(H, W)` bool.
        speck: components smaller than this share of the largest are removed.
    """
    if not mask.any():
        return mask
    radius = max(1, round(min(mask.shape) / 256))
    # Padded, because closing erodes from the border as if nothing were beyond it.
    padded = np.pad(mask, radius, mode="edge")
    closed = ndimage.binary_closing(padded, ndimage.generate_binary_structure(2, 1), iterations=radius)
    tidy: MaskArray = closed[radius:-radius, radius:-radius] | mask

    holes, count = ndimage.label(ndimage.binary_fill_holes(tidy) & ~tidy)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    tidy = tidy | ((sizes <= tidy.sum())[holes] & (holes > 0))

    components, _ = ndimage.label(tidy, NEIGHBOURS)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept: MaskArray = (sizes >= max(1.0, speck * sizes.max()))[components]
    return kept


def match_change(mask: MaskArray, image: ImageArray, good: ImageArray, reach: int) -> MaskArray:
    """Move a mask's outline to where the change of the good part ends, by at most `reach` pixels outwards.

    The image branch may draw a defect somewhat larger or smaller than the anomaly branch does; the pair shows the
    image's. Each piece of the mask is measured by its own change, so that a faint one beside a strong one stays; a
    piece at which image and part show different defects stays as it was found.

    Args:
        mask: `(H, W)` bool, found on the part.
        image, good: `(H, W, 3)` uint8, with the defect and without it, both as the autoencoder decodes them.

    Returns:
        `(H, W)` bool.
    """
    if not mask.any():
        return mask
    change = np.sqrt(np.square(image.astype(np.float32) - good).mean(axis=2))
    change = ndimage.gaussian_filter(change, SMOOTHED)
    pieces, count = ndimage.label(mask, NEIGHBOURS)
    strengths = np.sqrt(ndimage.mean(np.square(change), pieces, np.arange(1, count + 1)))
    distance, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    near, piece = distance <= reach, pieces[tuple(nearest)] - 1
    ends = np.maximum(CHANGED * strengths, FAINTEST_CHANGE)[piece]
    matched = tidy_mask((change > ends) & near) & near
    found, moved, both = (np.bincount(piece[each], minlength=count) for each in (mask, matched, mask & matched))
    follows = (both > LEAST_KEPT * found) & (both >= LEAST_FOUND * moved)
    return np.where(follows[piece], matched, mask)


def iou(first: MaskArray, second: MaskArray) -> float:
    """Return the intersection over union of two `(H, W)` masks, in [0, 1]; 1 if both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0
