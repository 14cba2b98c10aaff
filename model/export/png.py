"""Encodes pixels as PNG files."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from model.types import ImageArray, MaskArray

COMPRESSION = 6
"""zlib's default level, stated because the bytes of a dataset depend on it."""


def encode_image(image: ImageArray) -> bytes:
    """Encode `(H, W, 3)` uint8 as an RGB PNG."""
    return encode_png(Image.fromarray(image))


def encode_mask(mask: MaskArray) -> bytes:
    """Encode `(H, W)` bool as an 8-bit grey PNG, 0 and 255."""
    return encode_png(Image.fromarray(mask.astype(np.uint8) * 255))


def encode_png(image: Image.Image) -> bytes:
    """Encode an image; the same pixels give the same bytes."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=COMPRESSION)
    return buffer.getvalue()
