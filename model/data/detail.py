"""Gives drawn defects the finest detail of the real ones: grain and edges that a model, working small, cannot draw.

What the model's scale and its autoencoder lose of a real defect is its residual. A drawn defect is covered with small
patches of such residuals, each from where a real defect looks most alike, so that it is as sharp and grainy as the real
ones (texture transfer by patches, after Efros and Freeman 2001; it is the residual that is taken, not the defect).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from model.data.two_levels import TwoLevels
from model.types import ImageArray, MaskArray

Levels = NDArray[np.float32]
"""`(h, w, 3)`, grey levels, 0–255 or differences of such."""

PATCH = 12
"""Side of a patch, photograph pixels."""

COLOUR_CELL, MASK_CELL = 4, 2
"""Patches are compared by the mean colours of cells of so many pixels along a side, and by the mask's share of cells
that are finer, so that the profile of a thin defect is laid along its mask."""

MASK_CELLS = (PATCH // MASK_CELL) ** 2
"""Number of a mask's cells, which are the last of what patches are compared by."""

MASK_LEVELS = 40.0
"""Grey levels that a cell inside the mask differs from one outside, beside differences of colour."""

STEP = 8
"""Distance of neighbouring patches; a pixel is drawn from the one whose middle is nearest."""

NEARNESS = np.minimum.outer(*[np.minimum(np.arange(1, PATCH + 1), np.arange(PATCH, 0, -1))] * 2)
"""How near each pixel of a patch is to its middle."""

ALIKE = 4
"""One of so many patches that look most alike is taken, so that none repeats all over."""

NEAREST = 2
"""All patches of a drawn defect come from one real one, since colours that change along its way look pieced together:
from one of so many that look most alike."""

FARTHER = 1.5
"""Greatest distance of that real defect, in proportion to the least."""

TRIED = 512
"""Places of a drawn defect, at random, in which it is compared with the real ones."""

NEARLY = 1.0
"""How much farther than the nearest a patch may be, as a share; on average 0.1 %, in a quarter of the time."""

FITTING = (0.5, 0.9)
"""Share of a patch's defect, of both masks together, that lies in one of them alone, up to which its detail suits a
place, and from which it does not: the profile of a thin real defect leaves ribs on a wide one."""

BLURRED = 2.0
"""Distance from a defect's outline up to which a model's scale mixes colours, model pixels."""

LEAST_PHOTOGRAPHS = 3
"""Fewest photographs of defects by which a tint is judged."""

TELLING, VISIBLE = 1 / 3, 1.0
"""A tint is taken where other defects are wrong by at most this share of what the surface is wrong by (mean squares),
and the surface by at least so many grey levels. The share is a seventh for holes in cookies, and more than four for
cracks in asphalt; where all is one material, it is so small by chance once in 8 sets of three photographs, once in 13
of five."""

AT_ONCE = 4096
"""Patches that are searched for together, which bounds the memory for large defects."""

MOST = 12_000
"""Most patches that are kept, about: some twenty megabytes."""


@dataclass(frozen=True, slots=True)
class Redrawn:
    """A crop of a real photograph with a defect, and the same as a model would draw it at best.

    Attributes:
        image: `(h, w, 3)` uint8.
        smooth: of the same size, after the model's scale and autoencoder.
        mask: `(h, w)` bool, the defect.
        defect: number of the real defect that it shows a piece of.
        photograph: name of the photograph.
        blurred: distance from the outline up to which the model's scale mixes colours, pixels.
    """

    image: ImageArray
    smooth: Levels
    mask: MaskArray
    defect: int = 0
    photograph: str = ""
    blurred: int = 2


@dataclass(frozen=True, slots=True)
class RealDetail:
    """Patches of real defects.

    Attributes:
        looks: by defect, of each patch the colours of its cells without their detail, and the shares of its mask.
        residuals: by defect, `(n, PATCH, PATCH, 1)`, grey levels: fine colours would follow the defect more closely
            than those of its photograph do.
        levels: of the photographs, where they have but two.
        tint: `(3,)`, grey levels that add up to 0, the colours that are lost of a material that shows in the defects;
            None where those that are lost of the surface fit as well, or too few photographs are known.
    """

    looks: Sequence[KDTree]
    residuals: Sequence[NDArray[np.float32]]
    levels: TwoLevels | None = None
    tint: NDArray[np.float32] | None = None


def learn_detail(crops: Sequence[Redrawn], levels: TwoLevels | None = None) -> RealDetail | None:
    """Collect patches of real defects; None if no crop has room for one.

    Args:
        levels: of the photographs, where they have but two.
    """
    shown = [(crop, shows) for crop in crops if (shows := _shows(crop.mask)).any()]
    if not shown:
        return None
    step = -(-sum(int(shows.sum()) for _, shows in shown) // MOST)
    by_defect: dict[int, list[tuple[Redrawn, NDArray[np.int_]]]] = {}
    for crop, shows in shown:
        by_defect.setdefault(crop.defect, []).append((crop, np.argwhere(shows)[::step]))
    looks, residuals = list[KDTree](), list[NDArray[np.float32]]()
    for found in by_defect.values():
        smooth = np.concatenate([_patches(crop.smooth, corners) for crop, corners in found])
        masks = np.concatenate([_patches(crop.mask[..., None], corners) for crop, corners in found])
        lost = [((crop.image - crop.smooth).mean(2, keepdims=True), corners) for crop, corners in found]
        looks.append(KDTree(_looks(smooth, masks)))
        residuals.append(np.concatenate([_patches(values, corners) for values, corners in lost]))
    return RealDetail(looks, residuals, levels, None if levels else find_tint(crops))


def find_tint(crops: Sequence[Redrawn]) -> NDArray[np.float32] | None:
    """Find which colours are lost of a material that shows in the defects, as the tray does in a hole.

    An autoencoder changes the colours of every material in a way of its own. So what a real defect loses is told either
    by what the surface around it loses, or by what the defects of the other photographs do. Both are measured away from
    the outline, near which a model's scale mixes their colours: thin defects have no inside, and no tint.

    Returns:
        `(3,)`, grey levels that add up to 0, the median over the photographs; None where their defects do not tell far
        more of each other than the surface does, or too few are known.
    """
    inside, around = (_lost_colours(crops, place) for place in (_inside, _around))
    known = sorted(inside.keys() & around.keys())
    if len(known) < LEAST_PHOTOGRAPHS:
        return None
    own, surface = (np.array([of[name] for name in known]) for of in (inside, around))
    others = np.array([np.median(np.delete(own, number, 0), 0) for number in range(len(own))])
    by_others, by_surface = (float(np.square(own - each).sum(1).mean()) for each in (others, surface))
    if by_surface < VISIBLE**2 or by_others > TELLING * by_surface:
        return None
    return chroma(np.median(own, 0).astype(np.float32))


def _lost_colours(crops: Sequence[Redrawn], place: Callable[[Redrawn], MaskArray]) -> dict[str, NDArray[np.float64]]:
    """Average the colours that are lost of a place, `(3,)`, over the crops of each photograph that show it."""
    pixels: dict[str, list[Levels]] = {}
    for crop in crops:
        if (where := place(crop)).any():
            pixels.setdefault(crop.photograph, []).append(chroma(crop.image - crop.smooth)[where])
    return {name: np.concatenate(each).mean(0, dtype=np.float64) for name, each in pixels.items()}


def _inside(crop: Redrawn) -> MaskArray:
    return np.asarray(ndimage.binary_erosion(crop.mask, iterations=crop.blurred, border_value=1))


def _around(crop: Redrawn) -> MaskArray:
    """Return the surface as wide around a defect as the outline that is left out on either side."""
    beyond = ndimage.binary_dilation(crop.mask, iterations=crop.blurred)
    return np.asarray(ndimage.binary_dilation(beyond, iterations=crop.blurred) & ~beyond)


def chroma(values: Levels) -> Levels:
    """Return what of colours `(…, 3)` is not grey."""
    return values - values.mean(-1, keepdims=True)


def draw_detail(
    detail: RealDetail, smooth: Levels, mask: MaskArray, where: MaskArray, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw the detail that is missing.

    Args:
        smooth: the surface with the defect, as the model drew it, at the photograph's scale.
        mask: `(h, w)` bool, the defect.
        where: `(h, w)` bool, where detail is missing.

    Returns:
        What to add to it, and how well it suits the mask there, in [0, 1]: see `FITTING`; both `(h, w, 1)`. Elsewhere,
        they mean nothing.
    """
    shape = (*where.shape, 1)
    drawn, fit = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    shows = _shows(where)
    rows, columns = (_starts(length, rng) for length in where.shape)
    corners = np.array([(row, column) for row in rows for column in columns if shows[row, column]], int).reshape(-1, 2)
    if not len(corners):
        return drawn, fit
    defect = _like(detail, smooth, mask, rng.permutation(corners)[:TRIED], rng)
    looks, residuals = detail.looks[defect], detail.residuals[defect]
    nearest = np.zeros(where.shape, NEARNESS.dtype)
    for first in range(0, len(corners), AT_ONCE):
        some = corners[first : first + AT_ONCE]
        for (row, column), number, fits in zip(some, *_chosen(looks, smooth, mask, some, rng), strict=True):
            place = np.s_[row : row + PATCH, column : column + PATCH]
            nearer = nearest[place] < NEARNESS
            nearest[place][nearer] = NEARNESS[nearer]
            drawn[place][nearer] = residuals[number][nearer]
            fit[place][nearer] = fits
    return drawn, fit


def _like(
    detail: RealDetail, smooth: Levels, mask: MaskArray, corners: NDArray[np.int_], rng: np.random.Generator
) -> int:
    """Choose a real defect that looks like the drawn one; returns its place in `detail`.

    Args:
        corners: `(n, 2)`, top left corners of the patches that are compared.
    """
    looks = _looks(_patches(smooth, corners), _patches(mask[..., None], corners))
    distances = np.array([np.mean(tree.query(looks, eps=NEARLY)[0]) for tree in detail.looks])
    alike = np.argsort(distances)[:NEAREST]
    return int(rng.choice(alike[distances[alike] <= FARTHER * distances.min()]))


def _chosen(
    tree: KDTree, smooth: Levels, mask: MaskArray, corners: NDArray[np.int_], rng: np.random.Generator
) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    """Choose the real patch for each place, and how well it suits the mask there, 0–1; both `(n,)`."""
    looks = _looks(_patches(smooth, corners), _patches(mask[..., None], corners))
    _, alike = tree.query(looks, k=range(1, 1 + min(ALIKE, tree.n)), eps=NEARLY)
    chosen = np.asarray(rng.permuted(alike, axis=1)[:, 0])
    here, there = looks[:, -MASK_CELLS:], tree.data[chosen, -MASK_CELLS:]
    shared, covered = np.minimum(here, there).sum(1), np.maximum(here, there).sum(1)
    differs = 1 - shared / np.maximum(covered, np.finfo(np.float32).tiny)
    least, most = FITTING
    return chosen, np.clip((most - differs) / (most - least), 0, 1)


def _shows(where: MaskArray) -> MaskArray:
    """Return which patches show some of a place, by their top left corners."""
    half, (height, width) = PATCH // 2, (max(0, length - PATCH + 1) for length in where.shape)
    return np.asarray(ndimage.maximum_filter(where, PATCH)[half : half + height, half : half + width])


def _patches(values: NDArray[np.generic], corners: NDArray[np.int_]) -> Levels:
    """Cut out patches, `(n, PATCH, PATCH, C)`."""
    views = np.lib.stride_tricks.sliding_window_view(values, (PATCH, PATCH), axis=(0, 1))
    return np.moveaxis(views[corners[:, 0], corners[:, 1]], 1, -1).astype(np.float32)


def _looks(smooth: Levels, masks: Levels) -> Levels:
    """Return what patches are compared by, `(n, features)`."""
    return np.concatenate([_cells(smooth, COLOUR_CELL), MASK_LEVELS * _cells(masks, MASK_CELL)], 1)


def _cells(patches: Levels, side: int) -> Levels:
    """Return the means of cells, weighted such that patches of few large cells count as much as of many small ones."""
    count = PATCH // side
    means = patches.reshape(len(patches), count, side, count, side, -1).mean((2, 4))
    return means.reshape(len(patches), -1) / np.sqrt(count * count * patches.shape[-1])


def _starts(length: int, rng: np.random.Generator) -> list[int]:
    """Place patches along an axis from a random start, with one at each end; none where there is no room."""
    last = length - PATCH
    return sorted({0, *range(int(rng.integers(STEP)), last, STEP), last}) if last >= 0 else []
