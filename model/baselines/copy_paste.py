"""Copies real defects to normal photographs, at the photographs' own scale (as in Dwibedi et al. 2017, CutPaste).

What a generative model adds must show beside this: the defect's pixels are real, only its place, size and surroundings
are new.
"""

from __future__ import annotations

from model.baselines.sampler import Draft
from model.data.copy_paste import draw_copy_paste
from model.data.copying import copy_defect, copy_well
from model.data.crops import canvas_side, resize_image
from model.data.cutout import window_around
from model.data.level_places import draw_where_it_fits
from model.data.placement import NormalImage, draw_anchor, inner_border, paste, place_part
from model.types import Candidate, ImageArray, MaskArray
from service.core.options.baselines import CopyPasteConfig


def draw(draft: Draft, settings: CopyPasteConfig) -> Candidate:
    """Draw a candidate. Its mask is exact, since it is what was copied."""
    return _sketch(draft) if settings.deform else _copy(draft, settings)


def _copy(draft: Draft, settings: CopyPasteConfig) -> Candidate:
    scene, rng = draft.scene, draft.rng
    config, pairs = scene.adapter.config, scene.adapter.pairs
    pair, levels = pairs[int(rng.integers(len(pairs)))], scene.levels
    if levels is None:
        normal, product = draft.normal, scene.product_in(draft.normal)
        image, mask, _ = copy_defect(pair, normal.image, product, config.flips, rng, blending=settings.blending)
    else:

        def copy_to(normal: NormalImage) -> tuple[float, tuple[NormalImage, ImageArray, MaskArray]]:
            score, image, mask = copy_well(pair, normal.image, None, config.flips, rng, levels=levels)
            return score, (normal, image, mask)

        normal, image, mask = draw_where_it_fits(draft.normal, scene.normals, rng, copy_to)
    window = window_around(mask, config.view, config.resolution, rng)
    return Candidate(draft.index, draft.seed, image, mask, normal=normal.name, window=window)


def _sketch(draft: Draft) -> Candidate:
    """Draw what DualAnoDiff's sampling with `sketch_strength` starts from, put back on the photograph as it does."""
    adapter, rng = draft.scene.adapter, draft.rng
    anchor = draw_anchor([draft.normal], adapter.placements, rng, adapter.config.flips)
    reference = adapter.references[anchor.place]
    side = canvas_side(reference.mask, anchor.window.side, adapter.config.view, adapter.resolution)
    window = resize_image(anchor.pixels, side)
    inner = inner_border(anchor, side, adapter.base.factor)
    sketch = draw_copy_paste(reference, window, inner, anchor.mirrored, rng)
    image, mask = paste(anchor, sketch.image, window, sketch.mask)
    part = place_part(anchor, sketch.part)
    return Candidate(draft.index, draft.seed, image, mask, part, anchor.normal.name, anchor.window.box)
