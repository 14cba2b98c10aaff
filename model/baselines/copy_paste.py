"""Copies real defects to normal photographs, at the photographs' own scale (as in Dwibedi et al. 2017, CutPaste).

What a generative model adds must show beside this: the defect's pixels are real, only its place, size and surroundings
are new.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.baselines.blending import lay
from model.baselines.cutout import Cutout, changed, cut_out
from model.baselines.sampler import Draft, draw_best
from model.data.copy_paste import GAINS, draw_copy_paste
from model.data.crops import canvas_side, draw_window, resize_image
from model.data.placement import draw_anchor, inner_border, paste, place_part
from model.types import Candidate, ImageArray, MaskArray
from service.core.options.baselines import CopyPasteConfig

RING = 8
"""Width of the surroundings in which colours are compared, pixels."""

EVEN = (0.3, 0.6)
"""Surroundings that deviate by less than the first share of their mean tell how bright a place is; by more than the
second, as in a pattern of light and dark, they tell nothing, and colours stay as they are."""

NEARBY = 0.25
"""Where no product is found, how far a defect may lie from where it lay on its own photograph, as a share of the range
of possible places along each axis: an object that was not found is likely to be at the same place."""

TRIES, ON_PRODUCT = 64, 0.98
"""How many places are tried until this share of the defect lies on the product; then the best of them is taken."""


def draw(draft: Draft, settings: CopyPasteConfig) -> Candidate:
    """Draw a candidate. Its mask is exact, since it is what was copied."""
    return _sketch(draft) if settings.deform else _copy(draft, settings)


def _copy(draft: Draft, settings: CopyPasteConfig) -> Candidate:
    scene, rng = draft.scene, draft.rng
    normal = scene.draw_normal(rng)
    pair = scene.adapter.pairs[int(rng.integers(len(scene.adapter.pairs)))]
    flips, mirror = scene.adapter.config.flips, rng.random(2) < 0.5
    mirrored = (flips[0] and bool(mirror[0]), flips[1] and bool(mirror[1]))
    cutout = changed(cut_out(pair, mirrored, rng), normal.image.shape, rng)
    start = _place(cutout, normal.image.shape, scene.product_in(normal), rng)
    here, there = _overlap(cutout.mask.shape, normal.image.shape, start)
    patch, mask, others = cutout.image[here], cutout.mask[here], cutout.others[here]
    picture = normal.image[there]
    gain = _gain(_ring(patch, mask, others), _ring(picture, mask, mask))
    image, placed = normal.image.copy(), np.zeros(normal.image.shape[:2], np.bool_)
    image[there] = lay(patch * gain, picture, mask, others, settings.blending)
    placed[there] = mask
    window = _window_around(draft, placed)
    return Candidate(draft.index, draft.seed, image, placed, normal=normal.name, window=window)


def _ring(image: NDArray[np.float32] | ImageArray, mask: MaskArray, avoided: MaskArray) -> NDArray[np.float64]:
    """Return the pixels around a mask, `(N, 3)`; the first one is left out, because it is a mixture.

    Args:
        image: `(H, W, 3)`.
        avoided: `(H, W)` bool, pixels that do not count.
    """
    ring = ndimage.binary_dilation(mask, iterations=RING + 1) & ~ndimage.binary_dilation(mask | avoided)
    return np.asarray(image[ring] if ring.any() else image.reshape(-1, 3), np.float64)


def _gain(real: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return what to multiply the channels of a defect by, `(3,)`, from the pixels around it there and here."""
    means = [np.maximum(pixels.mean(0), 1.0) for pixels in (real, normal)]
    deviation = max(float((pixels.std(0) / mean).max()) for pixels, mean in zip((real, normal), means, strict=True))
    trust = np.clip((EVEN[1] - deviation) / (EVEN[1] - EVEN[0]), 0, 1)
    return np.clip((means[1] / means[0]) ** trust, *GAINS).astype(np.float32)


def _place(
    cutout: Cutout, shape: tuple[int, ...], product: MaskArray | None, rng: np.random.Generator
) -> NDArray[np.int_]:
    """Draw where in a picture the cut-out's first row and column lie, so that its defect lies inside."""
    size, places = np.array(shape[:2]), np.argwhere(cutout.mask)
    low, high = 1 - places.min(0), size - 2 - places.max(0)
    low, high = np.minimum(low, high), np.maximum(low, high)
    if product is None:
        wanted = cutout.place + np.array([[-NEARBY], [NEARBY]])
        low, high = (low + np.clip(wanted, 0, 1) * (high - low)).round().astype(int)
    ends = np.where(cutout.touches == 1, size - cutout.mask.shape, 0)

    def draw_start() -> tuple[float, NDArray[np.int_]]:
        start = np.where(cutout.touches != 0, ends, rng.integers(low, high + 1))
        if product is None:
            return 1.0, start
        here, there = _overlap(cutout.mask.shape, shape, start)
        return float(product[there][cutout.mask[here]].sum() / cutout.mask.sum()), start

    return draw_best(draw_start, ON_PRODUCT, TRIES)


def _overlap(
    patch: tuple[int, ...], picture: tuple[int, ...], start: NDArray[np.int_]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the slices of a patch and of a picture where they overlap, if the patch starts there."""
    here, there = [], []
    for length, full, first in zip(patch[:2], picture[:2], start.tolist(), strict=True):
        low, high = max(0, first), min(full, first + length)
        there.append(slice(low, high))
        here.append(slice(low - first, high - first))
    return tuple(here), tuple(there)


def _window_around(draft: Draft, mask: MaskArray) -> tuple[int, int, int, int] | None:
    """Draw a window that shows the defect as crops of the real ones do; None if no square holds it."""
    places = np.argwhere(mask)
    (top, left), (bottom, right) = places.min(0), places.max(0) + 1
    if max(bottom - top, right - left) > min(mask.shape):
        return None
    box = np.zeros_like(mask)
    box[top:bottom, left:right] = True
    config = draft.scene.adapter.config
    return draw_window(box, config.view, config.resolution, draft.rng).box


def _sketch(draft: Draft) -> Candidate:
    """Draw what DualAnoDiff's sampling with `sketch_strength` starts from, put back on the photograph as it does."""
    adapter, rng = draft.scene.adapter, draft.rng
    anchor = draw_anchor(draft.scene.normals, adapter.placements, rng, adapter.config.flips)
    reference = adapter.references[anchor.place]
    side = canvas_side(reference.mask, anchor.window.side, adapter.config.view, adapter.resolution)
    window = resize_image(anchor.pixels, side)
    inner = inner_border(anchor, side, adapter.base.factor)
    sketch = draw_copy_paste(reference, window, inner, anchor.mirrored, rng)
    image, mask = paste(anchor, sketch.image, window, sketch.mask)
    part = place_part(anchor, sketch.part)
    return Candidate(draft.index, draft.seed, image, mask, part, anchor.normal.name, anchor.window.box)
