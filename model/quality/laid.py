"""Lays real defects on good parts, to learn how much of a true mask changes a good part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import ndimage

from model.data.placement import NormalImage
from model.quality.change import Change, measure_change
from model.types import ImageArray, MaskArray, Pair

LAID = 24
"""Number of defects laid on good parts."""

SOFTNESS = 0.5
"""Standard deviation of the blur of a laid defect's edge, pixels."""

RING = 4
"""Width of the surroundings in which brightness is compared, pixels."""

GAINS = (0.4, 2.5)
"""Limits of the correction of brightness to the good part's."""

SEEN = 0.5
"""Share of a mask that a laid defect must change to count; the rest happens to look like the good part."""

LOW = 10
"""The percentile of all laid defects that counts as usual."""


@dataclass(frozen=True, slots=True)
class UsualChange:
    """What nine of ten real defects laid on good parts reach, see `Change`; without good parts, a guess."""

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
            *(
                float(np.percentile(values, LOW))
                for values in zip(*((each.recall, each.outline, each.strength) for each in changes), strict=True)
            )
        )


def _changes(reals: Sequence[Pair], normals: Sequence[NormalImage]) -> Iterator[Change]:
    rng = np.random.default_rng(0)
    for number in range(LAID if normals else 0):
        real = reals[number % len(reals)]
        good = normals[int(rng.integers(len(normals)))].image
        side = min(real.mask.shape[0], *good.shape[:2])
        image, mask = real.image[:side, :side], real.mask[:side, :side]
        top, left = (int(rng.integers(extent - side + 1)) for extent in good.shape[:2])
        if mask.any():
            place = good[top : top + side, left : left + side]
            yield measure_change(lay(image, mask, place), place, mask)


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
