"""Cuts square crops from images of any size and aspect ratio, for a model that takes squares.

A crop is a square window. `whole` takes the largest square, `window` the smallest one of at least the model's
resolution that shows a defect with surroundings (its box fills at most 60 % of a side), so that small defects on large
photographs keep their own pixels. Both are placed at random so that the defect lies inside as far as it fits, and
resized to the model's resolution. Nothing is ever stretched.

A window that holds all of a hairline makes it thinner than a pixel. `draw_detail` draws windows that a long or wide
defect crosses instead, of the side in which its thickness is at most two fifths; what is generated is joined from such
windows on a *canvas*, the whole window at that scale (see `model.diffusion.tiling`).
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

THICKNESS_SHARE = 0.4
"""Share of the side of a window with detail that a defect is thick."""

LARGEST_CANVAS = 6
"""Most resolutions that a canvas is wide; the cost of generating one grows with its defect's length on it."""

HALVES = 2
"""A canvas's side is a whole number of halves of the model's resolution."""

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


def bounding_box(mask: MaskArray) -> tuple[slice, slice]:
    """Return the rows and columns that contain the mask; `(H, W)` bool, not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def find_defects(mask: MaskArray) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Separate the defects of a mask; specks, stray pixels beside a larger defect, are none.

    Args:
        mask: `(H, W)` bool, not empty.

    Returns:
        `(H, W)` labels of the mask's parts, and the labels of those that are defects, from the largest to the smallest.
    """
    box = bounding_box(mask)
    labels = np.zeros(mask.shape, np.int32)
    labels[box], count = ndimage.label(mask[box], structure=np.ones((3, 3)))
    areas = np.bincount(labels[box].ravel(), minlength=count + 1)[1:]
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
    limit = min(mask.shape)
    rows, columns = _box(_drawn_defect(mask, rng, turn))
    extent = max(rows.stop - rows.start, columns.stop - columns.start)
    needed = limit if kind == "whole" else _whole_side(extent, resolution)
    return _placed(rows, columns, int(needed * rng.uniform(1.0, SIDE_JITTER)), mask.shape, rng)


def draw_detail(
    mask: MaskArray, kind: CropKind, resolution: int, rng: np.random.Generator, *, turn: int | None = None
) -> Window:
    """Draw a window like `draw_window`, but where a long or wide defect would be made too small, one that it crosses.

    The middle of such a window is near one of the defect's pixels, each as likely as another.
    """
    if kind == "whole":
        return draw_window(mask, kind, resolution, rng, turn=turn)
    defect = _drawn_defect(mask, rng, turn)
    rows, columns = _box(defect)
    extent = max(rows.stop - rows.start, columns.stop - columns.start)
    needed = detail_side(defect[rows, columns], resolution)
    side = int(needed * rng.uniform(1.0, SIDE_JITTER))
    if needed < _whole_side(extent, resolution):
        places = np.argwhere(defect)
        around = places[int(rng.integers(len(places)))] + [[-(side // 4)], [side // 4]]
        rows, columns = (slice(max(0, int(low)), int(high)) for low, high in around.T)
    return _placed(rows, columns, side, mask.shape, rng)


def detail_side(defect: MaskArray, resolution: int) -> int:
    """Return the side of the windows, at least `resolution` pixels, at which a defect keeps its detail.

    Args:
        defect: `(h, w)` bool, cut to its box.
    """
    thickness = 2 * float(ndimage.distance_transform_edt(np.pad(defect, 1)).max())
    return min(_whole_side(max(defect.shape), resolution), max(resolution, int(np.ceil(thickness / THICKNESS_SHARE))))


def canvas_side(mask: MaskArray, side: int, kind: CropKind, resolution: int) -> int:
    """Return the side, in model pixels, of the canvas on which a window of `side` pixels is generated.

    It is `resolution` where one window shows the whole defect in detail, and larger for a long or wide one.

    Args:
        mask: `(h, w)` bool, a crop of a real pair at its photograph's scale, with the defect.
    """
    if kind == "whole":
        return resolution
    labels, defects = find_defects(mask)
    boxes = ndimage.find_objects(labels)
    detail = max(detail_side(labels[boxes[each - 1]] == each, resolution) for each in defects[:DEFECTS_PER_PAIR])
    return int(np.clip(HALVES * side // detail, HALVES, HALVES * LARGEST_CANVAS)) * resolution // HALVES


def _whole_side(extent: int, resolution: int) -> int:
    return max(resolution, int(np.ceil(extent / DEFECT_SHARE)))


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


def _drawn_defect(mask: MaskArray, rng: np.random.Generator, turn: int | None) -> MaskArray:
    labels, defects = find_defects(mask)
    lengths = np.sqrt(np.bincount(labels.ravel())[defects])
    place = int(rng.choice(len(defects), p=lengths / lengths.sum()))
    if turn is not None and turn < min(len(defects), DEFECTS_PER_PAIR):
        place = turn
    return np.asarray(labels == defects[place])


def _box(defect: MaskArray) -> tuple[slice, slice]:
    rows, columns = ndimage.find_objects(defect.astype(np.uint8))[0]
    return rows, columns


def _placed(rows: slice, columns: slice, side: int, shape: tuple[int, ...], rng: np.random.Generator) -> Window:
    """Draw where a window of at most `side` lies that contains these rows and columns, as far as they fit."""
    height, width = shape
    side = min(side, height, width)
    left = _place(columns, side, width, rng)
    top = _place(rows, side, height, rng)
    return Window(left, top, side)


def _place(extent: slice, side: int, limit: int, rng: np.random.Generator) -> int:
    """Draw the start, in [0, limit], of a window of `side` that contains `extent`, or lies within a larger one."""
    low, high = sorted((extent.stop - side, extent.start))
    return int(np.clip(rng.integers(low, high + 1), 0, limit - side))
