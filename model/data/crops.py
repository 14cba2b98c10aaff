"""Square views of images of any size and aspect ratio: the one rule by which a photograph meets a square model.

A view is a square window. `whole` takes the largest square, `window` the smallest one of at least the model's
resolution that shows a defect with surroundings (its box fills at most 60 % of a side), so that small defects on large
photographs keep their own pixels. Either is placed at random so that the defect lies inside as far as it fits, and is
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

DEFECT_SHARE = 0.6
"""A defect's box fills at most this share of a window's side."""

SIDE_JITTER = 1.25
"""Windows are drawn up to this factor larger than they need to be."""

COVERED = 0.4
"""A resized mask pixel is defect where at least this share of what it covers is."""


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


def draw_window(mask: MaskArray, kind: CropKind, resolution: int, rng: np.random.Generator) -> Window:
    """A random window on one of the mask's components, by the module's rule.

    Args:
        mask: `(H, W)` bool, not empty.
        resolution: the model's side, pixels.
        rng: source of the randomness.
    """
    height, width = mask.shape
    limit = min(height, width)
    rows, columns = _component(mask, rng)
    extent = max(rows.stop - rows.start, columns.stop - columns.start)
    needed = limit if kind == "whole" else max(resolution, int(np.ceil(extent / DEFECT_SHARE)))
    side = min(limit, int(needed * rng.uniform(1.0, SIDE_JITTER)))
    left = _place(columns, side, width, rng)
    top = _place(rows, side, height, rng)
    return Window(left, top, side)


def cut_image(image: ImageArray, window: Window, resolution: int) -> ImageArray:
    """The window of an image at the model's resolution, `(resolution, resolution, 3)` uint8."""
    return resize_image(image[window.slices], resolution)


def cut_mask(mask: MaskArray, window: Window, resolution: int) -> MaskArray:
    """The window of a mask at the model's resolution, as in `resize_mask`."""
    return resize_mask(mask[window.slices], resolution)


def resize_mask(mask: MaskArray, side: int) -> MaskArray:
    """A square mask resized to `side` pixels; a defect too thin for them keeps its most covered ones."""
    share = resize_share(mask, side)
    small = share >= COVERED
    return small if small.any() else share >= max(share.max() * 0.6, 1e-6)


def resize_image(image: ImageArray, side: int) -> ImageArray:
    """A square image resized to `side` pixels (Lanczos)."""
    if image.shape[0] == side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def resize_share(mask: MaskArray, side: int) -> NDArray[np.float32]:
    """Share of defect in each pixel of a square mask resized to `side`, in [0, 1]."""
    grey = Image.fromarray(mask.astype(np.float32))
    return np.asarray(
        grey.resize((side, side), Image.Resampling.BOX if side < mask.shape[0] else Image.Resampling.BILINEAR)
    )


def _component(mask: MaskArray, rng: np.random.Generator) -> tuple[slice, slice]:
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(labels)
    areas = np.bincount(labels.ravel())[1:].astype(float)
    rows, columns = boxes[int(rng.choice(len(boxes), p=areas / areas.sum()))]
    return rows, columns


def _place(extent: slice, side: int, limit: int, rng: np.random.Generator) -> int:
    """Start of a window of `side` in [0, limit] that holds `extent`, or lies within it where it is the larger."""
    low, high = sorted((extent.stop - side, extent.start))
    return int(np.clip(rng.integers(low, high + 1), 0, limit - side))
