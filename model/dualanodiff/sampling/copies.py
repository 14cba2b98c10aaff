"""Copies real defects to good parts, for the parts that the anomaly branch is given.

A copy has the photograph's own scale, and lies where the surroundings are like those of the real defect. All that is
known of its photograph is a crop. A defect that the crop cuts off begins at the picture's border, as if the crop were
the photograph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.data.copy_paste import CopyPaste, copy_at
from model.data.copying import copy_well
from model.data.crops import Window, canvas_side
from model.data.cutout import SCALES, Changes, window_around
from model.data.level_places import draw_where_it_fits
from model.data.placement import Anchor, NormalImage, Region, keep_to_product
from model.data.two_levels import TwoLevels
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.sampling.given_parts import is_line
from model.types import ImageArray, MaskArray, Pair
from service.core.options.dualanodiff import TrainingConfig

FINER = 2
"""Scale of the canvas of a line, relative to that at which the model was trained: it is drawn crisper there."""


def draw_copy(
    adapter: DualAnoDiffAdapter,
    normal: NormalImage,
    normals: Sequence[NormalImage],
    number: int,
    levels: TwoLevels | None,
    where: Region,
    product: Region,
    rng: np.random.Generator,
    sizes: tuple[float, float] = (1.0, 1.0),
) -> tuple[Anchor, CopyPaste]:
    """Copy a real defect to a normal image, and draw a window around it.

    Args:
        normal: to copy it to.
        normals: all of them, some of which are tried where photographs have but two levels and it has no place there.
        number: of the real defect.
        levels: of the photographs, where they have but two.
        where: gives where the user wants it.
        product: gives the product, on which it lies as far as the user wants it there.
        sizes: range of sizes relative to the real defect; if they are all 1, they vary a little.
    """
    config, place = adapter.model.config, adapter.placements[number]

    def draw_on(normal: NormalImage) -> tuple[float, tuple[NormalImage, MaskArray | None, ImageArray, MaskArray]]:
        region = where(normal)
        bounds = keep_to_product(region, product(normal))
        changes = Changes(SCALES if sizes == (1.0, 1.0) else sizes, pinned=region is None)
        real = adapter.references[number]
        score, image, mask = copy_well(
            real, normal.image, bounds, config.flips, rng, levels=levels, changes=changes, cropped=True
        )
        return score, (normal, bounds, image, mask)

    if levels is None:
        _, (normal, bounds, image, mask) = draw_on(normal)
    else:
        normal, bounds, image, mask = draw_where_it_fits(normal, normals, rng, draw_on)
    window = _window_of(mask, config, rng)
    anchor = Anchor(normal, window, number, size=window.side / place.side, bounds=bounds, wanted=where(normal))
    shown = mask[window.slices]
    side, line = config.resolution, levels is None and is_line(adapter.references[number].mask, config)
    if shown.any():
        side = canvas_side(shown, window.side * (FINER if line else 1), config.view, config.resolution)
    source = Pair(normal.name, image[window.slices], shown)
    return anchor, copy_at(source, side, exact=line or levels is not None)


def _window_of(mask: MaskArray, config: TrainingConfig, rng: np.random.Generator) -> Window:
    """Draw a window around a defect; in its middle, as large as can be, where no square holds it."""
    box = window_around(mask, config.view, config.resolution, rng) if mask.any() else None
    if box is not None:
        left, top, right, _ = box
        return Window(left, top, right - left)
    side = min(mask.shape)
    middle = np.argwhere(mask).mean(0) if mask.any() else np.zeros(2)
    top, left = (middle - side / 2).round().astype(int).clip(0, np.array(mask.shape) - side).tolist()
    return Window(left, top, side)
