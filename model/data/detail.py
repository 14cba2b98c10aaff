"""Gives drawn defects the finest detail of the real ones: grain and edges that a model, working small, cannot draw.

What the model's scale and its autoencoder lose of a real defect is its residual. A drawn defect is covered with small
patches of such residuals, each from where a real defect looks most alike, so that it is as sharp and grainy as the real
ones (texture transfer by patches, after Efros and Freeman 2001; it is the residual that is taken, not the defect).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from model.types import ImageArray, MaskArray

Levels = NDArray[np.float32]
"""`(h, w, 3)`, grey levels, 0–255 or differences of such."""

CELL, CELLS = 4, 3
"""A patch is compared by the mean colours of `CELLS` × `CELLS` cells of so many photograph pixels along a side."""

PATCH = CELL * CELLS
"""Side of a patch, photograph pixels."""

FEATHER = 3
"""Pixels over which neighbouring patches fade into each other."""

ALIKE = 4
"""One of so many patches that look most alike is taken, so that none repeats all over."""

TINY = np.finfo(np.float32).tiny

MOST = 6_000
"""Most patches that are kept, about: some ten megabytes."""


@dataclass(frozen=True, slots=True)
class Redrawn:
    """A crop of a real photograph with a defect, and the same as a model would draw it at best.

    Attributes:
        image: `(h, w, 3)` uint8.
        smooth: of the same size, after the model's scale and autoencoder.
        mask: `(h, w)` bool, the defect.
    """

    image: ImageArray
    smooth: Levels
    mask: MaskArray


@dataclass(frozen=True, slots=True)
class RealDetail:
    """Patches of real defects.

    Attributes:
        looks: of each patch without its detail, the colours of its cells.
        residuals: `(n, PATCH, PATCH, 3)`, grey levels.
    """

    looks: KDTree
    residuals: Levels


def learn_detail(crops: Sequence[Redrawn]) -> RealDetail | None:
    """Collect patches around the pixels of real defects; None if no crop has room for one."""
    found = [(crop, corners) for crop in crops if len(corners := _corners_within(crop.mask))]
    if not found:
        return None
    step = -(-sum(len(corners) for _, corners in found) // MOST)
    smooth = np.concatenate([_patches(crop.smooth, corners[::step]) for crop, corners in found])
    whole = np.concatenate([_patches(crop.image, corners[::step]) for crop, corners in found])
    return RealDetail(KDTree(_look(smooth)), whole - smooth)


def draw_detail(detail: RealDetail, smooth: Levels, where: MaskArray, rng: np.random.Generator) -> Levels:
    """Draw the detail that is missing.

    Args:
        smooth: the surface with the defect, as the model drew it, at the photograph's scale.
        where: `(h, w)` bool, where detail is missing.

    Returns:
        What to add to it; elsewhere, it means nothing.
    """
    total, weight = np.zeros_like(smooth), np.full((*where.shape, 1), TINY, np.float32)
    near = ndimage.maximum_filter(where, PATCH)[PATCH // 2 :, PATCH // 2 :]
    rows, columns = (_starts(length, rng) for length in where.shape)
    corners = np.array([(row, column) for row in rows for column in columns if near[row, column]], int).reshape(-1, 2)
    if not len(corners):
        return total
    _, alike = detail.looks.query(_look(_patches(smooth, corners)), k=range(1, 1 + min(ALIKE, len(detail.residuals))))
    chosen = rng.permuted(alike, axis=1)[:, 0]
    ramp = np.minimum(1, np.minimum(np.arange(1, PATCH + 1), np.arange(PATCH, 0, -1)) / (FEATHER + 1))
    fade = np.outer(ramp, ramp)[..., None].astype(np.float32)
    for (row, column), number in zip(corners, chosen, strict=True):
        place = np.s_[row : row + PATCH, column : column + PATCH]
        total[place] += fade * detail.residuals[number]
        weight[place] += np.square(fade)
    # Neighbours differ like noise, so it is their variance that adds up.
    return np.asarray(total / np.sqrt(weight), np.float32)


def _corners_within(mask: MaskArray) -> NDArray[np.int_]:
    """Return the top left corners, `(n, 2)`, of all patches whose middle is the defect's."""
    half = PATCH // 2
    height, width = (max(0, length - PATCH + 1) for length in mask.shape)
    return np.argwhere(mask[half : half + height, half : half + width])


def _patches(values: NDArray[np.generic], corners: NDArray[np.int_]) -> Levels:
    """Cut out patches, `(n, PATCH, PATCH, 3)`."""
    views = np.lib.stride_tricks.sliding_window_view(values, (PATCH, PATCH), axis=(0, 1))
    return np.moveaxis(views[corners[:, 0], corners[:, 1]], 1, -1).astype(np.float32)


def _look(patches: Levels) -> Levels:
    cells = patches.reshape(len(patches), CELLS, CELL, CELLS, CELL, 3).mean((2, 4))
    return cells.reshape(len(patches), -1)


def _starts(length: int, rng: np.random.Generator) -> list[int]:
    """Place patches along an axis from a random start, with one at each end; none where there is no room."""
    last, step = length - PATCH, PATCH - FEATHER
    return sorted({0, *range(int(rng.integers(step)), last, step), last}) if last >= 0 else []
