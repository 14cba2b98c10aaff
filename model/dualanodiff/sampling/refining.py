"""Draws wide defects a second time, at a finer scale, from what the first pass made of them.

The first pass shrinks a wide defect until it sees enough of it, and composes it. What it drew is enlarged, noised in
part, and denoised on a canvas, in overlapping windows (see `model.diffusion.tiling`), as SDEdit does with a sketch
(Meng et al. 2022). A given part is given again, at the finer scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import ndimage

from model.data.copy_paste import NEARBY, CopyPaste
from model.data.crops import HALVES, LARGEST_CANVAS, resize_image
from model.data.placement import Anchor
from model.data.windows import finer_scale
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.sampling.anchoring import Anchoring, Canvases, open_area
from model.dualanodiff.sampling.decode import DecodedPair
from model.dualanodiff.sampling.given_parts import give_parts
from model.types import ImageArray, MaskArray


@dataclass(frozen=True, slots=True)
class Refinement:
    """What the second pass of a batch starts from.

    Attributes:
        indices: of the candidates that are drawn again.
        anchors: of these.
        anchoring: of these, at the finer scale.
    """

    indices: tuple[int, ...]
    anchors: tuple[Anchor, ...]
    anchoring: Anchoring


def finer_side(side: int, window: int, resolution: int) -> int | None:
    """Return the side of the canvas on which a pair is drawn again, model pixels, or None if it is not.

    Args:
        side: of the canvas on which it was drawn, model pixels.
        window: side of its window of the photograph, pixels.
        resolution: the model's side, pixels.
    """
    scale = finer_scale(side / window)
    if scale is None:
        return None
    halves = min(int(HALVES * scale * window) // resolution, HALVES * LARGEST_CANVAS)
    finer = halves * resolution // HALVES
    return finer if finer > side else None


def prepare_refinement(
    adapter: DualAnoDiffAdapter, pairs: Sequence[DecodedPair], coarse: Anchoring
) -> Refinement | None:
    """Encode what a second pass starts from; None if no pair is drawn again.

    Args:
        pairs: of the first pass.
        coarse: what they were anchored on.
    """
    model, factor = adapter.model, adapter.base.factor
    first = coarse.given.copies if coarse.given is not None else (None,) * len(pairs)
    indices, anchors, sides = list[int](), list[Anchor](), list[int]()
    images, parts, allowed = list[ImageArray](), list[ImageArray](), list[MaskArray]()
    copies: list[CopyPaste | None] = []
    for pair, copy in zip(pairs, first, strict=True):
        anchor = pair.anchor
        if anchor is None or not pair.shows_defect():
            continue
        side = finer_side(pair.image.shape[0], anchor.window.side, model.config.resolution)
        if side is None:
            continue
        image, part, mask = pair.enlarged(side)
        finer = copy.at(side) if copy is not None else None
        near = ndimage.binary_dilation(mask, iterations=NEARBY) if finer is None else finer.nearby
        indices.append(pair.index)
        anchors.append(anchor)
        sides.append(side)
        images.append(image)
        parts.append(part)
        allowed.append(near & open_area(anchor, side, factor))
        copies.append(finer)
    if not indices:
        return None
    canvases = Canvases(model, sides, allowed)
    windows = [resize_image(anchor.pixels, side) for anchor, side in zip(anchors, sides, strict=True)]
    start = torch.stack([canvases.encode(images), canvases.encode(parts)])
    given = None
    if any(copies):
        given = give_parts(list(zip(copies, windows, strict=True)), canvases.encode, canvases.touched, coarse.grey)
        start[1] = torch.where(given.rows[:, None, None, None], given.parts, start[1])
    normal = canvases.encode(windows)
    anchoring = Anchoring(normal, start, coarse.grey, canvases.allowed, canvases.cells, canvases.tiling, given)
    return Refinement(tuple(indices), tuple(anchors), anchoring)
