"""Anchors sampling on normal images: prepares what a batch starts from, and keeps the background.

The global branch starts from the noised normal; in the last steps its latents outside the emerging defect are those of
the normal. The anomaly branch starts from grey, or both start from a copy-paste initialisation (see
`model.data.copy_paste`).

A defect too long or too wide for one window is generated on a larger canvas, in overlapping windows (see
`model.diffusion.tiling`). Single windows do not see where such a defect leads, so it stays near a course: that of a
real defect, changed at random. Where the anomaly branch is given a part (see `model.dualanodiff.sampling.given_parts`),
it is that of a copy, at the photograph's own scale and where the surroundings are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.data.copy_paste import CopyPaste, draw_copy_paste
from model.data.crops import canvas_side, resize_image
from model.data.drawing import draw_best
from model.data.pixels import to_pixels
from model.data.placement import Anchor, inner_border
from model.diffusion.tiling import Tiling, tile
from model.diffusion.vae import encode, encode_batch
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.latent_dataset import grey_cell
from model.dualanodiff.model import DualAnoDiffModel
from model.dualanodiff.sampling.given_parts import GivenParts, give_parts
from model.types import ImageArray, MaskArray, Pair, anomaly_part

PART_VISIBLE = (0.15, 0.45)
"""A part's latent differs from grey by less than the first where there is no defect, by more than the second where
there is; in units of the latents' deviation (1 after the scaling factor)."""

SKETCH_TRIES, INSIDE = 12, 0.98
"""How many copies are tried until this share of one lies on the product, and in the region that the user wants; then
the best is taken."""

MARGIN, MOST_MARGIN = 3, 1 / 5
"""Distance of a defect without a course from borders of its window that lie in the photograph: latent cells, and at
most this share of the window. It may be as large as its window, and would end there in a straight cut; beyond, the
image's share falls over two cells, see `widened`."""


@dataclass(frozen=True)
class Anchoring:
    """Latents that a batch is anchored on, at the model's resolution.

    Attributes:
        normal: latents of the normal images' windows, `(B, C, h, w)`.
        start: latents that sampling starts from after noise is added, `(2, B, C, h, w)`.
        grey: latent of mid-grey, `(1, C, 1, 1)`.
        allowed: where a defect may be, `(B, 1, h, w)` in [0, 1].
        sides: of the canvases before they were padded to one size, cells; empty if all have the model's.
        tiling: the windows that are denoised, or None where every canvas is one.
        given: what the anomaly branch is given, or None.
    """

    normal: Tensor
    start: Tensor
    grey: Tensor
    allowed: Tensor
    sides: tuple[int, ...] = ()
    tiling: Tiling | None = None
    given: GivenParts | None = None

    @cached_property
    def valid(self) -> Tensor | None:
        """Return where canvases of several sizes are not padded, `(B, 1, h, w)` in {0, 1}; None without any."""
        if not self.sides:
            return None
        height, width = self.normal.shape[-2:]
        return torch.stack(
            [F.pad(torch.ones(1, side, side), (0, width - side, 0, height - side)) for side in self.sides]
        )

    @cached_property
    def held(self) -> Tensor:
        """Return which pairs are kept near their place from the first step on, `(B,)` bool."""
        return self.canvases if self.given is None else self.canvases | self.given.rows

    @cached_property
    def canvases(self) -> Tensor:
        """Return which pairs are generated on more than one window, `(B,)` bool."""
        window = self.tiling.side if self.tiling is not None else 0
        sides = self.sides or (0,) * len(self.normal)
        return torch.tensor([side > window for side in sides], device=self.normal.device)


class Canvases:
    """Canvases of a batch, padded to the largest, and the windows in which they are denoised.

    Attributes:
        sides: model pixels.
        allowed: share of every latent cell where a defect may be, `(B, 1, h, w)`.
        tiling: the windows, or None where every canvas is one.

    Args:
        free: `(side, side)` bool, where a defect may be.
    """

    def __init__(self, model: DualAnoDiffModel, sides: Sequence[int], free: Sequence[MaskArray]) -> None:
        self.sides = sides
        self._model, self._factor = model, model.base.factor
        cells = F.avg_pool2d(self._padded(free), self._factor)
        own = [side // self._factor for side in sides]
        self.tiling = tile(cells[:, 0] > 0, own, model.config.resolution // self._factor)
        self.allowed = cells.to(model.device)

    @property
    def cells(self) -> tuple[int, ...]:
        """Return the sides before padding, latent cells; empty without windows."""
        return tuple(side // self._factor for side in self.sides) if self.tiling is not None else ()

    def encode(self, images: Sequence[ImageArray]) -> Tensor:
        """Encode images of the canvases, `(B, C, h, w)`; a large one window by window, 0 where there is none."""
        vae, device = self._model.vae, self._model.device
        if self.tiling is None:
            return encode(vae, to_pixels(images).to(device))
        canvases = torch.stack([_padded(to_pixels([image])[0], max(self.sides)) for image in images])
        windows = self.tiling.scaled(self._factor).cut(canvases).split(encode_batch(self._model.config.resolution))
        return self.tiling.join(torch.cat([encode(vae, each.to(device)) for each in windows]))

    def touched(self, masks: Sequence[MaskArray]) -> Tensor:
        """Return the cells, of those that are denoised, that masks touch, `(B, 1, h, w)` in {0, 1}."""
        covered = self.tiling.covered.float() if self.tiling is not None else 1.0
        return (covered * F.max_pool2d(self._padded(masks), self._factor)).to(self._model.device)

    def _padded(self, masks: Sequence[MaskArray]) -> Tensor:
        return torch.stack([_padded(torch.from_numpy(each)[None].float(), max(self.sides)) for each in masks])


def grey_latent(adapter: DualAnoDiffAdapter) -> Tensor:
    """Return the latent of mid-grey, `(1, C, 1, 1)`: `grey_cell` of the adapter's references."""
    model = adapter.model
    parts = [resize_image(anomaly_part(pair.image, pair.mask), model.config.resolution) for pair in adapter.references]
    return grey_cell(torch.cat([encode(model.vae, to_pixels([part]).to(model.device)) for part in parts]))[None]


def anchor_on(
    adapter: DualAnoDiffAdapter,
    anchors: Sequence[Anchor],
    rngs: Sequence[np.random.Generator],
    grey: Tensor,
    *,
    sketched: bool,
    copies: Sequence[CopyPaste | None] = (),
) -> Anchoring:
    """Encode what a batch starts from; a window border inside the photograph cuts off no defect that the model makes.

    Args:
        anchors: one per pair.
        rngs: the pairs' own sources of randomness.
        grey: see `grey_latent`.
        sketched: whether to start from a copy-paste initialisation, a randomly changed real defect on the normal.
        copies: one per pair, whose part the anomaly branch is given (see `draw_copy`), or None; empty for no parts.
    """
    model = adapter.model
    factor = model.base.factor
    given_copies = list(copies) or [None] * len(anchors)
    sides = [
        canvas_of(adapter, anchor) if copy is None else copy.mask.shape[0]
        for anchor, copy in zip(anchors, given_copies, strict=True)
    ]
    windows = [resize_image(anchor.pixels, side) for anchor, side in zip(anchors, sides, strict=True)]
    laid: list[CopyPaste] = []
    allowed: list[MaskArray] = []
    for number, (anchor, window, side, rng) in enumerate(zip(anchors, windows, sides, rngs, strict=True)):
        course, free = given_copies[number], open_area(anchor, side, factor)
        if course is None and (sketched or side > model.config.resolution):
            course = _sketch(adapter.references[anchor.place], window, anchor, ~free, rng)
            laid.append(course)
        allowed.append(
            open_area(anchor, side, margin_of(side // factor) * factor) if course is None else free & course.nearby
        )

    canvases = Canvases(model, sides, allowed)
    normal = canvases.encode(windows)
    start = torch.stack([normal, grey.expand_as(normal)])
    given = None
    if sketched:
        start = torch.stack(
            [canvases.encode([each.image for each in laid]), canvases.encode([each.part for each in laid])]
        )
    elif any(given_copies):
        given = give_parts(list(zip(given_copies, windows, strict=True)), canvases.encode, canvases.touched, grey)
        start = torch.stack([normal, given.parts])
    return Anchoring(normal, start, grey, canvases.allowed, canvases.cells, canvases.tiling, given)


def canvas_of(adapter: DualAnoDiffAdapter, anchor: Anchor) -> int:
    """Return the side of the canvas on which a pair is generated, model pixels; with BCM the model's own."""
    config = adapter.model.config
    if config.bcm:
        return config.resolution
    mask = adapter.references[anchor.place].mask
    return canvas_side(mask, round(anchor.window.side / anchor.size), config.view, config.resolution)


def open_area(anchor: Anchor, side: int, margin: int) -> MaskArray:
    """Return where a defect may be drawn in a window, `(side, side)` bool: not at borders that lie in the photograph.

    Args:
        margin: distance from such borders, pixels.
    """
    found = ~inner_border(anchor, side, margin)
    bounds = anchor.bounds_at(side)
    return found if bounds is None else found & bounds


def margin_of(cells: int) -> int:
    """Return how far a defect without a course keeps off borders, latent cells, in a window of `cells`."""
    return max(1, min(MARGIN, int(MOST_MARGIN * cells)))


def _sketch(
    reference: Pair, window: ImageArray, anchor: Anchor, inner: MaskArray, rng: np.random.Generator
) -> CopyPaste:
    """Lay a changed copy of a real defect on a window; where it may not lie everywhere, the best of some."""

    def draw_one() -> tuple[float, CopyPaste]:
        laid = draw_copy_paste(reference, window, inner, anchor.mirrored, rng)
        return laid.inside, laid

    return draw_best(draw_one, INSIDE, SKETCH_TRIES if anchor.bounds is not None else 0)


def _padded(values: Tensor, side: int) -> Tensor:
    """Pad `(..., h, w)` at the right and bottom."""
    return F.pad(values, (0, side - values.shape[-1], 0, side - values.shape[-2]))


def blend(clean: Tensor, anchoring: Anchoring) -> Tensor:
    """Anchor noise-free latents `(2, B, C, h, w)` of both branches.

    The part stays grey where no defect is allowed. The image is the normal outside the emerging defect.
    """
    image, part = clean
    part = _allowed_part(part, anchoring)
    defect = visible_defect(part, anchoring.grey)
    return _with_given(torch.stack([_image_within(defect, image, anchoring), part]), clean, anchoring)


def keep_to_course(clean: Tensor, anchoring: Anchoring) -> Tensor:
    """Keep noise-free latents `(2, B, C, h, w)` of canvases to where a defect is allowed, before it emerges there."""
    image, part = clean
    kept = torch.stack([_image_within(anchoring.allowed, image, anchoring), _allowed_part(part, anchoring)])
    return _with_given(kept, clean, anchoring)


def _with_given(blended: Tensor, clean: Tensor, anchoring: Anchoring) -> Tensor:
    return blended if anchoring.given is None else anchoring.given.keep(blended, clean, anchoring.normal)


def _allowed_part(part: Tensor, anchoring: Anchoring) -> Tensor:
    blank = anchoring.start[1]
    return blank + anchoring.allowed * (part - blank)


def _image_within(region: Tensor, image: Tensor, anchoring: Anchoring) -> Tensor:
    """Replace the image by the normal outside a region, and where nothing was denoised."""
    share = widened(region, anchoring.valid)
    if anchoring.tiling is not None:
        share = share * anchoring.tiling.covered.to(share)
    return anchoring.normal + share * (image - anchoring.normal)


def visible_defect(part: Tensor, grey: Tensor) -> Tensor:
    """Measure where a part's latents `(B, C, h, w)` differ from grey: `(B, 1, h, w)` in [0, 1]."""
    low, high = PART_VISIBLE
    distance = (part - grey).abs().mean(1, keepdim=True)
    return ((distance - low) / (high - low)).clamp(0, 1)


def widened(defect: Tensor, valid: Tensor | None = None) -> Tensor:
    """Widen a soft map `(B, 1, h, w)` by one latent cell, and smooth it.

    Args:
        valid: 1 where there is a canvas, 0 where it was padded; None where none was.
    """
    valid = torch.ones_like(defect) if valid is None else valid.to(defect)
    wide = F.max_pool2d(defect * valid, 3, stride=1, padding=1) * valid
    total, count = (F.avg_pool2d(each, 3, stride=1, padding=1, divisor_override=1) for each in (wide, valid))
    return total / count.clamp(min=1)
