"""Compares what changed on a good part with the mask: a pair's mask should hold the change, all of it and nothing else.

The change is the root mean square over channels of image − good part, in grey levels per pixel.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.data.crops import bounding_box
from model.types import ImageArray, MaskArray

NEARBY = 8
"""How far from the mask changes are looked at, pixels."""

SMOOTHING = 0.5
"""Standard deviation, in pixels, of the blur that bridges pixels at which two textures happen to agree."""

CHANGED = 0.25
"""A pixel of the mask has changed if it changed by this share of the mask's root mean square change."""

LEDGE, LINES = 2, 6
"""Distance of the two lines around the mask that are compared, and of the farthest one from the mask, pixels."""

FAINTEST = 1.0
"""Grey levels below which a mask's root mean square change is rounding."""


@dataclass(frozen=True, slots=True)
class Change:
    """How the change on a good part agrees with a mask.

    Attributes:
        strength: root mean square change inside the mask, grey levels.
        recall: share of the mask that changed, in [0, 1].
        outline: share of the mask's outermost pixels that changed, in [0, 1]: less than all of it where the mask goes
            beyond its defect on one side.
        precision: share of the squared change within `NEARBY` pixels of the mask that lies inside it, in [0, 1].
        ledge: largest fall of the mean change between two lines around the mask, `LEDGE` pixels apart, as a multiple of
            the mean inside. A change that ends with its mask has no ledge outside, nor has one that fades slowly;
            where the mask is too small, the change ends outside.
    """

    strength: float
    recall: float
    outline: float
    precision: float
    ledge: float

    def as_scores(self) -> dict[str, float]:
        """Return the values under their names in the manifest."""
        return {f"change_{name}": value for name, value in asdict(self).items()}


def measure_change(image: ImageArray, good: ImageArray, mask: MaskArray) -> Change:
    """Compare an image with the good part that it was made on.

    Args:
        image, good: `(H, W, 3)` uint8.
        mask: `(H, W)` bool, not empty.
    """
    box = _around(mask, NEARBY + 1)
    mask = mask[box]
    square = np.square(image[box].astype(np.float32) - good[box]).mean(axis=2)
    strength = float(np.sqrt(square[mask].mean()))
    if strength < FAINTEST:
        return Change(strength, 0.0, 0.0, 0.0, 1.0)
    distance = ndimage.distance_transform_edt(~mask)
    changed = _blurred_inside(square, mask) > (CHANGED * strength) ** 2
    rim = mask & ~ndimage.binary_erosion(mask, border_value=1)
    size = np.sqrt(square)
    return Change(
        strength=strength,
        recall=float(changed[mask].mean()),
        outline=float(changed[rim].mean()) if rim.any() else 1.0,
        precision=float(square[mask].sum() / square[distance <= NEARBY].sum()),
        ledge=_ledge(size, distance) / float(size[mask].mean()),
    )


def _ledge(size: NDArray[np.float32], distance: NDArray[np.float64]) -> float:
    """Return the largest fall of the mean change, in grey levels, over `LEDGE` pixels outside the mask."""
    line = np.ceil(distance).astype(int)
    counts = np.bincount(line.ravel(), minlength=LINES + 1)[1 : LINES + 1]
    totals = np.bincount(line.ravel(), size.ravel(), minlength=LINES + 1)[1 : LINES + 1]
    means = totals / np.maximum(counts, 1)
    return float(np.maximum(means[:-LEDGE] - means[LEDGE:], 0).max())


def _blurred_inside(values: NDArray[np.float32], mask: MaskArray) -> NDArray[np.float32]:
    """Blur values by those of the mask alone, so that a sharp edge does not look like change on both sides."""
    weight = mask.astype(np.float32)
    total = ndimage.gaussian_filter(values * weight, SMOOTHING)
    return np.divide(total, np.maximum(ndimage.gaussian_filter(weight, SMOOTHING), 1e-3), dtype=np.float32)


def _around(mask: MaskArray, margin: int) -> tuple[slice, slice]:
    rows, columns = bounding_box(mask)
    return (
        slice(max(0, rows.start - margin), rows.stop + margin),
        slice(max(0, columns.start - margin), columns.stop + margin),
    )
