"""Decides by their contrast on which pictures masks were drawn: stored or with the EXIF orientation, this or that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from service.core.uploads.images import ImageArray, MaskArray, Photograph

_CLEARLY = 1.25

_SURELY = 3.0
"""By this factor, and this contrast, a single mask decides for itself whatever the others say."""

_REACH = 8


def is_unturned(pairs: Sequence[tuple[Photograph, MaskArray]]) -> bool | None:
    """Whether the masks fit the stored pictures; None if both readings fit about equally well.

    One tool drew all masks, so they are decided together: by the mask's size if it fits only one reading, else by which
    reading has the greater contrast between the mask's inside and its surroundings.

    Args:
        pairs: pictures with an EXIF orientation, each with its mask.
    """
    sizes = [(_fits(photograph.stored, mask), _fits(photograph.turned(), mask)) for photograph, mask in pairs]
    decided = {stored for stored, seen in sizes if stored != seen}
    if len(decided) == 1:
        return decided.pop()
    both = [pair for pair, fit in zip(pairs, sizes, strict=True) if all(fit)]
    stored = sum(_contrast(photograph.stored, mask) for photograph, mask in both)
    seen = sum(_contrast(photograph.turned(), mask) for photograph, mask in both)
    if stored > _CLEARLY * seen:
        return True
    return False if seen > _CLEARLY * stored else None


def unturned(photograph: Photograph, mask: MaskArray, *, preferred: bool | None) -> bool | None:
    """Whether this mask fits the stored picture: by its size, by a clear contrast, or else as preferred."""
    seen_image = photograph.turned()
    stored, seen = _fits(photograph.stored, mask), _fits(seen_image, mask)
    if stored != seen:
        return stored
    contrasts = _contrast(photograph.stored, mask), _contrast(seen_image, mask)
    if max(contrasts) > _SURELY * max(1.0, min(contrasts)):
        return contrasts[0] > contrasts[1]
    return preferred


def lie_on_their_own(pairs: Sequence[tuple[Photograph, MaskArray]]) -> bool:
    """Whether each mask has a clearly greater contrast on its own picture than on any other of the same size."""
    own, highest = [0.0] * len(pairs), [0.0] * len(pairs)
    for place, (photograph, _) in enumerate(pairs):
        picture = photograph.turned()
        for number, (_, mask) in enumerate(pairs):
            if not _fits(picture, mask):
                continue
            contrast = _contrast(picture, mask)
            if number == place:
                own[number] = contrast
            else:
                highest[number] = max(highest[number], contrast)
    return all(mine >= _CLEARLY * others for mine, others in zip(own, highest, strict=True))


def _fits(image: NDArray[np.uint8], mask: MaskArray) -> bool:
    return image.shape[:2] == mask.shape


def _contrast(image: ImageArray, mask: MaskArray) -> float:
    """Distance between the means of the mask's inside and of a ring around it, in standard deviations of the ring."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    around = tuple(slice(max(0, int(places[0]) - _REACH), int(places[-1]) + _REACH + 1) for places in (rows, columns))
    inside, picture = mask[around], image[around].astype(np.float32)
    drawn = Image.fromarray(inside.astype(np.uint8))
    near, far = (np.asarray(drawn.filter(ImageFilter.MaxFilter(size))) > 0 for size in (5, 13))
    ring = far & ~near
    if not ring.any():
        return 0.0
    apart = abs(picture[inside].mean(axis=0) - picture[ring].mean(axis=0)) / (picture[ring].std(axis=0) + 1)
    return float(apart.max())
