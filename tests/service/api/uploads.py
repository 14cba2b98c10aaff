"""Small pictures to upload, good and bad."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

SIDE = 32

Part = tuple[str, tuple[str, bytes, str]]
Parts = list[Part]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(seed: int, side: int = SIDE) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def mask(left: int = 4, side: int = SIDE) -> Image.Image:
    values = np.zeros((side, side), np.uint8)
    values[8:16, left : left + 8] = 255
    return Image.fromarray(values)


def part(kind: str, name: str, content: bytes) -> Part:
    return f"{kind}[]", (name, content, "application/octet-stream")


def pairs(count: int = 2, offset: int = 0) -> Parts:
    """Parts of a form: images and masks that are as they should be."""
    parts = [part("images", f"tile_{index}.png", encoded(picture(offset + index))) for index in range(count)]
    return parts + [part("masks", f"tile_{index}.png", encoded(mask(index))) for index in range(count)]


def normals(count: int = 1, offset: int = 50) -> Parts:
    """Parts of a form: good parts that are as they should be."""
    return [part("normals", f"good_{index}.png", encoded(picture(offset + index))) for index in range(count)]


def held_out(count: int = 1, offset: int = 100) -> Parts:
    """Parts of a form: held-out pairs and one normal that are as they should be."""
    parts = [part("held_out_images", f"out_{index}.png", encoded(picture(offset + index))) for index in range(count)]
    parts += [part("held_out_masks", f"out_{index}.png", encoded(mask(index))) for index in range(count)]
    return [*parts, part("held_out_normals", "fine.png", encoded(picture(offset - 1)))]


def typed(kind: str, defect: str, name: str, content: bytes) -> Part:
    return f"{kind}[{defect}]", (name, content, "application/octet-stream")


def typed_pairs(*types: str, offset: int = 0) -> Parts:
    """Two pairs of each type, of the same names in every type, as folders of their own have them."""
    parts = []
    for number, defect in enumerate(types):
        for index in range(2):
            seed = offset + 10 * number + index
            parts.append(typed("images", defect, f"{index:03}.png", encoded(picture(seed))))
            parts.append(typed("masks", defect, f"{index:03}.png", encoded(mask(seed % 20))))
    return parts


def typed_held_out(*types: str, offset: int = 100) -> Parts:
    """A held-out pair of each type, all of the same name."""
    parts = []
    for number, defect in enumerate(types):
        parts.append(typed("held_out_images", defect, "a.png", encoded(picture(offset + number))))
        parts.append(typed("held_out_masks", defect, "a.png", encoded(mask(number))))
    return parts


def with_last(kind: str, content: bytes, name: str | None = None) -> Parts:
    """Good pairs, but for the last image or mask."""
    parts = pairs(3)
    last = max(index for index, (field, _) in enumerate(parts) if field == f"{kind}[]")
    parts[last] = part(kind, name or parts[last][1][0], content)
    return parts


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int = 8_000) -> bytes:
    """A PNG of a few kilobytes that holds 64 megapixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(side + 1)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def animated() -> bytes:
    return encoded(picture(0), save_all=True, append_images=[picture(1)])


def sixteen_bit() -> bytes:
    values = np.random.default_rng(5).integers(0, 65536, (SIDE, SIDE)).astype(np.uint16)
    return encoded(Image.fromarray(values))


def turned() -> bytes:
    """A JPEG 32 wide and 24 high in the file, which its EXIF orientation makes 24 wide and 32 high."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "secret place"
    return encoded(picture(6).crop((0, 0, 32, 24)), "JPEG", exif=exif)
