"""Decodes sampled latents to images and masks on the device, and turns these into candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.data.pixels import to_images
from model.data.placement import Anchor, paste, place_part
from model.diffusion.vae import decode
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.model import DualAnoDiffModel
from model.dualanodiff.sampling.anchoring import Anchoring
from model.masks.extraction import attention_mask, threshold_mask, tidy_mask, u2net_masks
from model.runtime.timing import stage
from model.types import Candidate, ImageArray, MaskArray
from service.core.options.common import MaskMethod


@dataclass(frozen=True, slots=True)
class DecodedPair:
    """A sampled pair that still needs to be completed, without any network.

    Attributes:
        index, seed: index and seed of the candidate.
        image, part: `(r, r, 3)` uint8.
        mask: `(r, r)` bool as the mask network found it, or None.
        attention: `(h, w)` map of the anomaly branch, or None; without either, the mask is found by threshold.
        anchor: the window it was generated on, or None.
        reconstructed: `(r, r, 3)` uint8, that window after the autoencoder, or None.
    """

    index: int
    seed: int
    image: ImageArray
    part: ImageArray
    mask: MaskArray | None
    attention: NDArray[np.floating] | None
    anchor: Anchor | None
    reconstructed: ImageArray | None

    def to_candidate(self) -> Candidate:
        """Tidy the mask, paste the pair into its normal image if it has one, and return the candidate."""
        with stage("mask"):
            mask = tidy_mask(self._found())
            if self.anchor is None or self.reconstructed is None:
                return Candidate(self.index, self.seed, self.image, mask, self.part)
            image, placed = paste(self.anchor, self.image, self.reconstructed, mask)
            part = place_part(self.anchor, self.part)
        return Candidate(self.index, self.seed, image, placed, part, self.anchor.normal.name, self.anchor.window.box)

    def _found(self) -> MaskArray:
        if self.mask is not None:
            return self.mask
        if self.attention is not None:
            return attention_mask(self.attention, self.part.shape[:2])
        return threshold_mask(self.part)


def decode_pairs(
    adapter: DualAnoDiffAdapter,
    method: MaskMethod,
    latents: Tensor,
    indices: Sequence[int],
    seeds: Sequence[int],
    *,
    attention: NDArray[np.floating] | None,
    anchors: Sequence[Anchor] | None,
    anchoring: Anchoring | None,
) -> list[DecodedPair]:
    """Decode a batch and find its defects.

    Args:
        latents: `(2, B, C, h, w)` of images and parts.
        attention: `(B, h, w)`, or None.
        anchors, anchoring: as in anchored sampling; None without.
    """
    grey = bool(adapter.card["greyscale"])
    with stage("decode"):
        images, parts = (_pictures(adapter.model, branch, grey=grey) for branch in latents)
        normals = _pictures(adapter.model, anchoring.normal, grey=grey) if anchoring is not None else None
    masks = None
    if method is MaskMethod.U2NET and adapter.mask_net is not None:
        with stage("mask"):
            masks = u2net_masks(adapter.mask_net, parts)
    return [
        DecodedPair(
            index,
            seed,
            images[row],
            parts[row],
            masks[row] if masks is not None else None,
            attention[row] if attention is not None else None,
            anchors[row] if anchors is not None else None,
            normals[row] if normals is not None else None,
        )
        for row, (index, seed) in enumerate(zip(indices, seeds, strict=True))
    ]


def _pictures(model: DualAnoDiffModel, latents: Tensor, *, grey: bool) -> list[ImageArray]:
    """Decode latents; remove the base's tint if the photographs are grey."""
    pixels = decode(model.vae, latents)
    return to_images(pixels.mean(1, keepdim=True).expand_as(pixels) if grey else pixels)
