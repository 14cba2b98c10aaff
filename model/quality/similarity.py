"""Finds near copies of whole pictures, independent of size and mirroring; `model.quality.copies` finds copied defects.

A picture is described by a grey square of `SIDE × SIDE` pixels without its slow shading (high-passed), and by where in
it the mask lies. Likeness is the normalised cross-correlation of two such squares, the best over the four mirrorings
that training draws from, counted only where the two masks overlap too: one background with the defect elsewhere is no
copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.types import ImageArray, MaskArray

Vector = NDArray[np.float32]
"""`(SIDE²,)`, unit length (or all zero for a flat square)."""

SIDE = 32
SHADING_SIGMA = 4.0
"""Standard deviation, in thumbnail pixels, of the blur that is subtracted from the scene."""
MASK_SIGMA = 1.0
"""Blur of the resampled masks, so that an outline drawn one pixel off still overlaps."""
MIN_SCENE_OVERLAP = 0.5
"""Least cosine between two masks, as they lie in their images, of one and the same scene."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Describes a picture for comparison, by two unit vectors of `SIDE²` numbers."""

    scene: Vector
    scene_mask: Vector


def fingerprint(image: ImageArray, mask: MaskArray) -> Fingerprint:
    """Describe a pair.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool, with at least one pixel set.
    """
    thumbnail = _resample(image.mean(axis=2, dtype=np.float32))
    scene = _unit(thumbnail - ndimage.gaussian_filter(thumbnail, SHADING_SIGMA))
    return Fingerprint(scene, _soft(mask))


def scene_likeness(one: Fingerprint, others: Sequence[Fingerprint]) -> float:
    """Return the highest correlation of the image with the others, mirrored or not, in [0, 1]; 0 without others."""
    return _likeness(
        one.scene,
        one.scene_mask,
        [other.scene for other in others],
        [other.scene_mask for other in others],
        MIN_SCENE_OVERLAP,
    )


def _likeness(
    square: Vector, mask: Vector, squares: Sequence[Vector], masks: Sequence[Vector], min_overlap: float
) -> float:
    if not squares:
        return 0.0
    correlation = _mirrorings(square) @ np.stack(squares, axis=1)
    overlap = _mirrorings(mask) @ np.stack(masks, axis=1)
    return float(np.clip(np.where(overlap >= min_overlap, correlation, 0.0).max(), 0.0, 1.0))


def _mirrorings(vector: Vector) -> NDArray[np.float32]:
    square = vector.reshape(SIDE, SIDE)
    return np.stack([square, square[::-1], square[:, ::-1], square[::-1, ::-1]]).reshape(4, -1)


def _resample(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _unit(square: NDArray[np.float32]) -> Vector:
    centred = (square - square.mean()).ravel()
    norm = float(np.linalg.norm(centred))
    # Below a hundredth of a grey level what is left of a flat square is rounding, not structure.
    return centred / norm if norm > 0.01 * SIDE else np.zeros_like(centred)


def _soft(mask: MaskArray) -> Vector:
    blurred: Vector = ndimage.gaussian_filter(_resample(mask.astype(np.float32)), MASK_SIGMA).ravel()
    return blurred / np.linalg.norm(blurred)
