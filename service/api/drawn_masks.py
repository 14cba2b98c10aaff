"""Masks that a person drew, as base64 of a PNG in a JSON body: checked, and encoded anew."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Set as AbstractSet

from PIL import Image

from service.api.pair_pictures import encoded
from service.core.places import some_of


def drawn_mask(text: str, sizes: AbstractSet[tuple[int, int]], of: str) -> str:
    """Check a mask and encode it anew, as base64 of a PNG of 0 and 255.

    Args:
        sizes: width and height that it may have.
        of: whose mask it is, in words.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as file:
            if file.size not in sizes:  # known before anything is decoded
                right = some_of([f"{width} × {height}" for width, height in sorted(sizes)], 4, " or ")
                raise ValueError(f"the mask of {of} is {file.width} × {file.height} pixels, its image {right}")
            grey = file.convert("RGBA").convert("L")
    except (OSError, SyntaxError, binascii.Error) as error:
        raise ValueError(f"the mask of {of} is not base64 of a PNG") from error
    binary = grey.point(lambda level: 255 * (level > 127))
    low, high = binary.getextrema()
    if low == high:
        raise ValueError(f"the mask of {of} is {'full' if high else 'empty'}")
    return base64.b64encode(encoded(binary)).decode("ascii")
