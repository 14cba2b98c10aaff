"""Decodes sampled latents to images and masks on the device, and turns these into candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data.crops import resize_image, resize_mask
from model.data.detail import RealDetail
from model.data.laying import Generated, change_by, fade_around, lay_coarse
from model.data.pixels import to_images
from model.data.placement import Anchor, feathered, place_mask, place_part
from model.diffusion.vae import decode, encode_batch
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.model import DualAnoDiffModel
from model.dualanodiff.sampling.anchoring import Anchoring, open_area
from model.masks.extraction import attention_mask, match_change, threshold_mask, tidy_mask, u2net_probabilities
from model.quality.contrast import RealContrast, find_scale, lay_scaled
from model.runtime.timing import stage
from model.types import GREY, Candidate, ImageArray, MaskArray
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig


@dataclass(frozen=True, slots=True)
class DecodedPair:
    """A sampled pair that still needs to be completed, without any network.

    Attributes:
        index, seed: index and seed of the candidate.
        image, part: `(s, s, 3)` uint8; s is the canvas's side, mostly the model's resolution.
        mask: `(s, s)` bool as the mask network found it, or None.
        attention: `(h, w)` map of the anomaly branch, or None; without either, the mask is found by threshold.
        anchor: the window it was generated on, or None.
        reconstructed: `(s, s, 3)` uint8, that window after the autoencoder, or None.
        detail: of the real defects; None to add none.
        contrast: of the real defects, for an exact given part; None to leave it as it was drawn.
        given: whether the anomaly branch was given the part; `mask` is that of the part then.
        exact: whether a given part's mask is the pair's; if not, the image fills it as far as it does, and becomes as
            bright as the part. True where none is given.
        reach: how far outwards the mask may follow the change of the good part, pixels; 0 to leave it as it was found.
            The part is grey where the mask moved: it showed no defect there, or the image shows none.
    """

    index: int
    seed: int
    image: ImageArray
    part: ImageArray
    mask: MaskArray | None
    attention: NDArray[np.floating] | None
    anchor: Anchor | None
    reconstructed: ImageArray | None
    detail: RealDetail | None = None
    contrast: RealContrast | None = None
    given: bool = False
    exact: bool = True
    reach: int = 0

    def to_candidate(self) -> Candidate:
        """Tidy the mask, paste the pair into its normal image if it has one, and return the candidate."""
        with stage("mask"):
            if self.anchor is None or self.reconstructed is None:
                return Candidate(self.index, self.seed, self.image, self._found(), self.part)
            before, scores = within_bounds(self._found(), self.anchor)
            mask, drawn = self._shown(before, self.anchor, self.reconstructed)
            found, placed = place_mask(self.anchor, before), place_mask(self.anchor, mask)
            image = self._laid(self.anchor, drawn, self.reconstructed, mask, placed)
            filled, good = placed, self.anchor.normal.image
            if self.given and self.detail is not None and self.detail.levels is not None:
                placed = self.detail.levels.end_with_change(filled, image, good)
            beside = filled & ~placed
            if self.anchor.bounds is not None:
                placed &= self.anchor.bounds
            part = self._placed_part(self.anchor, placed)
            image[beside], part[beside] = good[beside], GREY
            if self.reach:
                part[found ^ placed] = GREY
        normal, window = self.anchor.normal.name, self.anchor.window.box
        return Candidate(self.index, self.seed, image, placed, part, normal, window, scores)

    def enlarged(self, side: int) -> tuple[ImageArray, ImageArray, MaskArray]:
        """Return image, part and mask of a pair on a normal, `(side, side)`.

        The image is the window of the normal at that size, with the defect enlarged on it.
        """
        if self.anchor is None or self.reconstructed is None:
            raise ValueError("the pair was not generated on a normal")
        mask, drawn = self._shown(within_bounds(self._found(), self.anchor)[0], self.anchor, self.reconstructed)
        image = lay_coarse(self._generated(drawn, self.reconstructed, mask), resize_image(self.anchor.pixels, side))
        return image, resize_image(self.part, side), resize_mask(mask, side)

    def _shown(self, found: MaskArray, anchor: Anchor, reconstructed: ImageArray) -> tuple[MaskArray, ImageArray]:
        """Return where the image shows the defect, and the image, as bright there as a part that was given."""
        mask = found
        if self.reach:
            free = open_area(anchor, mask.shape[0], self.reach)
            mask = match_change(found, self.image, reconstructed, self.reach) & (free | found)
        return mask, self.image if self.exact else as_bright(self.image, self.part, mask, found & mask)

    def _generated(self, drawn: ImageArray, reconstructed: ImageArray, mask: MaskArray) -> Generated:
        alpha = fade_around(mask) if self.given else feathered(mask)
        return Generated(drawn.astype(np.float32), reconstructed.astype(np.float32), alpha, self.given)

    def _laid(
        self, anchor: Anchor, drawn: ImageArray, reconstructed: ImageArray, mask: MaskArray, placed: MaskArray
    ) -> ImageArray:
        """Lay what was generated on the normal image, see `model.data.laying`."""
        generated = self._generated(drawn, reconstructed, mask)
        window = anchor.window.slices
        image = anchor.normal.image.copy()
        size = (anchor.window.side,) * 2
        surface, defect = image[window], placed[window]
        change = change_by(generated, surface, defect, size, self.detail, self.seed)
        scale = 1.0
        if self.given and self.contrast is not None and defect.any():
            scale = find_scale(self.contrast.draw(self.seed), change, surface, defect)
        image[window] = lay_scaled(change, surface, scale, np.ones_like(defect))
        return image

    def _placed_part(self, anchor: Anchor, placed: MaskArray) -> ImageArray:
        """Place the part; its defect has the levels of the image's, with which it is compared."""
        part = place_part(anchor, self.part)
        if self.detail is not None and self.detail.levels is not None:
            part[placed] = self.detail.levels.nearest(part)[placed].astype(np.uint8)
        return part

    def _found(self) -> MaskArray:
        if self.mask is not None:
            return self.mask if self.given else tidy_mask(self.mask)
        if self.attention is not None:
            return tidy_mask(attention_mask(self.attention, self.part.shape[:2]))
        return tidy_mask(threshold_mask(self.part))


def as_bright(drawn: ImageArray, part: ImageArray, mask: MaskArray, shown: MaskArray) -> ImageArray:
    """Make what was drawn in a mask as bright as the part that was given, on average: guidance towards it overshoots.

    A hole gets darker than what shows through it. All of it gets lighter by the same, since a weaker change would let
    the surface through instead.

    Args:
        drawn, part: `(s, s, 3)` uint8.
        mask: `(s, s)` bool; the difference fades out around it.
        shown: `(s, s)` bool, where image and part both show the defect.
    """
    if not shown.any():
        return drawn
    difference = float((part[shown].astype(np.float32) - drawn[shown]).mean())
    return np.clip(drawn + difference * fade_around(mask)[..., None], 0, 255).round().astype(np.uint8)


def within_bounds(mask: MaskArray, anchor: Anchor) -> tuple[MaskArray, dict[str, float]]:
    """Cut off what of a mask lies where no defect may.

    Args:
        mask: `(s, s)` bool, of the anchor's window.

    Returns:
        Also the share that lay where the user wants none, as a score for the checks, if there is such a place.
    """
    bounds, wanted = anchor.bounds_at(mask.shape[0]), anchor.wanted_at(mask.shape[0])
    scores = {} if wanted is None or not mask.any() else {"outside_region": 1 - float(wanted[mask].mean())}
    return mask if bounds is None else mask & bounds, scores


def decode_pairs(
    adapter: DualAnoDiffAdapter,
    config: SamplingConfig,
    latents: Tensor,
    indices: Sequence[int],
    seeds: Sequence[int],
    *,
    attention: NDArray[np.floating] | None,
    anchors: Sequence[Anchor] | None,
    anchoring: Anchoring | None,
    detail: RealDetail | None = None,
    contrast: RealContrast | None = None,
) -> list[DecodedPair]:
    """Decode a batch and find its defects.

    Args:
        config: says how masks are found.
        latents: `(2, B, C, h, w)` of images and parts.
        attention: `(B, h, w)`, or None.
        anchors, anchoring: as in anchored sampling; None without.
        detail, contrast: of the real defects, for anchored sampling.
    """
    tiling = anchoring.tiling if anchoring is not None else None
    fine = tiling.scaled(adapter.base.factor) if tiling is not None else None
    grey = bool(adapter.card["greyscale"])
    at_once = len(indices)
    if adapter.model.device.type == "cpu":
        at_once = max(at_once, encode_batch(adapter.resolution))

    def decoded(branch: Tensor) -> Tensor:
        windows = branch if tiling is None else tiling.cut(branch)
        return torch.cat([_pixels(adapter.model, chunk, grey=grey) for chunk in windows.split(at_once)])

    def joined(windows: Tensor) -> Tensor:
        return windows if fine is None else fine.join(windows)

    with stage("decode"):
        image_windows, part_windows = (decoded(branch) for branch in latents)
        if anchoring is not None and fine is not None:
            # Group normalisation makes patterns of windows that are grey all over.
            shown = (anchoring.allowed > 0) | ~anchoring.canvases[:, None, None, None]
            part_windows = part_windows * fine.cut(_finer(shown, adapter.base.factor))
        images, parts = to_images(joined(image_windows)), to_images(joined(part_windows))
        normals = to_images(joined(decoded(anchoring.normal))) if anchoring is not None else None
    masks = None
    if config.mask_method is MaskMethod.U2NET and adapter.mask_net is not None:
        with stage("mask"):
            found = joined(u2net_probabilities(adapter.mask_net, to_images(part_windows)))
            masks = list((found[:, 0] > 0.5).cpu().numpy())
    factor = adapter.base.factor
    sides = [side * factor for side in anchoring.sides] if anchoring is not None and tiling is not None else None

    def own(values: NDArray[Any], row: int, scale: int = 1) -> NDArray[Any]:
        """Cut off what a canvas was padded by."""
        return values if sides is None else values[: sides[row] // scale, : sides[row] // scale]

    copies = anchoring.given.copies if anchoring is not None and anchoring.given is not None else [None] * len(indices)

    def mask_of(row: int) -> MaskArray | None:
        copy = copies[row]
        if copy is not None:
            return copy.mask
        return own(masks[row], row) if masks is not None else None

    return [
        DecodedPair(
            index,
            seed,
            own(images[row], row),
            copy.part if copy is not None else own(parts[row], row),
            mask_of(row),
            own(attention[row], row, factor) if attention is not None else None,
            anchors[row] if anchors is not None else None,
            own(normals[row], row) if normals is not None else None,
            detail=detail,
            contrast=contrast if copy is not None and copy.exact else None,
            given=copy is not None,
            exact=copy is None or copy.exact,
            reach=factor if config.match_mask and not (copy is not None and copy.exact) else 0,
        )
        for row, (index, seed, copy) in enumerate(zip(indices, seeds, copies, strict=True))
    ]


def _pixels(model: DualAnoDiffModel, latents: Tensor, *, grey: bool) -> Tensor:
    """Decode latents; remove the base's tint if the photographs are grey."""
    pixels = decode(model.vae, latents)
    return pixels.mean(1, keepdim=True).expand_as(pixels) if grey else pixels


def _finer(cells: Tensor, factor: int) -> Tensor:
    """Repeat every cell `(B, 1, h, w)` as `factor` × `factor` pixels, as 0 and 1."""
    return cells.float().repeat_interleave(factor, -1).repeat_interleave(factor, -2)
