"""Draws how strong the contrast of a defect shall be, and scales what was drawn to it.

Training matches the contrast of a type's defects on the masks that it draws itself, all by one scale. That is no good
for a mask unlike these, such as a stroke that a user draws twice as wide as the real cracks, which comes out black; and
the contrast of what a small base draws varies less from candidate to candidate than that of real defects does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.data.two_levels import find_two_levels
from model.quality.visibility import relative_contrast
from model.types import ImageArray, MaskArray
from service.core.options.quality import QualityLimits

VARIED = 0.15
"""Standard deviation of a drawn contrast's logarithm about that of a real defect."""

SCALES = (0.4, 1.6)
"""Smallest and largest scale of what was drawn: stronger ones would show its faults."""

HALVINGS = 6
"""How often the range of scales is halved to find the one that is needed."""

DRAW = 2
"""Tells the random draws of contrast from a candidate's others."""


@dataclass(frozen=True, slots=True)
class RealContrast:
    """The contrasts of the real defects of a type, one for each photograph: see `relative_contrast`."""

    known: Sequence[float]

    def draw(self, seed: int) -> float:
        """Draw the contrast of a candidate: about that of one of the real defects."""
        rng = np.random.default_rng([seed, DRAW])
        return self.known[int(rng.integers(len(self.known)))] * math.exp(VARIED * rng.normal())


def real_contrast(adapter: AnomalyDiffusionAdapter, kind: int) -> RealContrast | None:
    """Measure the real defects of a type; None where photographs are black and white, and contrast is what it is."""
    own = [
        [pair for crop in crops if (pair := adapter.references[crop]).mask.any()]
        for real, crops in zip(adapter.masks, adapter.crops, strict=True)
        if real.kind == kind
    ]
    if find_two_levels([pair for pairs in own for pair in pairs]):
        return None
    measured = [float(np.mean([measure(pair.image, pair.mask) for pair in pairs])) for pairs in own if pairs]
    known = [contrast for contrast in measured if contrast > 0]
    return RealContrast(known) if known else None


def measure(image: ImageArray, mask: MaskArray) -> float:
    """Measure a defect's contrast: image `(H, W, 3)` uint8, mask `(H, W)` bool."""
    return relative_contrast(image, mask, QualityLimits().ring)


def added_contrast(image: ImageArray, good: ImageArray, mask: MaskArray) -> float:
    """Measure the contrast that a defect adds to that of the good surface at its place, which has some as well.

    Args:
        image, good: `(H, W, 3)` uint8, with and without the defect.
        mask: `(H, W)` bool.
    """
    return math.sqrt(max(0.0, measure(image, mask) ** 2 - measure(good, mask) ** 2))


def scale_to(wanted: float, contrast_at: Callable[[float], float]) -> float:
    """Return the scale, within `SCALES`, at which the contrast is the wanted one or nearest to it.

    Args:
        contrast_at: returns the contrast at a scale; it grows with it, or is 0 where there is no surface to compare.
    """
    low, high = SCALES
    if contrast_at(high) == 0:
        return 1.0
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if contrast_at(middle) > wanted else (middle, high)
    return math.sqrt(low * high)
