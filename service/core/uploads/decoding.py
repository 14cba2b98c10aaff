"""Decodes a user's file safely: its content is checked before it is decoded.

The format is recognised by the first bytes, never by the name. The size is read from the header and checked against the
limits before a pixel is decoded, so that a small file which claims to be huge costs nothing.
"""

from __future__ import annotations

import filecmp
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from service.core.errors import UsageError
from service.core.uploads.brightness import Deep
from service.core.uploads.deep import decode_deep, is_deep
from service.core.uploads.formats import HEAD_BYTES, image_format, what_else
from service.core.uploads.metadata import FIRST_USED, StrippedFile, strip_metadata
from service.core.uploads.names import shown_name

Source = Path | bytes | BinaryIO
"""A file on disk, its content, or an open file, which is read from its current position."""

# Without a filter, Pillow's warnings about odd files are written to stderr; under an error filter they become
# exceptions. Filters belong to the process, so images are decoded one at a time; that also bounds the memory in use.
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
    """Limits of accepted images.

    Attributes:
        min_pairs, max_pairs: number of pairs of one data set.
        recommended: number of pairs that is recommended, if any.
        max_file_bytes: size of one file.
        min_side, max_side: width and height of one image in pixels.
        max_pixels: width × height of one image.
        max_total_pixels: sum of width × height over all images held together.
    """

    min_pairs: int = 2
    max_pairs: int = 64
    recommended: str | None = "3 to 10"
    max_file_bytes: int = 20 * 10**6
    min_side: int = 8
    max_side: int = 32_768
    max_pixels: int = 4096 * 4096
    max_total_pixels: int = 256 * 10**6


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded picture, without its EXIF orientation applied.

    Attributes:
        image: the pixels, reduced to 8 bits per channel.
        deep: grey or RGB, `(H, W)` or `(H, W, 3)`, of a file with more than 8 bits per channel.
        orientation: EXIF orientation, 1 to 8.
        lossy: the format blurs edges, so levels are not exact.
        notes: remarks for the user.
    """

    image: Image.Image
    deep: Deep | None
    orientation: int
    lossy: bool
    notes: list[str]


def content(source: Source, label: str, limits: ImageLimits) -> bytes:
    """Read the file's bytes, at most one more than allowed."""
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
            if isinstance(source, Path) and source.is_symlink() and not source.exists():
                target = shown_name(str(source.readlink()))
                raise UsageError(
                    f"{label} is a link to {target}, which does not exist: fetch the file (git annex get, dvc pull), "
                    "or copy it here"
                ) from error
            raise UsageError(f"{label} cannot be read: {error.strerror or error}") from error
    if len(data) > limits.max_file_bytes:
        raise UsageError(f"{label} is larger than {limits.max_file_bytes / 1e6:g} MB, the limit for one file")
    if not data:
        raise UsageError(f"{label} is an empty file (0 bytes)")
    return data


def is_same_file(one: Source, other: Source) -> bool:
    """Whether two files have the same bytes; False for open files."""
    if isinstance(one, bytes) and isinstance(other, bytes):
        return one == other
    if isinstance(one, Path) and isinstance(other, Path):
        with suppress(OSError):
            return filecmp.cmp(one, other, shallow=False)
    return False


@contextmanager
def decoding(label: str) -> Iterator[None]:
    with _DECODING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnidentifiedImageError as error:
            raise UsageError(
                f"{label} has a broken header, or a kind of pixels that cannot be read; save it again as PNG"
            ) from error
        except _DECODER_ERRORS as error:
            detail = str(error) or type(error).__name__
            raise UsageError(f"{label} is truncated or broken ({detail}); save it again as PNG") from error


def decode(data: bytes, label: str, limits: ImageLimits) -> Decoded:
    """Decode a picture without its metadata, after its size was checked."""
    stripped, kind = _checked(data, label, limits)
    with Image.open(BytesIO(stripped.data), formats=[kind]) as checked:
        checked.verify()
    image, deep = decode_deep(stripped, kind, label)
    lossy = kind == "JPEG" or (kind == "WEBP" and data[12:16] != b"VP8L")
    return Decoded(image, deep, stripped.orientation, lossy, stripped.notes)


def deep_values(data: bytes, label: str, limits: ImageLimits) -> Deep | None:
    """Decode the values of a picture with more than 8 bits; others are not decoded."""
    stripped, kind = _checked(data, label, limits)
    with Image.open(BytesIO(stripped.data), formats=[kind]) as image:
        if not is_deep(image):
            return None
    return decode(data, label, limits).deep


def _checked(data: bytes, label: str, limits: ImageLimits) -> tuple[StrippedFile, str]:
    kind = image_format(data[:12])
    if kind is None:
        raise UsageError(f"{label} {what_else(data[:HEAD_BYTES])}")
    if kind == "WEBP":
        # Pillow's decoder allocates the whole canvas when the file is opened.
        _check_size(_webp_size(data), label, limits)
    stripped = strip_metadata(data, kind)
    try:
        probe = Image.open(BytesIO(stripped.data), formats=[kind])
    except Image.DecompressionBombError as error:
        most = limits.max_pixels / 1e6
        raise UsageError(
            f"{label} is too large to decode: at most {limits.max_side} pixels per side and {most:.1f} megapixels; "
            f"{_CUT}"
        ) from error
    with probe:
        _check_size(probe.size, label, limits)
        if isinstance(probe, TiffImageFile):
            _check_tile(probe, label, limits)
            if probe.tag_v2.get(_SUBFILE_TYPE, 0) & _PREVIEW or _DNG_VERSION in probe.tag_v2:
                raise UsageError(
                    f"{label} begins with a preview, as a camera's raw file does: develop it, and save it as PNG"
                )
        if _has_second_picture(probe):
            raise UsageError(
                f"{label} is animated or has several pages; save the picture that you need as its own file"
            )
        if getattr(probe, "n_frames", 1) > 1:
            stripped.notes.append(FIRST_USED)
    return stripped, kind


_SUBFILE_TYPE, _PREVIEW, _DNG_VERSION = 254, 1, 50706
_MOST_PREVIEWS = 16

_CUT = "cut it into pieces, or scale it down"


def _check_size(size: tuple[int, int], label: str, limits: ImageLimits) -> None:
    width, height = size
    if max(size) > limits.max_side:
        raise UsageError(f"{label} is {width}×{height} pixels: at most {limits.max_side} per side; {_CUT}")
    if min(size) < limits.min_side:
        raise UsageError(f"{label} is {width}×{height} pixels: at least {limits.min_side} per side")
    if width * height > limits.max_pixels:
        megapixels = width * height / 1e6
        raise UsageError(
            f"{label} is {width}×{height} = {megapixels:.1f} megapixels: at most {limits.max_pixels / 1e6:.1f}; {_CUT}"
        )


def _check_tile(image: TiffImageFile, label: str, limits: ImageLimits) -> None:
    # A whole tile is unpacked, even if the picture covers only a part of it.
    tile = [image.tag_v2.get(tag, 0) for tag in (TILEWIDTH, TILELENGTH)]
    whole = all(isinstance(side, int) and 0 <= side <= limits.max_side for side in tile)
    if not whole or tile[0] * tile[1] > 2 * limits.max_pixels:
        raise UsageError(f"{label} has tiles of {tile[0]}×{tile[1]} pixels: save it without tiles")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Read width and height from the first chunk of a WebP file (RFC 9649, sections 2.5 to 2.7)."""
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", body[6:10])
    return width & 0x3FFF, height & 0x3FFF


def _has_second_picture(image: Image.Image) -> bool:
    """Whether there are several frames or pages; the previews behind the first page of a TIFF do not count."""
    # `n_frames` would walk through every page of a TIFF.
    for page in range(1, _MOST_PREVIEWS + 2):
        try:
            image.seek(page)
        except EOFError:
            return False
        if not isinstance(image, TiffImageFile) or not image.tag_v2.get(_SUBFILE_TYPE, 0) & _PREVIEW:
            return True
    return True
