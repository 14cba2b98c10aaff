"""Strips the metadata of a picture file before it is decoded.

So a broken EXIF block, a large colour profile or an endless text chunk cannot keep the pixels from being read. The EXIF
orientation, which matters to the picture, is read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO

from PIL import Image

ORIENTATION = 0x0112

FIRST_USED = "contains several pictures, the first is used"

_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
"""Chunks of the picture itself."""

_PNG_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}

_JPEG_PIXELS = {0xE0, 0xEE}
"""JFIF and Adobe segments, which define the colours."""

# XMP, IPTC, Photoshop, EXIF, colour profile, GPS, ImageSourceData, and the orientation, which is handed on.
_TIFF_METADATA = {700, 33723, 34377, 34665, 34675, 34853, 37724, ORIENTATION}
_PHOTOMETRIC, _BITS = 262, 258
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1


@dataclass(slots=True)
class StrippedFile:
    """A file without its metadata.

    Attributes:
        data: the bytes to decode.
        orientation: EXIF orientation, 1 to 8; 1 if it is unknown.
        inverted: a TIFF of more than 8 bits in which zero is white, which the decoder does not invert.
        notes: remarks for the user.
    """

    data: bytes
    orientation: int = 1
    inverted: bool = False
    notes: list[str] = field(default_factory=list)


def strip_metadata(data: bytes, kind: str) -> StrippedFile:
    """Strip a file's metadata; a file whose structure cannot be parsed is returned unchanged."""
    stripped = StrippedFile(data)
    strip = {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff, "WEBP": _webp}.get(kind)
    if strip is not None:
        with suppress(struct.error, IndexError):
            strip(stripped)
    return stripped


def _png(stripped: StrippedFile) -> None:
    data, kept, at = stripped.data, bytearray(stripped.data[:8]), 8
    exif = None
    wanted = _PNG_PIXELS | _PNG_ANIMATION if data.count(b"fcTL") > 1 else _PNG_PIXELS
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, end = data[at + 4 : at + 8], at + 12 + length
        if name in wanted or end > len(data):
            kept += data[at:end]
        elif name == b"eXIf":
            exif = data[at + 8 : end - 4]
        at = end
        if name == b"IEND":
            break
    stripped.data = bytes(kept)
    if exif is not None:
        _oriented(stripped, exif)


def _jpeg(stripped: StrippedFile) -> None:
    data, kept, at = stripped.data, bytearray(stripped.data[:2]), 2
    exif, several = None, False
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xDA:
            break
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        body = data[at + 4 : end]
        if marker == 0xE1 and body.startswith(b"Exif\0\0") and exif is None:
            exif = body[6:]
        several |= marker == 0xE2 and body.startswith(b"MPF\0")
        if (not 0xE0 <= marker <= 0xEF and marker != 0xFE) or marker in _JPEG_PIXELS:
            kept += data[at:end]
        at = end
    stripped.data = bytes(kept) + data[at:]
    if exif:
        _oriented(stripped, exif)
    if several and _frames(data) > 1:
        stripped.notes.append(FIRST_USED)


def _frames(data: bytes) -> int:
    with suppress(Exception), Image.open(BytesIO(data), formats=["JPEG"]) as image:
        return int(getattr(image, "n_frames", 1))
    return 2


def _tiff(stripped: StrippedFile) -> None:
    data = bytearray(stripped.data)
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    head, size, pointer = (8, 20, 8) if big else (2, 12, 4)
    first = start + head
    if count > 4096 or first + count * size + pointer > len(data):
        return
    entries = [bytes(data[at : at + size]) for at in range(first, first + count * size, size)]
    values = dict(_short_values(entries, order, big=big))
    following = bytes(data[first + count * size : first + count * size + pointer])
    if values.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and values.get(_BITS) in {12, 16}:
        stripped.inverted = True
        at = 12 if big else 8
        as_black = struct.pack(order + "H", _BLACK_IS_ZERO)
        entries = [
            entry[:at] + as_black + entry[at + 2 :] if _tag(entry, order) == _PHOTOMETRIC else entry
            for entry in entries
        ]
    kept = [entry for entry in entries if _tag(entry, order) not in _TIFF_METADATA]
    struct.pack_into(order + ("Q" if big else "H"), data, start, len(kept))
    rest = b"".join(kept) + following
    data[first : first + len(rest)] = rest
    stripped.data = bytes(data)
    orientation = values.get(ORIENTATION, 1)
    stripped.orientation = orientation if orientation in range(1, 9) else 1


def _tag(entry: bytes, order: str) -> int:
    return int(struct.unpack_from(order + "H", entry)[0])


def _short_values(entries: list[bytes], order: str, *, big: bool) -> Iterator[tuple[int, int]]:
    """Yield tag and value of the entries that contain a single number."""
    for entry in entries:
        tag, kind = struct.unpack_from(order + "HH", entry)
        (count,) = struct.unpack_from(order + ("Q" if big else "I"), entry, 4)
        if count == 1 and kind in {3, 4}:
            yield tag, struct.unpack_from(order + ("H" if kind == 3 else "I"), entry, 12 if big else 8)[0]


def _webp(stripped: StrippedFile) -> None:
    data, at = stripped.data, 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] == b"EXIF":
            _oriented(stripped, data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2


def _oriented(stripped: StrippedFile, exif: bytes) -> None:
    """Read the orientation from an EXIF block, which is a TIFF without pixels."""
    try:
        order = {b"II*\0": "<", b"MM\0*": ">"}[exif[:4]]
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        entries = [exif[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
        orientation = dict(_short_values(entries, order, big=False)).get(ORIENTATION, 1)
    except (KeyError, struct.error):
        stripped.notes.append("a broken EXIF block was ignored")
        return
    if orientation in range(1, 9):
        stripped.orientation = orientation
