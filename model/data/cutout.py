"""Cuts a defect out of a real photograph, changes it at the photograph's own scale, and chooses where it may lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.data.crops import bounding_box, draw_window, find_defects
from model.data.drawing import draw_best
from model.types import MaskArray, Pair
from service.core.options.common import CropKind

TURN, TURN_AT_BORDER = 0.45, 0.1
"""Largest rotation in either direction, radians; and of a defect at its photograph's border, where it has to stay."""

SCALES = (0.8, 1.25)
"""Range of sizes relative to the real defect."""

WHOLE = 0.5
"""Probability of taking all of a photograph's defects together, where there are several."""

TOGETHER = 3
"""Parts of a defect are one group if no more than twice as many pixels lie between them."""

SURROUNDINGS = 24
"""Width of the surroundings that are cut out with a defect, pixels."""

COVERED = 0.4
"""Share of a changed mask's pixel from which it is defect; below a half, so that hairlines do not break up."""

LINE_REACH = 0.7
"""Where hairlines must stay whole: distance from the defect up to which a pixel is defect, pixels of the changed mask.
A line then is one to two pixels wide, whichever way it runs and however it is bent."""

BEND_CELLS = 4
"""Cells of the coarse grid that a bending is drawn on, along the defect's longer side."""

NEARBY = 0.25
"""Where no product is found, how far a defect may lie from where it lay on its own photograph, as a share of the range
of possible places along each axis: an object that was not found is likely to be at the same place."""

TRIES, ON_PRODUCT = 64, 0.98
"""How many places are tried until this share of the defect lies on the product; then the best of them is taken."""

_Value = TypeVar("_Value", bound=np.generic)

Starts = NDArray[np.int_]
"""`(n, 2)` or `(2,)`, where in a picture the first row and column of a cut-out lie."""


@dataclass(frozen=True, slots=True)
class Changes:
    """How far a defect is changed.

    Attributes:
        sizes: range of sizes relative to the real defect.
        angles: range of rotations, radians; a defect at its photograph's border is turned by `TURN_AT_BORDER` at most.
        bend: deviation of the bending, as a share of the defect's longer side.
        whole_lines: whether hairlines must not break up, for which masks may grow by a fraction of a pixel.
        pinned: whether a defect at its photograph's border lies at the same border of the picture.
    """

    sizes: tuple[float, float] = SCALES
    angles: tuple[float, float] = (-TURN, TURN)
    bend: float = 0.0
    whole_lines: bool = False
    pinned: bool = True


@dataclass(frozen=True, slots=True)
class Cutout:
    """A part of a photograph that shows a defect.

    Attributes:
        image: `(h, w, 3)`, 0–255.
        mask: `(h, w)` bool, the defect.
        others: `(h, w)` bool, all defects there, this one included, and what is not known of the photograph.
        touches: per axis (rows, columns): -1 for a defect at the photograph's first row or column, 1 at its last, 0 at
            neither. On that side the cut-out ends at the photograph's border.
        place: per axis, where the defect lay in the photograph, from 0 at the first row or column to 1 at the last.
        spans: per axis, the photograph's length if the defect reaches from one border to the other, otherwise 0.
    """

    image: NDArray[np.float32]
    mask: MaskArray
    others: MaskArray
    touches: NDArray[np.int_]
    place: NDArray[np.float64]
    spans: NDArray[np.int_]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a cut-out may start in a picture; one at its photograph's border starts at the same border.

    Attributes:
        low, high: `(2,)`, the first and last row and column.
        fixed: `(2,)` bool, whether it may start at `ends` alone.
    """

    low: Starts
    high: Starts
    fixed: NDArray[np.bool_]
    ends: Starts

    def kept(self, starts: Starts) -> Starts:
        """Move starts to where they may be."""
        return np.where(self.fixed, self.ends, starts.clip(self.low, self.high))

    def draw(self, rng: np.random.Generator, count: int) -> Starts:
        """Draw starts, `(count, 2)`."""
        return self.kept(rng.integers(self.low, self.high + 1, (count, 2)))


def cut_out(
    pair: Pair,
    mirrored: tuple[bool, bool],
    rng: np.random.Generator,
    unknown: MaskArray | None = None,
    *,
    transposed: bool = False,
) -> Cutout:
    """Cut a defect out: all of the photograph's defects, or one group of parts, larger ones more often; never specks.

    Args:
        mirrored: whether horizontally, and vertically.
        unknown: `(H, W)` bool, where the photograph means nothing; None for nowhere.
        transposed: whether rows become columns after that; mirrored along one axis, it is turned by a right angle then.
    """
    image = _turned(pair.image, mirrored, transposed=transposed)
    mask = _turned(pair.mask, mirrored, transposed=transposed)
    labels, defects = find_defects(mask)
    chosen = _chosen(np.isin(labels, defects), rng)
    shape, box = np.array(mask.shape), bounding_box(chosen)
    low, high = np.array([each.start for each in box]), np.array([each.stop for each in box])
    at_start, at_end = low == 0, high == shape
    touches = np.where(at_start, -1, np.where(at_end, 1, 0))
    before = np.where(touches == -1, 0, SURROUNDINGS)
    after = np.where(touches == 1, 0, SURROUNDINGS)
    rows, columns = (np.arange(a, b) for a, b in zip(low - before, high + after, strict=True))
    inside = np.logical_and.outer(*((each >= 0) & (each < n) for each, n in zip((rows, columns), shape, strict=True)))
    here = np.ix_(rows.clip(0, shape[0] - 1), columns.clip(0, shape[1] - 1))  # beyond the border it is as at the border
    others = mask[here] & inside
    if unknown is not None:
        others |= _turned(unknown, mirrored, transposed=transposed)[here]
    return Cutout(
        image[here].astype(np.float32),
        chosen[here] & inside,
        others,
        touches,
        low / np.maximum(shape - (high - low), 1),
        np.where(at_start & at_end, shape, 0),
    )


def _chosen(mask: MaskArray, rng: np.random.Generator) -> MaskArray:
    box = tuple(slice(max(0, each.start - TOGETHER), each.stop + TOGETHER) for each in bounding_box(mask))
    near = ndimage.binary_dilation(mask[box], iterations=TOGETHER)
    labels, count = ndimage.label(near, structure=np.ones((3, 3)))
    if count == 1 or rng.random() < WHOLE:
        return mask
    areas = np.bincount(labels[mask[box]], minlength=count + 1)[1:]
    chosen = np.zeros_like(mask)
    chosen[box] = mask[box] & (labels == 1 + rng.choice(count, p=areas / areas.sum()))
    return chosen


def _turned(values: NDArray[_Value], mirrored: tuple[bool, bool], *, transposed: bool) -> NDArray[_Value]:
    for axis, wanted in ((1, mirrored[0]), (0, mirrored[1])):
        if wanted:
            values = np.flip(values, axis)
    return np.swapaxes(values, 0, 1) if transposed else values


def changed(cutout: Cutout, shape: tuple[int, ...], rng: np.random.Generator, changes: Changes | None = None) -> Cutout:
    """Turn, scale and bend a cut-out at random; at its photograph's border it stays straight.

    Args:
        shape: height and width of the picture that it is meant for; a defect that spans its photograph spans it, and
            one that is too large is made smaller as far as the range of sizes allows.
        changes: how far; by default a little, without bending.
    """
    changes = changes or Changes()
    if not changes.pinned:
        cutout = replace(cutout, touches=np.zeros_like(cutout.touches))
    angles = np.array(changes.angles)
    if cutout.touches.any():
        angles = angles.clip(-TURN_AT_BORDER, TURN_AT_BORDER)
    angle = rng.uniform(*angles)
    scale = _scale(cutout, np.array(shape[:2]), changes.sizes, rng)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # Pixel edges relative to the point that stays in place: the middle, or the photograph's border.
    size = np.array(cutout.mask.shape)
    fixed = (cutout.touches + 1) / 2 * size
    corners = np.array([(0, 0), (0, size[1]), (size[0], 0), tuple(size)]) - fixed
    moved = scale * corners @ turn.T
    low = np.where(cutout.touches == -1, 0, np.floor(moved.min(0)))
    high = np.where(cutout.touches == 1, 0, np.ceil(moved.max(0)))
    target = np.indices((high - low).astype(int).tolist()) + (low + 0.5)[:, None, None]
    source = np.einsum("ij,iyx->jyx", turn, target) / scale + (fixed - 0.5)[:, None, None]
    if changes.bend:
        extent = float((np.ptp(np.argwhere(cutout.mask), axis=0) + 1).max())
        source += _bending(source[0].shape, changes.bend * extent, scale * extent / BEND_CELLS, cutout.touches, rng)
    bands = np.moveaxis(cutout.image, -1, 0)
    image = [ndimage.map_coordinates(band, source, order=1, mode="nearest") for band in bands]
    reach = np.maximum(0.5, LINE_REACH * _steps(source)) if changes.whole_lines else None
    mask, others = (_moved(each, source, reach) for each in (cutout.mask, cutout.others))
    if not mask.any():
        return cutout
    return replace(cutout, image=np.stack(image, -1), mask=mask, others=others)


def _steps(source: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far apart the sources `(2, h, w)` of neighbouring pixels lie, at most, `(h, w)` pixels."""
    along = [np.hypot(*np.gradient(source, axis=axis)) for axis in (1, 2)]
    return np.asarray(np.maximum(*along))


def _moved(mask: MaskArray, source: NDArray[np.float64], reach: NDArray[np.float64] | None) -> MaskArray:
    """Return a mask where every pixel comes from `source`.

    Args:
        reach: `(h, w)`, distance from the defect, pixels, up to which a pixel is defect, so that hairlines stay whole;
            None to go by the share of it that is covered.
    """
    if reach is None:
        return np.asarray(ndimage.map_coordinates(mask.astype(np.float32), source, order=1, mode="nearest") >= COVERED)
    distance = ndimage.distance_transform_edt(~mask).astype(np.float32)
    return np.asarray(ndimage.map_coordinates(distance, source, order=1, mode="nearest") <= reach)


def _bending(
    shape: tuple[int, ...],
    deviation: float,
    spacing: float,
    touches: NDArray[np.int_],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw a smooth field `(2, h, w)` of shifts; none across a border of the photograph that the defect touches.

    Args:
        deviation: of a shift, pixels of the photograph.
        spacing: of the points at which shifts are drawn, pixels. Were it less than a few deviations, shapes would fold.
    """
    counts = [2 + int(length / spacing) for length in shape]
    coarse = rng.normal(0, deviation, (2, *counts))
    places = np.indices(shape) / spacing
    field = np.stack([ndimage.map_coordinates(one, places, order=3, mode="nearest") for one in coarse])
    return np.asarray(field * (touches == 0)[:, None, None])


def _scale(cutout: Cutout, shape: NDArray[np.int_], sizes: tuple[float, float], rng: np.random.Generator) -> float:
    drawn = float(np.exp(rng.uniform(*np.log(sizes))))
    spanned = cutout.spans > 0
    if spanned.any():
        return float(np.clip((shape[spanned] / cutout.spans[spanned]).max(), *sizes))
    extent = np.ptp(np.argwhere(cutout.mask), axis=0) + 3
    return max(sizes[0], min(drawn, float((shape / extent).min())))


def find_bounds(
    cutout: Cutout,
    shape: tuple[int, ...],
    within: tuple[int, int, int, int] | None = None,
    *,
    nearby: bool = False,
) -> Bounds:
    """Find where a cut-out may start in a picture so that its defect lies inside.

    Args:
        shape: height and width of the picture.
        within: top, left, bottom and right of a box that the defect should lie in, as far as it fits; None for the
            whole picture.
        nearby: whether it stays near where it lay in its photograph.
    """
    size, places = np.array(shape[:2]), np.argwhere(cutout.mask)
    low, high = 1 - places.min(0), size - 2 - places.max(0)
    low, high = np.minimum(low, high), np.maximum(low, high)
    inside = low, high
    if nearby:
        wanted = cutout.place + np.array([[-NEARBY], [NEARBY]])
        low, high = (low + np.clip(wanted, 0, 1) * (high - low)).round().astype(int)
    if within is not None:
        first, last = np.array(within[:2]) - places.min(0), np.array(within[2:]) - 1 - places.max(0)
        low, high = (np.clip(each, *inside) for each in (np.minimum(first, last), np.maximum(first, last)))
    ends = np.where(cutout.touches == 1, size - cutout.mask.shape, 0)
    return Bounds(low, high, cutout.touches != 0, ends)


def draw_start(
    cutout: Cutout, shape: tuple[int, ...], bounds: Bounds, product: MaskArray | None, rng: np.random.Generator
) -> Starts:
    """Draw where a cut-out starts in a picture, `(2,)`.

    Args:
        shape: height and width of the picture.
        product: `(H, W)` bool, where the defect should lie; None where nothing is known.
    """

    def draw_one() -> tuple[float, Starts]:
        start = bounds.draw(rng, 1)[0]
        if product is None:
            return 1.0, start
        here, there = overlap(cutout.mask.shape, shape, start)
        return float(product[there][cutout.mask[here]].sum() / cutout.mask.sum()), start

    return draw_best(draw_one, ON_PRODUCT, TRIES)


def overlap(
    patch: tuple[int, ...], picture: tuple[int, ...], start: Starts
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the slices of a patch and of a picture where they overlap, if the patch starts there."""
    here, there = [], []
    for length, full, first in zip(patch[:2], picture[:2], start.tolist(), strict=True):
        low, high = max(0, first), min(full, first + length)
        there.append(slice(low, high))
        here.append(slice(low - first, high - first))
    return tuple(here), tuple(there)


def window_around(
    mask: MaskArray, view: CropKind, resolution: int, rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Draw a window that shows the defect as crops of the real ones do; None if no square holds it.

    Args:
        mask: `(H, W)` bool, not empty.
        view, resolution: as in `draw_window`.
    """
    places = np.argwhere(mask)
    (top, left), (bottom, right) = places.min(0), places.max(0) + 1
    if max(bottom - top, right - left) > min(mask.shape):
        return None
    box = np.zeros_like(mask)
    box[top:bottom, left:right] = True
    return draw_window(box, view, resolution, rng).box
