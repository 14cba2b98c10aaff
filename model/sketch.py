"""A start for anchored sampling: a real defect, changed at random, laid on the normal image.

A diffusion model that starts from a noised picture keeps of it what the noise leaves (SDEdit, Meng et al. 2022): few
details, but the rough place, size and kind of shape. A small base that cannot yet compose a crack by itself is given
one to redraw; the transformation makes every start another, and the strength of the noise says how much is redrawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.types import ImageArray, MaskArray, Pair, anomaly_part
from model.views import resize_image, resize_share

_Value = TypeVar("_Value", bound=np.generic)

TURN = 0.45
"""Defects turn by up to this angle either way, radians."""

TURN_AT_BORDER = 0.1
"""The same for a defect at the picture's border, which has to stay there."""

SCALES = (0.7, 1.35)
"""Range of the sizes relative to the real defect's."""

BEND = 0.05
"""Deviation of the bending, as a share of the window's side."""

BEND_CELLS = 4
"""Cells of the coarse grid that the bending is drawn on, per side."""

GAINS = (0.4, 2.5)
"""Limits of the brightness correction from the real surroundings to the normal image's."""

RING = 4
"""Width of the surroundings that brightness is compared in, model pixels."""

MARGIN = 3
"""Defects stay this far from the borders of the window that they did not touch, model pixels."""

NEARBY = 8
"""The redrawn defect may reach this far beyond the sketched one, model pixels."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """What sampling starts from.

    Attributes:
        image, part: the whole image and the anomaly part, `(r, r, 3)` uint8 each.
        nearby: `(r, r)` bool, the defect and what lies close to it.
    """

    image: ImageArray
    part: ImageArray
    nearby: MaskArray


def draw_sketch(reference: Pair, normal: ImageArray, mirrored: tuple[bool, bool], draw: np.random.Generator) -> Sketch:
    """Lay a changed copy of a real defect on a normal image.

    The defect is mirrored as told, scaled, turned, bent and moved at random; one at a border of its view stays there.
    Its brightness follows that of the surroundings.

    Args:
        reference: a real view, square.
        normal: `(r, r, 3)` uint8, the window of the normal image at the model's resolution.
        mirrored: horizontally, vertically.
        draw: source of the randomness.
    """
    side = normal.shape[0]
    image, share = resize_image(reference.image, side), resize_share(reference.mask, side)
    image, share = _mirror(image, mirrored), _mirror(share, mirrored)
    least = min(0.5, float(share.max()))
    touches = _touched(share >= least)
    where = _sources(share >= least, touches, draw)
    bands = [share, *np.moveaxis(image.astype(np.float32), -1, 0)]
    moved = np.stack([ndimage.map_coordinates(band, where, order=1, mode="nearest") for band in bands])
    mask = moved[0] >= min(least, float(moved[0].max()))
    shift = _shift(mask, touches, draw)
    mask, defect = np.roll(mask, shift, (0, 1)), np.roll(np.moveaxis(moved[1:], 0, -1), shift, (0, 1))
    gain = np.clip(_surroundings(normal, mask) / max(1.0, _surroundings(image, share >= least)), *GAINS)
    alpha = ndimage.gaussian_filter(mask.astype(np.float32), 0.7)[..., None]
    composite = np.clip(normal + alpha * (defect * gain - normal), 0, 255).round().astype(np.uint8)
    return Sketch(composite, anomaly_part(composite, mask), ndimage.distance_transform_edt(~mask) <= NEARBY)


def _mirror(values: NDArray[_Value], mirrored: tuple[bool, bool]) -> NDArray[_Value]:
    for axis, wanted in ((1, mirrored[0]), (0, mirrored[1])):
        if wanted:
            values = np.flip(values, axis)
    return values


def _touched(mask: MaskArray) -> NDArray[np.int_]:
    """Per axis: -1 for a defect at the first row or column, 1 at the last, 0 at neither."""
    places = np.argwhere(mask)
    return np.where(places.min(0) == 0, -1, np.where(places.max(0) == mask.shape[0] - 1, 1, 0))


def _sources(mask: MaskArray, touches: NDArray[np.int_], draw: np.random.Generator) -> NDArray[np.float64]:
    """For every pixel of the changed defect, in the middle or still at its border, where it comes from: `(2, r, r)`."""
    side = mask.shape[0]
    limit = TURN_AT_BORDER if touches.any() else TURN
    angle = draw.uniform(-limit, limit)
    scale = np.exp(draw.uniform(*np.log(SCALES)))
    bend = draw.normal(0, BEND * side, (2, BEND_CELLS, BEND_CELLS))
    places = np.argwhere(mask)
    border = (touches + 1) / 2 * (side - 1)
    centre = np.where(touches != 0, border, (places.min(0) + places.max(0)) / 2)
    target = np.where(touches != 0, border, (side - 1) / 2)
    offset = np.indices((side, side)) - target[:, None, None]
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    field = np.stack([ndimage.zoom(one, side / BEND_CELLS, order=3, mode="nearest", grid_mode=True) for one in bend])
    return np.einsum("ij,jyx->iyx", rotation, offset) / scale + centre[:, None, None] + field


def _shift(mask: MaskArray, touches: NDArray[np.int_], draw: np.random.Generator) -> tuple[int, int]:
    """Rows and columns to move by, to a random place `MARGIN` away from the borders; none towards a touched one."""
    places = np.argwhere(mask)
    bounds = np.sort([MARGIN - places.min(0), mask.shape[0] - 1 - MARGIN - places.max(0)], axis=0)
    drawn = draw.integers(bounds[0], bounds[1] + 1)
    rows, columns = np.where(touches != 0, 0, drawn)
    return int(rows), int(columns)


def _surroundings(image: ImageArray, mask: MaskArray) -> float:
    ring = ndimage.binary_dilation(mask, iterations=RING + 1) & ~ndimage.binary_dilation(mask)
    return float(image[ring].mean()) if ring.any() else float(image.mean())
