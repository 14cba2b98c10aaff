"""Draws wide defects a second time, at a finer scale, from what the first pass made of them.

The first pass shrinks a wide defect until it sees enough of it, and composes it. What it drew is enlarged, noised in
part, and denoised on a canvas, in overlapping windows (see `model.diffusion.tiling`), as SDEdit does with a sketch
(Meng et al. 2022). A given part is given again, at the finer scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from model.data.copy_paste import NEARBY, CopyPaste
from model.data.crops import HALVES, LARGEST_CANVAS, resize_image
from model.data.placement import Anchor
from model.data.windows import FINER, LEAST_FINER
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.sampling.anchoring import Anchoring, Canvases, open_area
from model.dualanodiff.sampling.decode import DecodedPair
from model.dualanodiff.sampling.given_parts import give_parts
from model.types import GREY, ImageArray, MaskArray


@dataclass(frozen=True, slots=True)
class Refinement:
    """What the second pass of a batch starts from.

    Attributes:
        indices: of the candidates that are drawn again.
        anchors: of these.
        anchoring: of these, at the finer scale.
    """

    indices: list[int]
    anchors: list[Anchor]
    anchoring: Anchoring


@dataclass(frozen=True, slots=True)
class _Enlarged:
    """A pair of the first pass at the finer scale, all `(side, side)`.

    Attributes:
        image, part: what was drawn, enlarged; the part is grey away from the defect.
        allowed: where a defect may be drawn.
        copy: whose part the anomaly branch is given, or None.
    """

    index: int
    anchor: Anchor
    image: ImageArray
    part: ImageArray
    allowed: MaskArray
    copy: CopyPaste | None

    @property
    def side(self) -> int:
        return self.image.shape[0]


def finer_side(side: int, window: int, resolution: int) -> int | None:
    """Return the side of the canvas on which a pair is drawn again, model pixels, or None if it is not.

    Args:
        side: of the canvas on which it was drawn, model pixels.
        window: side of its window of the photograph, pixels.
        resolution: the model's side, pixels.
    """
    longest = min(window, FINER * side, LARGEST_CANVAS * resolution)
    finer = HALVES * longest // resolution * resolution // HALVES
    return finer if finer >= LEAST_FINER * side else None


def prepare_refinement(
    adapter: DualAnoDiffAdapter, pairs: Sequence[DecodedPair], coarse: Anchoring
) -> Refinement | None:
    """Encode what a second pass starts from; None if no pair is drawn again.

    Args:
        pairs: of the first pass.
        coarse: what they were anchored on.
    """
    copies = coarse.given.copies if coarse.given is not None else (None,) * len(pairs)
    found = [_enlarged(adapter, pair, copy) for pair, copy in zip(pairs, copies, strict=True)]
    chosen = [each for each in found if each is not None]
    if not chosen:
        return None
    canvases = Canvases(adapter.model, [each.side for each in chosen], [each.allowed for each in chosen])
    windows = [resize_image(each.anchor.pixels, each.side) for each in chosen]
    normal, images = (canvases.encode(each) for each in (windows, [each.image for each in chosen]))
    parts, given = coarse.grey.expand_as(normal), None
    if canvases.tiling is not None and not all(each.copy for each in chosen):
        covered = canvases.tiling.covered.to(normal.device)
        parts = torch.where(covered, canvases.encode([each.part for each in chosen]), parts)
    if any(each.copy for each in chosen):
        placed = [(each.copy, window) for each, window in zip(chosen, windows, strict=True)]
        given = give_parts(placed, canvases.encode, canvases.touched, coarse.grey)
        parts = torch.where(given.rows[:, None, None, None], given.parts, parts)
    anchoring = Anchoring(
        normal=normal,
        start=torch.stack([images, parts]),
        grey=coarse.grey,
        allowed=canvases.allowed,
        sides=canvases.cells,
        tiling=canvases.tiling,
        given=given,
    )
    return Refinement([each.index for each in chosen], [each.anchor for each in chosen], anchoring)


def _enlarged(adapter: DualAnoDiffAdapter, pair: DecodedPair, copy: CopyPaste | None) -> _Enlarged | None:
    """Enlarge a pair if it is drawn again: its window is large enough, and shows a defect."""
    anchor = pair.anchor
    if anchor is None:
        return None
    side = finer_side(pair.image.shape[0], anchor.window.side, adapter.resolution)
    if side is None:
        return None
    image, part, mask = pair.enlarged(side)
    if not mask.any():
        return None
    finer = copy.at(side) if copy is not None else None
    near = ndimage.binary_dilation(mask, iterations=NEARBY) if finer is None else finer.nearby
    allowed = near & open_area(anchor, side, adapter.base.factor)
    part = np.where(allowed[..., None], part, np.uint8(GREY))
    return _Enlarged(pair.index, anchor, image, part, allowed, finer)
