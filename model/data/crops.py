"""Cuts square crops from images of any size and aspect ratio, for a model that takes squares.

A crop is a square window. `whole` takes the largest square, `window` the smallest one of at least the model's
resolution that shows a defect with surroundings (its box fills at most 60 % of a side), so that small defects on large
photographs keep their own pixels. Both are placed at random so that the defect lies inside as far as it fits, and
resized to the model's resolution. Nothing is ever stretched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.types import ImageArray, MaskArray
from service.core.options.common import CropKind
from service.core.uploads.specks import SPECK_SHARE, speck_side

DEFECT_SHARE = 0.6
"""Largest share of a window's side that a defect's box fills."""

SIDE_JITTER = 1.25
"""Largest factor by which random windows are larger than necessary."""

DEFECTS_PER_PAIR = 8
"""Most separate defects of one photograph that have their own references and their turn among its crops."""

COVERED = 0.4
"""Share of a resized mask pixel's area from which it is defect."""


@dataclass(frozen=True, slots=True)
class Window:
    """A square of `side` pixels with its left upper corner at `(left, top)`, inside the image."""

    left: int
    top: int
    side: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """`(left, top, right, bottom)`."""
        return self.left, self.top, self.left + self.side, self.top + self.side

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)


def find_defects(mask: MaskArray) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Separate the defects of a mask; specks, stray pixels beside a larger defect, are none.

    Args:
        mask: `(H, W)` bool, not empty.

    Returns:
        `(H, W)` labels of the mask's parts, and the labels of those that are defects, from the largest to the smallest.
    """
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-areas, kind="stable")
    specks = (areas <= speck_side(mask.shape) ** 2) & (areas <= SPECK_SHARE * areas.max())
    return labels, order[~specks[order]] + 1


def draw_window(
    mask: MaskArray, kind: CropKind, resolution: int, rng: np.random.Generator, *, turn: int | None = None
) -> Window:
    """Draw a random window on one of the mask's defects, by the module's rule.

    Args:
        mask: `(H, W)` bool, not empty.
        resolution: the model's side, pixels.
        rng: source of the randomness.
        turn: which defect, from 0 for the largest; if None, or more than there are, one is drawn. The longer a defect
            is, the more often it is drawn; by area small ones would hardly be.
    """
    height, width = mask.shape
    limit = min(height, width)
    rows, columns = _drawn_defect(mask, rng, turn)
    extent = max(rows.stop - rows.start, columns.stop - columns.start)
    needed = limit if kind == "whole" else max(resolution, int(np.ceil(extent / DEFECT_SHARE)))
    side = min(limit, int(needed * rng.uniform(1.0, SIDE_JITTER)))
    left = _place(columns, side, width, rng)
    top = _place(rows, side, height, rng)
    return Window(left, top, side)


def cut_image(image: ImageArray, window: Window, resolution: int) -> ImageArray:
    """Cut a window from an image at the model's resolution, `(resolution, resolution, 3)` uint8."""
    return resize_image(image[window.slices], resolution)


def cut_mask(mask: MaskArray, window: Window, resolution: int) -> MaskArray:
    """Cut a window from a mask at the model's resolution, as in `resize_mask`."""
    return resize_mask(mask[window.slices], resolution)


def resize_mask(mask: MaskArray, side: int) -> MaskArray:
    """Resize a square mask to `side` pixels; a defect too thin for them keeps its most covered ones."""
    share = resize_share(mask, side)
    small = share >= COVERED
    return small if small.any() else share >= max(share.max() * 0.6, 1e-6)


def resize_image(image: ImageArray, side: int) -> ImageArray:
    """Resize a square image to `side` pixels (Lanczos)."""
    if image.shape[0] == side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def resize_share(mask: MaskArray, side: int) -> NDArray[np.float32]:
    """Resize a square mask to `side`; returns the share of defect in each pixel, in [0, 1]."""
    grey = Image.fromarray(mask.astype(np.float32))
    return np.asarray(
        grey.resize((side, side), Image.Resampling.BOX if side < mask.shape[0] else Image.Resampling.BILINEAR)
    )


def _drawn_defect(mask: MaskArray, rng: np.random.Generator, turn: int | None) -> tuple[slice, slice]:
    labels, defects = find_defects(mask)
    lengths = np.sqrt(np.bincount(labels.ravel())[defects])
    place = int(rng.choice(len(defects), p=lengths / lengths.sum()))
    if turn is not None and turn < min(len(defects), DEFECTS_PER_PAIR):
        place = turn
    rows, columns = ndimage.find_objects(labels)[defects[place] - 1]
    return rows, columns


def _place(extent: slice, side: int, limit: int, rng: np.random.Generator) -> int:
    """Draw the start, in [0, limit], of a window of `side` that contains `extent`, or lies within a larger one."""
    low, high = sorted((extent.stop - side, extent.start))
    return int(np.clip(rng.integers(low, high + 1), 0, limit - side))
