"""Chooses the scale at which a defect is worked on, and covers it with the model's square windows.

Small defects keep the photograph's own scale. Large ones are reduced until they fit into one window, but never so far
that they lose their detail (`model.data.crops.detail_side`): a crack of 1 500 × 3 pixels stays at its own scale and is
covered by several overlapping windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.data.crops import COVERED, DEFECTS_PER_PAIR, detail_side, find_defects
from model.types import ImageArray, MaskArray
from service.core.options.common import CropKind

_Value = TypeVar("_Value", bound=np.generic)

MARGIN = 0.125
"""Least surroundings of a defect in its canvas, as a share of a window's side."""

FINER, LEAST_FINER = 4, 1.5
"""Largest scale at which a defect is drawn once more, as a multiple of the first; and the least that is worth it."""

OVERLAP = 0.25
"""Least overlap of neighbouring windows, as a share of their side."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """A part of a photograph around a defect, at the model's scale, and the windows that cover the defect.

    Attributes:
        box: `(top, left, bottom, right)` in the photograph, pixels; may end beyond it by less than a latent cell, or
            than one of the coarser canvas where it is drawn once more.
        image: `(h, w, 3)` uint8, both sides multiples of the latent cell.
        mask: `(h, w)` bool, the defect.
        side: of the windows, pixels.
        corners: `(n, 2)`, first row and column of each window, multiples of the latent cell.
    """

    box: tuple[int, int, int, int]
    image: ImageArray
    mask: MaskArray
    side: int
    corners: NDArray[np.int_]

    @property
    def scale(self) -> float:
        """Return canvas pixels per photograph pixel."""
        return self.image.shape[0] / (self.box[2] - self.box[0])

    def windows(self, values: NDArray[_Value]) -> NDArray[_Value]:
        """Cut `(h, w, …)` values of the canvas into its windows, `(n, s, s, …)`."""
        side = self.side
        return np.stack([values[row : row + side, column : column + side] for row, column in self.corners.tolist()])


def work_scale(mask: MaskArray, view: CropKind, resolution: int) -> float:
    """Return model pixels per photograph pixel at which a defect is worked on.

    Args:
        mask: `(H, W)` bool, not empty.
        view: `whole` always shows as much of the photograph as a square can.
        resolution: the model's side, pixels.
    """
    largest = min(mask.shape)
    if view == "whole" or largest <= resolution:
        return resolution / largest
    labels, defects = find_defects(mask)
    boxes = ndimage.find_objects(labels)
    sides = [detail_side(labels[boxes[each - 1]] == each, resolution) for each in defects[:DEFECTS_PER_PAIR]]
    return resolution / min(max(sides), largest)


def finer_scale(scale: float) -> float | None:
    """Return the scale at which what was drawn at `scale` is drawn once more, or None if it is not.

    It is at most `FINER` times as large, and no larger than the photograph's.
    """
    finer = min(1.0, FINER * scale)
    return finer if finer >= LEAST_FINER * scale else None


def make_canvas(
    image: ImageArray, mask: MaskArray, scale: float, resolution: int, cell: int, rng: np.random.Generator
) -> Canvas:
    """Cut out the surroundings of a defect at a scale, placed at random around it, and cover it with windows.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool, not empty.
        cell: pixels per latent cell, along one side; divides `resolution`.
    """
    places = np.argwhere(mask)
    low, high = places.min(0), places.max(0) + 1
    starts, lengths, sides = [], [], []
    for first, end, full in zip(low.tolist(), high.tolist(), mask.shape, strict=True):
        wanted = max(resolution, scale * (end - first) + 2 * MARGIN * resolution)
        side = int(np.ceil(min(wanted, max(resolution, scale * full)) / cell - 1e-9)) * cell
        length = max(1, round(side / scale))
        earliest, latest = max(0, end - length), max(0, min(first, full - length))
        starts.append(int(rng.integers(min(earliest, latest), latest + 1)))
        lengths.append(length)
        sides.append(side)
    (top, left), (height, width) = starts, lengths
    return _cut(image, mask, (top, left, top + height, left + width), (sides[0], sides[1]), resolution, cell)


def finer_canvas(canvas: Canvas, image: ImageArray, mask: MaskArray, scale: float, cell: int) -> Canvas:
    """Cut out what a canvas shows of a photograph, and up to a latent cell more, at a finer scale.

    Args:
        image, mask: of the whole photograph, `(H, W, 3)` uint8 and `(H, W)` bool.
        scale: canvas pixels per photograph pixel.
        cell: pixels per latent cell, along one side.
    """
    top, left, bottom, right = canvas.box
    height, width = (int(np.ceil(length * scale / cell - 1e-9)) * cell for length in (bottom - top, right - left))
    box = (top, left, top + round(height / scale), left + round(width / scale))
    return _cut(image, mask, box, (height, width), canvas.side, cell)


def _cut(
    image: ImageArray, mask: MaskArray, box: tuple[int, int, int, int], shape: tuple[int, int], side: int, cell: int
) -> Canvas:
    """Cut out a part of a photograph, resized to height and width, and cover it with windows of `side`."""
    top, left, bottom, right = box
    place = np.s_[top:bottom, left:right]
    beyond = [(0, max(0, end - full)) for end, full in zip((bottom, right), mask.shape, strict=True)]
    shown = np.pad(image[place], [*beyond, (0, 0)], mode="edge")
    small = _resized_mask(np.pad(mask[place], beyond), shape[::-1])
    return Canvas(box, _resized(shown, shape[::-1]), small, side, _corners(small, side, cell))


def _corners(mask: MaskArray, side: int, cell: int) -> NDArray[np.int_]:
    """Lay a grid of windows, and keep those that show the defect."""
    axes = []
    for full in mask.shape:
        count = 1 + int(np.ceil((full - side) / ((1 - OVERLAP) * side))) if full > side else 1
        axes.append(np.round(np.linspace(0, full - side, count) / cell).astype(int) * cell)
    grid = [(row, column) for row in axes[0].tolist() for column in axes[1].tolist()]
    shown = [(row, column) for row, column in grid if mask[row : row + side, column : column + side].any()]
    return np.array(shown, dtype=int).reshape(-1, 2)


def _resized(image: ImageArray, size: tuple[int, int]) -> ImageArray:
    if image.shape[1::-1] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _resized_mask(mask: MaskArray, size: tuple[int, int]) -> MaskArray:
    if mask.shape[::-1] == size:
        return mask
    smaller = size[0] < mask.shape[1]
    share = np.asarray(
        Image.fromarray(mask.astype(np.float32)).resize(
            size, Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
        )
    )
    return share >= min(COVERED, 0.6 * float(share.max()))
