"""Measures how a defect stands out, and where the outline of a mask lies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.data.crops import bounding_box
from model.types import ImageArray, MaskArray

DARK = 16.0
"""Grey levels added to the surroundings' brightness, of which visibility is a share: a dark photograph shows less."""


@dataclass(frozen=True, slots=True)
class Rings:
    """Two rings along the outline of a mask, in which pictures are compared.

    Attributes:
        box: rows and columns that hold both.
        inside, outside: `(h, w)` bool, just inside the mask, and outside. One pixel outside is left out: a mixture.
        ring: their width, pixels.
    """

    box: tuple[slice, slice]
    inside: MaskArray
    outside: MaskArray
    ring: int

    @classmethod
    def of(cls, mask: MaskArray, ring: int) -> Rings:
        """Find the rings of a mask, `(H, W)` bool, not empty."""
        reach = ring + 1
        rows, columns = bounding_box(mask)
        box = np.s_[
            max(0, rows.start - reach) : rows.stop + reach, max(0, columns.start - reach) : columns.stop + reach
        ]
        near = mask[box]
        inside = near & ~ndimage.binary_erosion(near, iterations=ring, border_value=1)
        outside = ndimage.binary_dilation(near, iterations=reach) & ~ndimage.binary_dilation(near)
        return cls(box, inside, outside, ring)

    def contrast(self, image: ImageArray) -> tuple[float, float]:
        """Measure how the defect of an image, `(H, W, 3)` uint8, stands out: see the function `contrast`."""
        if not self.inside.any() or not self.outside.any():
            return 0.0, 0.0
        pixels = image[self.box].astype(np.float32)
        inner_mean, inner_seen = _local_mean(pixels, self.inside, 2 * self.ring + 1)
        outer_mean, outer_seen = _local_mean(pixels, self.outside, 2 * self.ring + 1)
        outline = self.inside & inner_seen & outer_seen
        difference = np.abs(inner_mean - outer_mean)[outline].mean(axis=0).max() if outline.any() else 0.0
        texture = np.abs(pixels[self.inside].std(axis=0) - pixels[self.outside].std(axis=0)).max()
        return float(difference), float(texture)

    def relative_contrast(self, image: ImageArray) -> float:
        """Measure contrast and texture as a share of the brightness of the outer ring; 0 where there is none."""
        if not self.outside.any():
            return 0.0
        return math.hypot(*self.contrast(image)) / (float(image[self.box][self.outside].mean()) + DARK)


def contrast(image: ImageArray, mask: MaskArray, ring: int) -> tuple[float, float]:
    """Measure how a defect stands out along its outline, in grey levels: `(contrast, texture)`.

    Both compare a ring just inside with a ring just outside the mask and take the channel where they differ most.
    Contrast is the mean over the outline of the difference between the local means, so that a defect darker at one end
    and brighter at the other counts as visible; texture is the difference between the two rings' standard deviations.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool, not empty.
        ring: width of the rings in pixels.
    """
    return Rings.of(mask, ring).contrast(image)


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
