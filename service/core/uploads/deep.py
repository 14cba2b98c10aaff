"""Decodes pictures with more than 8 bits per channel, of which Pillow keeps only a part."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Mapping
from io import BytesIO
from typing import Any, TypeGuard

import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    PREDICTOR,
    ROWSPERSTRIP,
    SAMPLESPERPIXEL,
    STRIPBYTECOUNTS,
    STRIPOFFSETS,
    TILEBYTECOUNTS,
    TILELENGTH,
    TILEOFFSETS,
    TILEWIDTH,
    TiffImageFile,
)

from service.core.errors import UsageError
from service.core.uploads.brightness import Deep
from service.core.uploads.metadata import StrippedFile

_SEPARATE, _LONG = 2, 4
_SHARED_BY_PLANES = {IMAGEWIDTH, IMAGELENGTH, COMPRESSION, PREDICTOR, ROWSPERSTRIP, TILEWIDTH, TILELENGTH}


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture has more than 8 bits per channel."""
    return image.mode.startswith("I") or _deep_rawmode(image) is not None or _has_deep_planes(image)


def decode_deep(file: StrippedFile, kind: str, label: str) -> tuple[Image.Image, Deep | None]:
    """Decode a picture with 8 bits per channel, and with all bits if it has more.

    Returns:
        The picture, and grey `(H, W)` or colours `(H, W, 3)`, or None.
    """
    image = _opened(file.data, kind)
    rawmode = _deep_rawmode(image)
    if _has_deep_planes(image):
        return _of_planes(file.data, image)
    if rawmode is not None:
        return _of_sixteen_bits(file.data, kind, rawmode)
    premultiplied = any("RGBa" in str(tile.args) for tile in image.tile)
    image.load()
    if premultiplied and image.getchannel("A").getextrema() == (0, 0):
        # Dividing by this alpha would make every pixel black.
        image = _opened(file.data, kind)
        more = [tile.args[1:] if isinstance(tile.args, tuple) else () for tile in image.tile]
        image.tile = [tile._replace(args=("RGBA", *rest)) for tile, rest in zip(image.tile, more, strict=True)]
        image.load()
    return image, _integers(image, label, inverted=file.inverted) if image.mode.startswith("I") else None


def _opened(data: bytes, kind: str) -> ImageFile.ImageFile:
    return Image.open(BytesIO(data), formats=[kind])


def _deep_rawmode(image: Image.Image) -> str | None:
    """Return Pillow's raw mode of a picture with 16 bits per channel of colour or grey with alpha, else None."""
    found = re.search(
        r"(?:RGB[AX]?|LA|[RGBA]);16[BLN]", " ".join(str(tile.args) for tile in getattr(image, "tile", ()))
    )
    return found[0] if found and image.mode in {"RGB", "RGBA", "LA"} else None


def _of_sixteen_bits(data: bytes, kind: str, rawmode: str) -> tuple[Image.Image, Deep]:
    """Decode a picture with 8 bits per channel, and its colours with 16.

    Pillow keeps only the upper byte of each number. With the byte order swapped, it keeps the lower one.
    """
    if rawmode.startswith("LA"):
        image = _opened(data, kind)
        image.tile = [tile._replace(args="RGBA") for tile in image.tile]
        image.load()
        parts = np.asarray(image).astype(np.uint16)
        grey: Deep = (parts[..., 0] << 8 | parts[..., 1]).astype(np.uint16)
        return Image.fromarray(np.stack([parts[..., 0], parts[..., 2]], 2).astype(np.uint8), "LA"), grey
    upper, lower = _opened(data, kind), _opened(data, kind)
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    lower.tile = [tile._replace(args=_swapped(tile.args, other)) for tile in lower.tile]
    upper.load()
    lower.load()
    deep = np.asarray(upper)[..., :3].astype(np.uint16)
    deep *= np.uint16(256)
    deep += np.asarray(lower)[..., :3]
    return upper, deep


def _swapped(args: Any, other: dict[str, str]) -> Any:
    """Swap the byte order of the raw mode in a tile's arguments."""
    if isinstance(args, str):
        return re.sub(r"(;16)([BLN])", lambda found: found[1] + other[found[2]], args)
    return tuple(_swapped(arg, other) for arg in args) if isinstance(args, tuple) else args


def _has_deep_planes(image: Image.Image) -> TypeGuard[TiffImageFile]:
    """Whether a TIFF stores its colours one after the other, with 16 bits, which Pillow takes for 8."""
    if not isinstance(image, TiffImageFile) or image.mode not in {"RGB", "RGBA"}:
        return False
    return image.tag_v2.get(PLANAR_CONFIGURATION) == _SEPARATE and image.tag_v2.get(BITSPERSAMPLE, (8,))[0] == 16


def _of_planes(data: bytes, image: TiffImageFile) -> tuple[Image.Image, Deep]:
    """Decode each colour as a grey picture of its own; returns the same as `_of_sixteen_bits`."""
    tags = image.tag_v2
    places, sizes = (TILEOFFSETS, TILEBYTECOUNTS) if TILEOFFSETS in tags else (STRIPOFFSETS, STRIPBYTECOUNTS)
    count = len(tags[places]) // int(tags[SAMPLESPERPIXEL])
    order = "<" if tags.prefix == b"II" else ">"
    beginning = data[:4] + struct.pack(order + "I", len(data)) + data[8:]
    shared = {tag: (int(tags[tag]),) for tag in _SHARED_BY_PLANES & tags.keys()}
    shared |= {BITSPERSAMPLE: (16,), PHOTOMETRIC_INTERPRETATION: (1,), SAMPLESPERPIXEL: (1,)}
    planes = []
    for number in range(len(image.mode)):
        own = {tag: tags[tag][number * count : (number + 1) * count] for tag in (places, sizes)}
        with _opened(beginning + _directory(shared | own, len(data), order), "TIFF") as plane:
            planes.append(np.asarray(plane).astype(np.uint16))
    pixels = np.stack(planes, axis=2)
    return Image.fromarray((pixels >> 8).astype(np.uint8), image.mode), pixels[..., :3]


def _directory(tags: Mapping[int, tuple[int, ...]], start: int, order: str) -> bytes:
    """Encode the directory of a TIFF that lies at byte `start` of the file."""
    entries, behind = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            packed, behind = struct.pack(order + "I", start + 6 + 12 * len(tags) + len(behind)), behind + packed
        entries += struct.pack(order + "HHI", tag, _LONG, len(values)) + packed
    return struct.pack(order + "H", len(tags)) + entries + bytes(4) + behind


def _integers(image: Image.Image, label: str, *, inverted: bool) -> Deep:
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UsageError(f"{label} has the values {low}..{high}: save it with at most 16 bits (0..65535) per channel")
    deep = values.astype(np.uint16)
    if inverted:
        deep = (4095 if _is_twelve_bits(image) else 65535) - deep
    return deep


def _is_twelve_bits(image: Image.Image) -> bool:
    return isinstance(image, TiffImageFile) and image.tag_v2.get(258, (16,))[0] == 12
