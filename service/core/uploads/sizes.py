"""Reads the width and height that a picture's header declares, without decoding it; used before anything is decoded.

Whatever the header says, the decoder has its own limits of memory and time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

HEAD_BYTES = 32
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD8)}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_SHORT = 256, 257, 3


def declared_pixels(path: Path) -> int | None:
    """Return width × height; None if the file is of no known kind, or its header is not where it should be."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            for starts, read in _READERS.items():
                if head.startswith(starts):
                    width, height = read(file, head)
                    return width * height
    except (struct.error, OSError, IndexError, ValueError):
        return None
    return None


def _png(_: BinaryIO, head: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def _bmp(_: BinaryIO, head: bytes) -> tuple[int, int]:
    if struct.unpack("<I", head[14:18])[0] == 12:  # the header of OS/2
        width, height = struct.unpack("<HH", head[18:22])
    else:
        width, height = struct.unpack("<ii", head[18:26])
    return abs(width), abs(height)


def _jpeg(file: BinaryIO, _: bytes) -> tuple[int, int]:
    file.seek(2)
    while True:
        marker = file.read(2)
        while marker[1] == 0xFF:  # fill bytes
            marker = marker[1:] + file.read(1)
        if marker[0] != 0xFF:
            raise ValueError("no marker where one must be")
        if marker[1] in _ALONE:
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if marker[1] in _START_OF_FRAME:
            _, height, width = struct.unpack(">BHH", file.read(5))
            return width, height
        file.seek(length - 2, 1)


def _tiff(file: BinaryIO, head: bytes) -> tuple[int, int]:
    order = "<" if head[:2] == b"II" else ">"
    (offset,) = struct.unpack(f"{order}I", head[4:8])
    file.seek(offset)
    (entries,) = struct.unpack(f"{order}H", file.read(2))
    found: dict[int, int] = {}
    for _ in range(entries):
        tag, kind, _, value = struct.unpack(f"{order}HHI4s", file.read(12))
        if tag in {_TIFF_WIDTH, _TIFF_HEIGHT}:
            short = kind == _TIFF_SHORT
            (found[tag],) = struct.unpack(order + ("H" if short else "I"), value[: 2 if short else 4])
    if len(found) < 2:
        raise ValueError("no width and height")
    return found[_TIFF_WIDTH], found[_TIFF_HEIGHT]


def _webp(_: BinaryIO, head: bytes) -> tuple[int, int]:
    match head[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case _:
            width, height = struct.unpack("<HH", head[26:30])
            return width & 0x3FFF, height & 0x3FFF


_READERS: dict[bytes, Callable[[BinaryIO, bytes], tuple[int, int]]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"BM": _bmp,
    b"\xff\xd8": _jpeg,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"RIFF": _webp,
}
