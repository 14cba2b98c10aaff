"""Draws how strong the contrast of a defect shall be, and scales what was drawn to it.

The contrast of what a small base draws varies less from candidate to candidate than that of real defects does; on a
mask unlike those that it learned from, or guided towards a part, it comes out too strong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.data.laying import Change
from model.data.two_levels import find_two_levels
from model.quality.visibility import Rings
from model.types import ImageArray, MaskArray, Pair
from service.core.options.quality import QualityLimits

VARIED = 0.15
"""Standard deviation of a drawn contrast's logarithm about that of a real defect."""

SCALES = (0.4, 1.6)
"""Smallest and largest scale of what was drawn: stronger ones would show its faults."""

HALVINGS = 5
"""How often the range of scales is halved to find the one that is needed, to about 2 %."""

DRAW = 2
"""Tells the random draws of contrast from a candidate's others."""

RING = QualityLimits().ring
"""Width, pixels, of the rings along the outline in which contrast is measured."""


@dataclass(frozen=True, slots=True)
class RealContrast:
    """The contrasts of the real defects of a type.

    Attributes:
        known: one for each photograph, see `Rings.relative_contrast`.
        weakest: smallest scale of what is drawn of this type.
    """

    known: Sequence[float]
    weakest: float = SCALES[0]

    def draw(self, seed: int) -> float:
        """Draw the contrast of a candidate: about that of one of the real defects."""
        rng = np.random.default_rng([seed, DRAW])
        return self.known[int(rng.integers(len(self.known)))] * math.exp(VARIED * rng.normal())


def measure_contrast(photographs: Sequence[Sequence[Pair]], weakest: float = SCALES[0]) -> RealContrast | None:
    """Measure real defects; None where photographs are black and white, and contrast is what it is.

    Args:
        photographs: crops of the defects of each.
        weakest: as in `RealContrast`.
    """
    if find_two_levels([pair for pairs in photographs for pair in pairs]):
        return None
    measured = (
        [Rings.of(pair.mask, RING).relative_contrast(pair.image) for pair in pairs if pair.mask.any()]
        for pairs in photographs
    )
    # A crop that the defect fills has no surface to compare with.
    shown = ([contrast for contrast in contrasts if contrast > 0] for contrasts in measured)
    known = [float(np.mean(contrasts)) for contrasts in shown if contrasts]
    return RealContrast(known, weakest) if known else None


def lay_scaled(change: Change, surface: ImageArray, scale: float, where: MaskArray) -> ImageArray:
    """Lay a defect on a surface, weaker or stronger than it was drawn; its detail stays as it is.

    A stronger one gets darker or brighter, but no colours beyond those that were drawn: they would be others.

    Args:
        surface: `(H, W, 3)` uint8.
        where: `(H, W)` bool, beyond which the surface stays bit for bit.
    """
    coarse = change.coarse if scale < 1 else change.coarse.mean(-1, keepdims=True)
    added = change.whole + (scale - 1) * coarse
    return np.clip(surface + where[..., None] * added.round(), 0, 255).astype(np.uint8)


def find_scale(
    wanted: float, change: Change, surface: ImageArray, mask: MaskArray, weakest: float = SCALES[0]
) -> float:
    """Find the scale, within `SCALES`, at which a defect adds this contrast to that of the good surface.

    Args:
        wanted: contrast, see `Rings.relative_contrast`.
        surface: `(H, W, 3)` uint8, the good part.
        mask: `(H, W)` bool, the defect, not empty.
        weakest: smallest scale.

    Returns:
        The scale; 1 where nothing surrounds the defect, or where a stronger one would stand out less, as one does whose
        colours alone tell it from the surface.
    """
    rings = Rings.of(mask, RING)
    if not rings.outside.any():
        return 1.0
    inner, near, own = replace(rings, box=(slice(None), slice(None))), surface[rings.box], mask[rings.box]
    there = Change(change.coarse[rings.box], change.fine[rings.box])

    def contrast_at(scale: float) -> float:
        # In the mask alone: around a large defect, which is drawn smaller, it fades over more than a ring's width.
        return inner.relative_contrast(lay_scaled(there, near, scale, own))

    least = math.hypot(wanted, inner.relative_contrast(near))
    low, high = weakest, SCALES[1]
    if contrast_at(low) >= least:
        return low
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if contrast_at(middle) > least else (middle, high)
    scale = math.sqrt(low * high)
    return scale if scale < 1 or contrast_at(scale) > contrast_at(1.0) else 1.0
