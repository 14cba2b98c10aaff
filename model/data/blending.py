"""Lays a patch on a picture: with a hard edge, a faded one, or with its own gradients (Poisson)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from model.types import ImageArray, MaskArray
from service.core.options.baselines import Blending

FADE_SHARE, FADE = 0.06, (2.0, 16.0)
"""Width over which a patch fades out, as a share of the square root of its area; and its limits, pixels."""

MOST_SOLVED = 100_000
"""Pixels above which the equations of a region are solved on a coarser grid."""

Field = NDArray[np.float32]


def lay(patch: Field, picture: ImageArray, mask: MaskArray, kept: MaskArray, blending: Blending) -> ImageArray:
    """Lay a patch on a picture of the same size.

    Args:
        patch: `(H, W, 3)`, 0–255, also meaningful some pixels around the mask.
        picture: `(H, W, 3)` uint8.
        mask: `(H, W)` bool, not empty: what is laid on.
        kept: `(H, W)` bool: outside of the mask, these pixels stay the picture's.

    Returns:
        The picture with the patch: outside the mask and the few pixels over which it fades, the picture's own values.
    """
    hard = blending == "none"
    alpha = np.where(kept & ~mask, np.float32(0), mask.astype(np.float32) if hard else faded(mask))
    if blending == "poisson":
        patch = patch + membrane(picture - patch, alpha > 0)
    mixed = picture + alpha[..., None] * (patch - picture)
    laid = np.clip(mixed, 0, 255).round().astype(np.uint8)
    return np.where(alpha[..., None] > 0, laid, picture)


def faded(mask: MaskArray) -> Field:
    """Return `(H, W)`: 1 on a mask, falling to 0 over a few pixels around it."""
    width = np.clip(FADE_SHARE * np.sqrt(mask.sum()), *FADE)
    distance = ndimage.distance_transform_edt(~mask)
    return np.asarray(np.clip(1 - distance / (width + 1), 0, 1), np.float32)


def membrane(difference: Field, region: MaskArray) -> Field:
    """Span a smooth surface over a region that equals a difference along its outline.

    A patch plus this surface has the patch's gradients and the picture's values at the outline (Pérez et al. 2003,
    Poisson image editing), since the surface solves Laplace's equation. At the picture's border its slope is 0.

    Args:
        difference: `(H, W, 3)`, picture minus patch.
        region: `(H, W)` bool.

    Returns:
        `(H, W, 3)`, 0 outside the region.
    """
    stride = int(np.ceil(np.sqrt(max(1.0, region.sum() / MOST_SOLVED))))
    if stride == 1:
        return _harmonic(difference, region)
    coarse = _harmonic(difference[::stride, ::stride], region[::stride, ::stride])
    grid = np.indices(region.shape) / stride
    bands = [ndimage.map_coordinates(band, grid, order=1, mode="nearest") for band in np.moveaxis(coarse, -1, 0)]
    return np.where(region[..., None], np.stack(bands, -1), np.float32(0))


def _harmonic(difference: Field, region: MaskArray) -> Field:
    surface = np.zeros_like(difference)
    if not region.any() or region.all():  # without an outline there is nothing to meet
        return surface
    count = int(region.sum())
    number = np.full(region.shape, -1)
    number[region] = np.arange(count)
    degree, known = np.zeros(count), np.zeros((count, 3))
    rows, columns = [], []
    height, width = region.shape
    for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        here = (slice(max(0, -down), height - max(0, down)), slice(max(0, -right), width - max(0, right)))
        there = (slice(max(0, down), height - max(0, -down)), slice(max(0, right), width - max(0, -right)))
        own, other, inside = number[here], number[there], region[here]
        degree[own[inside]] += 1
        both = inside & (other >= 0)
        rows.append(own[both])
        columns.append(other[both])
        outline = inside & (other < 0)
        known[own[outline]] += difference[there][outline]
    row, column = np.concatenate([*rows, np.arange(count)]), np.concatenate([*columns, np.arange(count)])
    values = np.concatenate([np.full(len(row) - count, -1.0), degree])
    laplacian = coo_array((values, (row, column)), shape=(count, count)).tocsc()
    surface[region] = spsolve(laplacian, known).reshape(count, 3)
    return surface
