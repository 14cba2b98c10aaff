"""Anchors sampling on normal images: prepares what a batch starts from, and keeps the background.

The global branch starts from the noised normal; in the last steps its latents outside the emerging defect are those of
the normal. The anomaly branch starts from grey, or both start from a copy-paste initialisation (see
`model.data.copy_paste`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.data.copy_paste import draw_copy_paste
from model.data.crops import resize_image
from model.data.pixels import to_pixels
from model.data.placement import Anchor, inner_border
from model.diffusion.vae import encode
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.latent_dataset import grey_cell
from model.types import ImageArray, anomaly_part

PART_VISIBLE = (0.15, 0.45)
"""A part's latent differs from grey by less than the first where there is no defect, by more than the second where
there is; in units of the latents' deviation (1 after the scaling factor)."""


@dataclass(frozen=True, slots=True)
class Anchoring:
    """Latents that a batch is anchored on, at the model's resolution.

    Attributes:
        normal: latents of the normal images' windows, `(B, C, h, w)`.
        start: latents that sampling starts from after noise is added, `(2, B, C, h, w)`.
        grey: latent of mid-grey, `(1, C, 1, 1)`.
        allowed: where a defect may be, `(B, 1, h, w)` in [0, 1].
    """

    normal: Tensor
    start: Tensor
    grey: Tensor
    allowed: Tensor


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
) -> Anchoring:
    """Encode what a batch starts from; a window border inside the photograph cuts off no defect.

    Args:
        anchors: one per pair.
        rngs: the pairs' own sources of randomness.
        grey: see `grey_latent`.
        sketched: whether to start from a copy-paste initialisation, a randomly changed real defect on the normal.
    """
    model = adapter.model
    side, factor = model.config.resolution, model.base.factor

    def encoded(images: Sequence[ImageArray]) -> Tensor:
        return encode(model.vae, to_pixels(images).to(model.device))

    windows = [resize_image(anchor.pixels, side) for anchor in anchors]
    normal = encoded(windows)
    allowed = [~inner_border(anchor, side, factor) for anchor in anchors]
    start = torch.stack([normal, grey.expand_as(normal)])
    if sketched:
        pasted = [
            draw_copy_paste(adapter.references[anchor.place], window, ~inside, anchor.mirrored, rng)
            for anchor, window, inside, rng in zip(anchors, windows, allowed, rngs, strict=True)
        ]
        start = torch.stack([encoded([each.image for each in pasted]), encoded([each.part for each in pasted])])
        allowed = [inside & each.nearby for inside, each in zip(allowed, pasted, strict=True)]
    cells = F.avg_pool2d(torch.from_numpy(np.stack(allowed)).float()[:, None], factor).to(model.device)
    return Anchoring(normal, start, grey, cells)


def blend(clean: Tensor, anchoring: Anchoring) -> Tensor:
    """Anchor noise-free latents `(2, B, C, h, w)` of both branches.

    The part stays grey where no defect is allowed. The image is the normal outside the emerging defect.
    """
    image, part = clean
    blank = anchoring.start[1]
    part = blank + anchoring.allowed * (part - blank)
    defect = visible_defect(part, anchoring.grey)
    return torch.stack([anchoring.normal + widened(defect) * (image - anchoring.normal), part])


def visible_defect(part: Tensor, grey: Tensor) -> Tensor:
    """Measure where a part's latents `(B, C, h, w)` differ from grey: `(B, 1, h, w)` in [0, 1]."""
    low, high = PART_VISIBLE
    distance = (part - grey).abs().mean(1, keepdim=True)
    return ((distance - low) / (high - low)).clamp(0, 1)


def widened(defect: Tensor) -> Tensor:
    """Widen a soft map by one latent cell, and smooth it."""
    return F.avg_pool2d(F.max_pool2d(defect, 3, stride=1, padding=1), 3, stride=1, padding=1, count_include_pad=False)
