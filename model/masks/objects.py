"""Finds products in photographs, with a U²-Net."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from model.data.placement import NormalImage
from model.kernels.batch_invariance import FIXED_BATCH
from model.masks.extraction import u2net_masks
from model.masks.u2net import U2Net
from model.types import Candidate, ImageArray, MaskArray

EMPTY_FRAME, FULL_FRAME = 0.02, 0.9
"""Range of the share of an image that an object covers; outside of it, the image shows a surface."""

OBJECT_SIDE = 128
"""Longer side, in pixels, of the images in which objects are searched."""


class Objects:
    """Finds products; once per normal image, since a defect does not move the product.

    Results are `(H, W)` bool, or None if there is no object or the object fills the image, as a surface does.
    """

    def __init__(self, net: U2Net, normals: Sequence[NormalImage]) -> None:
        self.net = net
        self.normals = {normal.name: normal.image for normal in normals}
        self.found: dict[str, MaskArray | None] = {}

    def in_candidate(self, candidate: Candidate) -> MaskArray | None:
        """Find the product in a candidate, or in the normal image that it was generated on."""
        return self._find([candidate.image])[0] if candidate.normal is None else self.in_normal(candidate.normal)

    def in_normal(self, name: str) -> MaskArray | None:
        """Find the product in the normal image of this name."""
        if name not in self.found:
            names = self._with_others(name)
            self.found.update(zip(names, self._find([self.normals[each] for each in names]), strict=True))
        return self.found[name]

    def _with_others(self, name: str) -> list[str]:
        """Return a normal image and some that were not searched yet, to fill the batch that a CPU computes anyway."""
        shape = self.normals[name].shape
        others = (
            other
            for other, image in self.normals.items()
            if other != name and other not in self.found and image.shape == shape
        )
        return [name, *itertools.islice(others, FIXED_BATCH - 1)]

    def _find(self, images: Sequence[ImageArray]) -> list[MaskArray | None]:
        height, width = images[0].shape[:2]
        scale = OBJECT_SIDE / max(height, width)
        size = max(32, round(width * scale)), max(32, round(height * scale))
        small = [np.asarray(Image.fromarray(image).resize(size)) for image in images]
        return [
            np.asarray(Image.fromarray(found).resize((width, height)))
            if EMPTY_FRAME < found.mean() < FULL_FRAME
            else None
            for found in u2net_masks(self.net, small)
        ]
