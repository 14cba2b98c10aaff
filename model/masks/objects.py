"""Finds products in photographs, with a U²-Net, and by their backdrop where the network sees none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.spatial import ConvexHull

from model.data.placement import NormalImage
from model.kernels.batch_invariance import FIXED_BATCH
from model.masks.backdrop import stands_out
from model.masks.extraction import u2net_masks
from model.masks.u2net import U2Net
from model.types import Candidate, ImageArray, MaskArray, Pair

EMPTY_FRAME, FULL_FRAME = 0.02, 0.9
"""Range of the share of an image that an object covers; outside of it, the image shows a surface."""

WITHIN, REACHING = 0.2, 0.5
"""Share of the image's border that an object covers: up to the first it lies before a background, up to the second it
may be one that reaches beyond the image, if it is `SOLID`; more is a surface."""

SOLID = 0.8
"""Least share of its convex hull that an object covers which reaches beyond the image; a surface's pattern has less."""

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
            images = [self.normals[each] for each in names]
            for each, image, seen in zip(names, images, self._find(images), strict=True):
                self.found[each] = by_backdrop(image) if seen is None else seen
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
        found = find_objects(self.net, images)
        return [mask if shows_object(mask) else None for mask in found]


def find_objects(net: U2Net, images: Sequence[ImageArray]) -> list[MaskArray]:
    """Find the object in each image, `(H, W)` bool; the mask may be empty or full.

    Args:
        net: a U²-Net that finds objects.
        images: `(H, W, 3)` uint8 each, all of one size.
    """
    height, width = images[0].shape[:2]
    scale = OBJECT_SIDE / max(height, width)
    size = max(32, round(width * scale)), max(32, round(height * scale))
    small = [np.asarray(Image.fromarray(image).resize(size)) for image in images]
    return [np.asarray(Image.fromarray(found).resize((width, height))) for found in u2net_masks(net, small)]


def by_backdrop(image: ImageArray) -> MaskArray | None:
    """Find the product as what stands out from its backdrop; None if nothing does.

    A defect stands out from a surface, too: see `find_products` for photographs with one.
    """
    height, width = image.shape[:2]
    scale = min(1.0, OBJECT_SIDE / max(height, width))
    small = Image.fromarray(image).resize((max(1, round(width * scale)), max(1, round(height * scale))))
    found = stands_out(np.asarray(small))
    if found is None or not shows_object(found):
        return None
    return np.asarray(Image.fromarray(found).resize((width, height)))


def whole_object(found: MaskArray) -> MaskArray:
    """Return the convex hull of an object mask that is not empty: what a photograph of a broken part has lost belongs.

    Args:
        found: `(H, W)` bool.
    """
    rows = np.flatnonzero(found.any(axis=1))
    left, right = found.argmax(axis=1)[rows], found.shape[1] - found[:, ::-1].argmax(axis=1)[rows]
    # The corners of the outermost pixels, so that an object one pixel wide has a hull too.
    corners = np.stack([np.tile(np.concatenate([left, right]), 2), np.concatenate([rows, rows, rows + 1, rows + 1])], 1)
    outline = corners[ConvexHull(corners).vertices]
    first, last = np.full(len(found), np.inf), np.full(len(found), -np.inf)
    middles = np.arange(len(found)) + 0.5
    for (x, y), (next_x, next_y) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        crossed = (middles > min(y, next_y)) & (middles < max(y, next_y))
        crossing = x + (middles[crossed] - y) / (next_y - y) * (next_x - x)
        first[crossed], last[crossed] = np.minimum(first[crossed], crossing), np.maximum(last[crossed], crossing)
    centres = np.arange(found.shape[1]) + 0.5
    hull: MaskArray = (centres >= first[:, None]) & (centres <= last[:, None])
    return hull


def find_products(net: U2Net, pairs: Sequence[Pair]) -> list[MaskArray | None]:
    """Find the product in photographs with defects, `(H, W)` bool each; None where none stands out.

    Where the network finds none, what stands out from the backdrop is taken, unless it is the defect. Where both
    together find a product in less than half of the photographs, the network alone counts: of one kind of product,
    either most show a backdrop or none does.
    """
    seen = [find_objects(net, [pair.image])[0] for pair in pairs]
    by_network = [found if shows_object(found) else None for found in seen]
    by_colour = [_beyond_defect(by_backdrop(pair.image), pair.mask) for pair in pairs]
    either = [first if first is not None else second for first, second in zip(by_network, by_colour, strict=True)]
    return either if 2 * sum(found is not None for found in either) >= len(pairs) else by_network


def _beyond_defect(found: MaskArray | None, defect: MaskArray) -> MaskArray | None:
    """Return what was found, unless most of it is the defect."""
    return None if found is None or 2 * (found & defect).sum() > found.sum() else found


def off_object_share(net: U2Net, pairs: Sequence[Pair]) -> float:
    """Measure the largest share of a real defect that lies off its product, in [0, 1]; 0 where no product stands out.

    The product is the convex hull of what is found, which is the pieces that are left: of the gap in a broken part,
    most shows what lies behind it, and yet it lies on the part as it was.
    """
    shares = (
        float((pair.mask & ~whole_object(found)).sum() / pair.mask.sum())
        for pair, found in zip(pairs, find_products(net, pairs), strict=True)
        if found is not None
    )
    return max(shares, default=0.0)


def shows_object(found: MaskArray) -> bool:
    """Return whether an object mask shows an object before a background, not nothing or a surface."""
    if not EMPTY_FRAME < found.mean() < FULL_FRAME:
        return False
    border = float(np.concatenate([found[0], found[-1], found[1:-1, 0], found[1:-1, -1]]).mean())
    return border <= WITHIN or (border <= REACHING and found.sum() >= SOLID * whole_object(found).sum())
