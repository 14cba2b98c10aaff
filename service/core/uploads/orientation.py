"""Whether masks were drawn on the picture as it is stored, or as its EXIF orientation turns it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from service.core.uploads.images import ImageArray, MaskArray, Photograph, turned

_CLEARLY = 1.25
_REACH = 8


def is_unturned(pairs: Sequence[tuple[Photograph, MaskArray]]) -> bool | None:
    """Whether the masks lie on the stored pictures; None where both readings fit about as well.

    One tool drew all of them, so all are asked: where only one reading has the mask's size, that one; elsewhere the one
    in which the mask's inside differs more from what lies around it.

    Args:
        pairs: pictures with an orientation, each with its mask.
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


def unturned(photograph: Photograph, mask: MaskArray, *, preferred: bool) -> bool:
    """Whether this mask lies on the stored picture: as its size says, or else as preferred."""
    stored = _fits(photograph.stored, mask)
    seen = _fits(turned(photograph.stored[..., 0], photograph.orientation), mask)
    return preferred if stored == seen else stored


def _fits(image: NDArray[np.uint8], mask: MaskArray) -> bool:
    return image.shape[:2] == mask.shape


def _contrast(image: ImageArray, mask: MaskArray) -> float:
    """How far the inside's mean lies from the ring's around it, in the ring's deviations."""
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
