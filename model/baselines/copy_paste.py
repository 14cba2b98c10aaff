"""Copies real defects to normal photographs, at the photographs' own scale (as in Dwibedi et al. 2017, CutPaste).

What a generative model adds must show beside this: the defect's pixels are real, only its place, size and surroundings
are new.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.baselines.blending import lay
from model.baselines.sampler import Draft
from model.data.copy_paste import GAINS, draw_copy_paste
from model.data.crops import canvas_side, resize_image
from model.data.cutout import changed, cut_out, draw_start, find_bounds, overlap, window_around
from model.data.placement import draw_anchor, inner_border, paste, place_part
from model.types import Candidate, ImageArray, MaskArray
from service.core.options.baselines import CopyPasteConfig

RING = 8
"""Width of the surroundings in which colours are compared, pixels."""

EVEN = (0.3, 0.6)
"""Surroundings that deviate by less than the first share of their mean tell how bright a place is; by more than the
second, as in a pattern of light and dark, they tell nothing, and colours stay as they are."""


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
    product = scene.product_in(normal)
    bounds = find_bounds(cutout, normal.image.shape, nearby=product is None)
    start = draw_start(cutout, normal.image.shape, bounds, product, rng)
    here, there = overlap(cutout.mask.shape, normal.image.shape, start)
    patch, mask, others = cutout.image[here], cutout.mask[here], cutout.others[here]
    picture = normal.image[there]
    image, placed = normal.image.copy(), np.zeros(normal.image.shape[:2], np.bool_)
    if scene.levels is None:
        patch *= _gain(_ring(patch, mask, others), _ring(picture, mask, mask))
        image[there] = lay(patch, picture, mask, others, settings.blending)
    else:
        # A faded edge would be grey where nothing else is, and so is what turning and scaling made.
        image[there] = lay(scene.levels.nearest(patch), picture, mask, others, "none")
    placed[there] = mask
    config = scene.adapter.config
    window = window_around(placed, config.view, config.resolution, rng)
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
