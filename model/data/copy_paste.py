"""Lays a randomly changed copy of a real defect on a normal image.

Training uses such images in addition to the real ones, see `model.dualanodiff.composites`. Sampling can start from them
(copy-paste initialisation): a diffusion model that starts from a noised image keeps what the noise leaves (SDEdit, Meng
et al. 2022), few details, but the rough place, size and kind of shape. So a small base that cannot compose a crack
by itself redraws a given one; random changes make every start different, and the strength of the noise decides how much
is redrawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.data.crops import resize_image, resize_mask
from model.types import GREY, ImageArray, MaskArray, Pair, anomaly_part

_Value = TypeVar("_Value", bound=np.generic)

TURN = 0.45
"""Largest rotation of a defect in either direction, radians."""

TURN_AT_BORDER = 0.1
"""Largest rotation of a defect at the image's border, where it has to stay."""

SCALES = (0.7, 1.35)
"""Range of sizes relative to the real defect."""

BEND = 0.08
"""Deviation of the bending, as a share of the defect's longer side."""

BEND_CELLS = 4
"""Cells of the coarse grid that the bending is drawn on, per side."""

GAINS = (0.4, 2.5)
"""Limits of the correction of each colour channel from the real surroundings to the normal image's."""

BLUR, COVERED = 0.6, 0.25
"""Standard deviation, in model pixels, by which masks are blurred before they are changed, and the share from which
a pixel is defect afterwards; otherwise hairlines would break up."""

SOFTNESS = 0.5
"""Standard deviation of the blur that softens the copy inside its outline, model pixels."""

RING = 4
"""Width of the surroundings in which brightness is compared, model pixels."""

MARGIN = 3
"""Least distance of a defect to borders of the window that it did not touch, model pixels."""

CLEAR, STRONGEST = 60.0, 3.0
"""Grey levels by which a defect differs clearly from mid-grey, on average; and how much stronger at most than on its
surface a fainter one is shown there."""

NEARBY = 8
"""How far the redrawn defect may extend beyond the copy, model pixels."""


@dataclass(frozen=True, slots=True)
class CopyPaste:
    """A normal image with a defect on it.

    Attributes:
        image, part: the whole image and the anomaly part, `(r, r, 3)` uint8 each.
        mask: `(r, r)` bool, the defect: outside of it the image is the normal one, bit for bit.
        nearby: `(r, r)` bool, the defect and its close surroundings.
        inside: share of the changed defect that lay where it may; what lay elsewhere was cut off.
        exact: whether a pair that is given its part keeps its mask: lines, and defects of circuits.
        source: the same at the photograph's scale; None for one that was made at the model's.
    """

    image: ImageArray
    part: ImageArray
    mask: MaskArray
    nearby: MaskArray
    inside: float = 1.0
    exact: bool = True
    source: Pair | None = None

    def at(self, side: int) -> CopyPaste:
        """Return the same at another scale, `(side, side)`; its source is known."""
        if self.source is None:
            raise ValueError("the copy is not known at its photograph's scale")
        return copy_at(self.source, side, exact=self.exact)


def copy_at(source: Pair, side: int, *, exact: bool) -> CopyPaste:
    """Bring a copy that was laid at the photograph's scale to the model's.

    Args:
        source: a square crop of the photograph with the defect, which may be off it.
        side: of the result, pixels.
    """
    image, mask = resize_image(source.image, side), resize_mask(source.mask, side)
    near = ndimage.binary_dilation(mask, iterations=NEARBY)
    return CopyPaste(image, anomaly_part(image, mask), mask, near, exact=exact, source=source)


def draw_copy_paste(
    reference: Pair,
    normal: ImageArray,
    inner: MaskArray,
    mirrored: tuple[bool, bool],
    rng: np.random.Generator,
) -> CopyPaste:
    """Lay a changed copy of a real defect on a normal image.

    The defect is mirrored as given, then scaled, rotated, bent and moved at random; a defect at the border of its
    photograph stays at the border. Its colour follows the surroundings, channel by channel.

    Args:
        reference: a square crop of a real pair.
        normal: `(r, r, 3)` uint8, the window of the normal image at the model's resolution.
        inner: `(r, r)` bool, where no defect is laid: the borders of that window that lie inside the normal image, and
            what lies outside the region where defects may lie.
        mirrored: whether horizontally, and vertically.
        rng: source of the randomness.
    """
    side = normal.shape[0]
    image = _mirror(resize_image(reference.image, side), mirrored)
    real = _mirror(resize_mask(reference.mask, side), mirrored)
    whole, defect = _changed(image, real, _touched(real, inner), rng)
    mask = whole & ~inner
    inside = float(mask.sum() / max(1, whole.sum()))
    if not mask.any():
        mask, defect = real.copy(), image.astype(np.float32)
    surroundings = np.maximum(_surroundings(image, real), 1.0)
    gain = np.clip(_surroundings(normal, mask) / surroundings, *GAINS)
    alpha = (mask * ndimage.gaussian_filter(mask.astype(np.float32), SOFTNESS))[..., None]
    composite = np.clip(normal + alpha * (defect * gain - normal), 0, 255).round().astype(np.uint8)
    nearby = ndimage.distance_transform_edt(~mask) <= NEARBY
    return CopyPaste(composite, anomaly_part(composite, mask), mask, nearby, inside)


def clear_part(pasted: CopyPaste, normal: ImageArray) -> ImageArray:
    """Return a defect's part, `(r, r, 3)` uint8, such that it is clear to see on mid-grey.

    A grey crack in grey asphalt is next to invisible there. Such a defect is shown by how it differs from its surface.

    Args:
        normal: `(r, r, 3)` uint8, what the defect was laid on.
    """
    defect = pasted.image[pasted.mask].astype(np.float32)
    if not defect.size or np.abs(defect - GREY).mean() >= CLEAR:
        return pasted.part
    difference = defect - _surroundings(normal, pasted.mask).astype(np.float32)
    strength = np.clip(CLEAR / max(float(np.abs(difference).mean()), 1.0), 1.0, STRONGEST)
    part = pasted.part.copy()
    part[pasted.mask] = np.clip(GREY + strength * difference, 0, 255).round().astype(np.uint8)
    return part


def _mirror(values: NDArray[_Value], mirrored: tuple[bool, bool]) -> NDArray[_Value]:
    for axis, wanted in ((1, mirrored[0]), (0, mirrored[1])):
        if wanted:
            values = np.flip(values, axis)
    return values


def _touched(mask: MaskArray, inner: MaskArray) -> NDArray[np.int_]:
    """Return per axis: -1 for a defect at the photograph's first row or column, 1 at its last, 0 at neither."""
    at_border = mask & ~inner
    lines = [(at_border[0], at_border[-1]), (at_border[:, 0], at_border[:, -1])]
    return np.array([-1 if first.any() else 1 if last.any() else 0 for first, last in lines])


def _changed(
    image: ImageArray, mask: MaskArray, touches: NDArray[np.int_], rng: np.random.Generator
) -> tuple[MaskArray, NDArray[np.float32]]:
    """Scale, rotate, bend and move mask and image."""
    where = _sources(mask, touches, rng)
    share = ndimage.gaussian_filter(mask.astype(np.float32), BLUR, mode="nearest")
    bands = [share, *np.moveaxis(image.astype(np.float32), -1, 0)]
    moved = np.stack([ndimage.map_coordinates(band, where, order=1, mode="nearest") for band in bands])
    changed = moved[0] >= COVERED
    shift = _shift(changed, touches, rng) if changed.any() else (0, 0)
    changed = ndimage.shift(changed.astype(np.uint8), shift, order=0, mode="constant").astype(np.bool_)
    return changed, ndimage.shift(np.moveaxis(moved[1:], 0, -1), (*shift, 0), order=0, mode="nearest")


def _sources(mask: MaskArray, touches: NDArray[np.int_], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return where every pixel of the changed, not yet moved defect comes from: `(2, r, r)`."""
    side = mask.shape[0]
    limit = TURN_AT_BORDER if touches.any() else TURN
    angle = rng.uniform(-limit, limit)
    places = np.argwhere(mask)
    extent = np.ptp(places, axis=0) + 1
    bend = rng.normal(0, BEND * extent.max(), (2, BEND_CELLS, BEND_CELLS))
    free = extent[touches == 0]
    fits = (side - 2 * MARGIN) / free.max() if free.size else SCALES[1]
    scale = min(float(np.exp(rng.uniform(*np.log(SCALES)))), max(1.0, float(fits)))
    border = (touches + 1) / 2 * (side - 1)
    centre = np.where(touches != 0, border, (places.min(0) + places.max(0)) / 2)
    target = np.where(touches != 0, border, (side - 1) / 2)
    offset = np.indices((side, side)) - target[:, None, None]
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = np.einsum("ij,jyx->iyx", rotation, offset) / scale + centre[:, None, None]
    return turned + _bending(bend, side, touches, target.round().astype(int))


def _bending(
    bend: NDArray[np.float64], side: int, touches: NDArray[np.int_], target: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Return a smooth random field `(2, r, r)` that leaves the defect's middle, or its border, in place."""
    field = np.stack([ndimage.zoom(one, side / BEND_CELLS, order=3, mode="nearest", grid_mode=True) for one in bend])
    for axis in range(2):
        fixed = field[axis].take([target[axis]], axis) if touches[axis] else field[axis][tuple(target)]
        field[axis] -= fixed
    return field


def _shift(mask: MaskArray, touches: NDArray[np.int_], rng: np.random.Generator) -> tuple[int, int]:
    """Return rows and columns to move by: to a random place `MARGIN` off the borders, none along a touched axis."""
    places = np.argwhere(mask)
    low, high = MARGIN - places.min(0), mask.shape[0] - 1 - MARGIN - places.max(0)
    middle = (low + high) // 2
    drawn = rng.integers(np.minimum(low, middle), np.maximum(high, middle) + 1)
    # A defect too large for the margins stays in the middle.
    rows, columns = np.where(touches != 0, 0, np.where(low <= high, drawn, middle))
    return int(rows), int(columns)


def _surroundings(image: ImageArray, mask: MaskArray) -> NDArray[np.float64]:
    """Average the colour around a mask, `(3,)`."""
    ring = ndimage.binary_dilation(mask, iterations=RING + 1) & ~ndimage.binary_dilation(mask)
    pixels = image[ring] if ring.any() else image.reshape(-1, 3)
    return np.asarray(pixels.mean(0, dtype=np.float64))
