"""Masks that a person drew, as base64 of a PNG in a JSON body: checked, and encoded anew."""

from __future__ import annotations

import base64
from collections.abc import Set as AbstractSet

from PIL import Image

from service.api.pair_pictures import encoded
from service.core.errors import UsageError
from service.core.places import some_of
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.formats import image_format
from service.core.uploads.images import read_mask
from service.core.uploads.mask_values import UnclearMaskError

_DATA_URL = "data:image/png;base64,"
"""What `canvas.toDataURL` puts before the base64."""

_HEADER = 24
"""Bytes of a PNG up to the end of its width and height."""


def drawn_mask(text: str, sizes: AbstractSet[tuple[int, int]], of: str) -> str:
    """Check a mask and encode it anew, as base64 of a PNG of 0 and 255.

    It is read as uploaded masks are: what is painted on a transparent layer is the defect, and so is 1 beside 0.

    Args:
        text: base64 of a PNG, also as a data URL.
        sizes: width and height that it may have.
        of: whose mask it is, in words.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        content = base64.b64decode(text.removeprefix(_DATA_URL), validate=True)
    except ValueError as error:
        raise ValueError(f"the mask of {of} is not base64 of a PNG") from error
    if image_format(content[:12]) != "PNG" or len(content) < _HEADER:
        raise ValueError(f"the mask of {of} is not base64 of a PNG")
    size = int.from_bytes(content[16:20]), int.from_bytes(content[20:_HEADER])
    _require(size, sizes, of)  # before anything is decoded
    try:
        mask, _ = read_mask(content, f"of {of}", ImageLimits(min_side=1, max_pixels=size[0] * size[1]))
    except UnclearMaskError as error:
        raise ValueError(
            f"the mask of {of} has several values, and it is unclear which are the defect: draw it white on black"
        ) from error
    except UsageError as error:
        raise ValueError(f"the {error}") from error
    _require(mask.shape[::-1], sizes, of)  # it may be turned
    return base64.b64encode(encoded(Image.fromarray(mask).convert("L"))).decode("ascii")


def _require(size: tuple[int, ...], sizes: AbstractSet[tuple[int, int]], of: str) -> None:
    if size not in sizes:
        right = some_of([f"{width} × {height}" for width, height in sorted(sizes)], 4, " or ")
        raise ValueError(f"the mask of {of} is {size[0]} × {size[1]} pixels, its image {right}")
