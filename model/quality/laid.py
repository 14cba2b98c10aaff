"""Lays real defects on good parts, to learn how much of a true mask changes a good part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import ndimage

from model.data.crops import bounding_box
from model.data.placement import NormalImage
from model.quality.change import NEARBY, Change, measure_change
from model.types import ImageArray, MaskArray, Pair

LAID, PLACES = 12, 8
"""Number of defects laid on good parts, and of places tried for each, of which the one where it changes most counts: a
defect is a change, but at random places the two levels of a circuit hide half of one."""

SOFTNESS = 0.5
"""Standard deviation of the blur of a laid defect's edge, pixels."""

RING = 4
"""Width of the surroundings in which brightness is compared, pixels."""

GAINS = (0.4, 2.5)
"""Limits of the correction of brightness to the good part's."""

MARGIN = NEARBY + 1
"""How far from the mask a laid defect is looked at, pixels."""

SEEN = 0.5
"""Share of a mask that a laid defect must change to count; the rest happens to look like the good part."""

LOW = 10
"""The percentile of all laid defects' strengths that counts as usual."""


@dataclass(frozen=True, slots=True)
class UsualChange:
    """What real defects laid on good parts reach, see `Change`; without good parts, a guess.

    Attributes:
        recall, outline: what half of them reach.
        strength: what nine of ten reach.
    """

    recall: float = 0.85
    outline: float = 0.85
    strength: float = 0.0

    @classmethod
    def measured(cls, reals: Sequence[Pair], normals: Sequence[NormalImage]) -> Self:
        """Lay real defects on good parts; every call measures the same."""
        changes = [change for change in _changes(reals, normals) if change.recall > SEEN]
        if not changes:
            return cls()
        return cls(
            recall=float(np.median([each.recall for each in changes])),
            outline=float(np.median([each.outline for each in changes])),
            strength=float(np.percentile([each.strength for each in changes], LOW)),
        )


def _changes(reals: Sequence[Pair], normals: Sequence[NormalImage]) -> Iterator[Change]:
    rng = np.random.default_rng(0)
    for number in range(LAID if normals else 0):
        tried = [change for _ in range(PLACES) if (change := _change(reals[number % len(reals)], normals, rng))]
        if tried:
            yield max(tried, key=lambda each: min(each.recall, each.outline))


def _change(real: Pair, normals: Sequence[NormalImage], rng: np.random.Generator) -> Change | None:
    good = normals[int(rng.integers(len(normals)))].image
    side = min(real.mask.shape[0], *good.shape[:2])
    top, left = (int(rng.integers(extent - side + 1)) for extent in good.shape[:2])
    if not real.mask[:side, :side].any():
        return None
    rows, columns = bounding_box(real.mask[:side, :side])
    near = (
        slice(max(0, rows.start - MARGIN), min(side, rows.stop + MARGIN)),
        slice(max(0, columns.start - MARGIN), min(side, columns.stop + MARGIN)),
    )
    place = good[top : top + side, left : left + side][near]
    return measure_change(lay(real.image[near], real.mask[near], place), place, real.mask[near])


def lay(image: ImageArray, mask: MaskArray, good: ImageArray) -> ImageArray:
    """Lay a defect on a good part, with its colour matched to the surroundings.

    Args:
        image: `(H, W, 3)` uint8, shows the defect.
        mask: `(H, W)` bool, not empty.
        good: `(H, W, 3)` uint8.
    """
    ring = ndimage.binary_dilation(mask, iterations=RING + 1) & ~ndimage.binary_dilation(mask)
    gain = np.ones(3)
    if ring.any():
        gain = np.clip((good[ring].mean(axis=0) + 1) / (image[ring].mean(axis=0) + 1), *GAINS)
    alpha = ndimage.gaussian_filter(mask.astype(np.float32), SOFTNESS)[..., None]
    return np.clip(np.round(good + alpha * (image * gain - good)), 0, 255).astype(np.uint8)
