"""Measures how a defect stands out, and where the outline of a mask lies."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.data.crops import bounding_box
from model.types import ImageArray, MaskArray

DARK = 16.0
"""Grey levels added to the surroundings' brightness, of which visibility is a share: a dark photograph shows less."""


def contrast(image: ImageArray, mask: MaskArray, ring: int) -> tuple[float, float]:
    """Measure how a defect stands out along its outline, in grey levels: `(contrast, texture)`.

    Both compare a ring just inside with a ring just outside the mask and take the channel where they differ most.
    Contrast is the mean over the outline of the difference between the local means, so that a defect darker at one end
    and brighter at the other counts as visible; texture is the difference between the two rings' standard deviations.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool.
        ring: width of the rings in pixels. One pixel outside the mask is left out: it is a mixture.
    """
    reach = ring + 1
    nearby = bounding_box(ndimage.binary_dilation(mask, iterations=reach))
    pixels, mask = image[nearby].astype(np.float32), mask[nearby]
    inside = mask & ~ndimage.binary_erosion(mask, iterations=ring, border_value=1)
    outside = ndimage.binary_dilation(mask, iterations=reach) & ~ndimage.binary_dilation(mask)
    if not inside.any() or not outside.any():
        return 0.0, 0.0
    inner_mean, inner_seen = _local_mean(pixels, inside, 2 * ring + 1)
    outer_mean, outer_seen = _local_mean(pixels, outside, 2 * ring + 1)
    outline = inside & inner_seen & outer_seen
    difference = np.abs(inner_mean - outer_mean)[outline].mean(axis=0).max() if outline.any() else 0.0
    texture = np.abs(pixels[inside].std(axis=0) - pixels[outside].std(axis=0)).max()
    return float(difference), float(texture)


def relative_contrast(image: ImageArray, mask: MaskArray, ring: int) -> float:
    """Measure a defect's contrast and texture, see `contrast`, as a share of the brightness around it.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool, not empty.
        ring: width of the rings in pixels, and of the surroundings, apart from the pixel that is left out.

    Returns:
        0 for a defect that fills the picture.
    """
    nearby = bounding_box(ndimage.binary_dilation(mask, iterations=ring + 1))
    around = image[nearby][~ndimage.binary_dilation(mask[nearby])]
    return math.hypot(*contrast(image, mask, ring)) / (float(around.mean()) + DARK) if around.size else 0.0


def outline_share(mask: MaskArray, where: MaskArray) -> float:
    """Return the share of the mask's outermost pixels that lie in `where`; both `(H, W)` bool, mask not empty."""
    outline = mask & ~ndimage.binary_erosion(mask)
    return float((outline & where).sum() / outline.sum())


def image_border(shape: tuple[int, ...], sides: tuple[bool, bool, bool, bool] = (True, True, True, True)) -> MaskArray:
    """Return `(H, W)` bool: the outermost pixels on the chosen sides (left, top, right, bottom)."""
    border = np.zeros(shape, dtype=np.bool_)
    left, top, right, bottom = sides
    border[:, 0] |= left
    border[0] |= top
    border[:, -1] |= right
    border[-1] |= bottom
    return border


def _local_mean(pixels: NDArray[np.float32], where: MaskArray, size: int) -> tuple[NDArray[np.float32], MaskArray]:
    """Average `pixels` `(H, W, C)` over `size × size` neighbours in `where`; also returns where there are any."""
    weight = ndimage.uniform_filter(where.astype(np.float32), size, mode="constant")[..., None]
    total: NDArray[np.float32] = ndimage.uniform_filter(pixels * where[..., None], (size, size, 1), mode="constant")
    seen = weight > 0.5 / size**2
    mean: NDArray[np.float32] = np.divide(total, weight, out=np.zeros_like(total), where=seen)
    return mean, seen[..., 0]
