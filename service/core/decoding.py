"""Opening a file that a user gave, safely: its content is checked before it is decoded.

What a file is follows from its first bytes, never from its name. Its size is read from the header and compared with the
limits before a pixel is decoded, so that a small file which claims to be huge costs nothing.
"""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from service.core.errors import UsageError

Source = Path | bytes | BinaryIO
"""A file on disk, its content, or an open file, which is read from where it stands."""

FORMATS = "PNG, JPEG, BMP, TIFF or WebP"

# Under an error filter Pillow's warnings about odd files become exceptions, without one they end up on stderr. Warning
# filters belong to the process, so images are decoded one at a time; that also bounds the memory in use.
_DECODING = threading.Lock()

# What Pillow's parsers raise on malformed files, besides its own errors (which are OSErrors).
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is accepted.

    Attributes:
        min_pairs, max_pairs: number of pairs of one data set.
        max_file_bytes: size of one file.
        min_side, max_side: width and height of one image, in pixels.
        max_pixels: width × height of one image.
        max_total_pixels: the same, summed over all images that are held together.
    """

    min_pairs: int = 2
    max_pairs: int = 64
    max_file_bytes: int = 20 * 10**6
    min_side: int = 8
    max_side: int = 4096
    max_pixels: int = 4096 * 4096
    max_total_pixels: int = 256 * 10**6


def image_format(head: bytes) -> str | None:
    """The accepted format that a file's first 12 bytes announce, as Pillow names it, or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "TIFF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    return "BMP" if head.startswith(b"BM") else None


def content(source: Source, label: str, limits: ImageLimits) -> bytes:
    """The file's bytes, at most one more than allowed being read."""
    if isinstance(source, bytes):
        data = source
    else:
        try:
            if isinstance(source, Path):
                with source.open("rb") as file:
                    data = file.read(limits.max_file_bytes + 1)
            else:
                data = source.read(limits.max_file_bytes + 1)
        except OSError as error:
            raise UsageError(f"{label} cannot be read: {error.strerror or error}") from error
    if len(data) > limits.max_file_bytes:
        raise UsageError(f"{label} is larger than {limits.max_file_bytes / 1e6:g} MB, the most for one file")
    if not data:
        raise UsageError(f"{label} is an empty file (0 bytes)")
    return data


@contextmanager
def decoding(label: str) -> Iterator[None]:
    with _DECODING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnidentifiedImageError as error:
            raise UsageError(f"{label} has a broken header; save it again as PNG") from error
        except _DECODER_ERRORS as error:
            detail = str(error) or type(error).__name__
            raise UsageError(f"{label} is truncated or broken ({detail}); save it again as PNG") from error


def decode(data: bytes, label: str, limits: ImageLimits) -> tuple[Image.Image, list[str]]:
    kind = image_format(data[:12])
    if kind is None:
        raise UsageError(f"{label} is not a {FORMATS} image (it begins with {data[:8]!r})")
    if kind == "WEBP":
        # Pillow's decoder allocates the whole canvas when the file is opened.
        _check_size(_webp_size(data), label, limits)
    try:
        probe = Image.open(BytesIO(data), formats=[kind])
    except Image.DecompressionBombError as error:
        raise UsageError(f"{label} is too large to decode: at most {limits.max_side} pixels per side") from error
    with probe:
        _check_size(probe.size, label, limits)
        if isinstance(probe, TiffImageFile):
            _check_tile(probe, label, limits)
        if _has_second_frame(probe):
            raise UsageError(f"{label} is animated or has several pages; save the one picture that counts by itself")
    with Image.open(BytesIO(data), formats=[kind]) as checked:
        checked.verify()
    image = Image.open(BytesIO(data), formats=[kind])
    notes = []
    if image.mode in {"RGB", "RGBA", "LA"} and any(";16" in str(tile.args) for tile in image.tile):
        notes.append("16 bits per channel, the upper 8 were kept")
    image.load()
    if image.getexif().get(0x0112, 1) in range(2, 9):
        ImageOps.exif_transpose(image, in_place=True)
        notes.append("turned as its EXIF orientation says")
    return image, notes


def _check_size(size: tuple[int, int], label: str, limits: ImageLimits) -> None:
    width, height = size
    if max(size) > limits.max_side:
        raise UsageError(f"{label} is {width}×{height} pixels: at most {limits.max_side} per side")
    if min(size) < limits.min_side:
        raise UsageError(f"{label} is {width}×{height} pixels: at least {limits.min_side} per side")
    if width * height > limits.max_pixels:
        megapixels = width * height / 1e6
        raise UsageError(
            f"{label} is {width}×{height} = {megapixels:.1f} megapixels: at most {limits.max_pixels / 1e6:.1f}"
        )


def _check_tile(image: TiffImageFile, label: str, limits: ImageLimits) -> None:
    # A tile is unpacked whole, however little of it the picture covers.
    tile = [image.tag_v2.get(tag, 0) for tag in (TILEWIDTH, TILELENGTH)]
    if not all(isinstance(side, int) and 0 <= side <= limits.max_side for side in tile):
        raise UsageError(f"{label} has tiles of {tile[0]}×{tile[1]} pixels: at most {limits.max_side} per side")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk of a WebP file (RFC 9649, sections 2.5 to 2.7)."""
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", body[6:10])
    return width & 0x3FFF, height & 0x3FFF


def _has_second_frame(image: Image.Image) -> bool:
    # `n_frames` would walk through every page of a TIFF.
    try:
        image.seek(1)
    except EOFError:
        return False
    return True
