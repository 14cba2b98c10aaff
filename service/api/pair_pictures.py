"""Makes small pictures of pairs, and finds the real defect that a generated one looks most like."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

THUMBNAIL = 240
"""Longer side of a thumbnail, pixels."""

SURROUNDINGS = 0.15
"""Margin shown around a generated window, on each side, as a share of the window's size."""

OUTLINE = (255, 0, 160)
"""Magenta: rare in metal, wood, textile and circuit boards."""

_SIDE = 32
"""Side of the squares that defects are compared in."""

Window = Sequence[int]
"""Left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a defect looks: grey levels in the box of its mask, without their mean, `(8, 32²)` in all eight positions."""

    positions: NDArray[np.float32]


def opened(content: bytes, mode: str) -> Image.Image:
    """Decode a PNG that a worker has written or the API has checked."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as file:
        return file.convert(mode)


def encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def thumbnail(image: bytes, mask: bytes | None, window: Window | None) -> bytes:
    """Shrink a picture to its generated window, with a margin; draw the outline of a mask if one is given."""
    picture = opened(image, "RGB")
    box = _around(window, picture.size)
    picture = _shrunk(picture.crop(box), Image.Resampling.BILINEAR)
    if mask is not None:
        covered = _shrunk(opened(mask, "L").crop(box), Image.Resampling.BOX).point(lambda level: 255 * (level > 32))
        # Outside of the mask, so that the defect itself stays visible.
        line = ImageChops.subtract(covered.filter(ImageFilter.MaxFilter(5)), covered.filter(ImageFilter.MaxFilter(3)))
        picture.paste(OUTLINE, mask=line)
    return encoded(picture)


def _around(window: Window | None, size: tuple[int, int]) -> tuple[int, int, int, int]:
    width, height = size
    left, top, right, bottom = window or (0, 0, width, height)
    margin = round(SURROUNDINGS * max(right - left, bottom - top))
    return max(0, left - margin), max(0, top - margin), min(width, right + margin), min(height, bottom + margin)


def _shrunk(picture: Image.Image, how: Image.Resampling) -> Image.Image:
    scale = THUMBNAIL / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, how if scale < 1 else Image.Resampling.NEAREST)


def look_of(image: bytes, mask: bytes) -> Look | None:
    """Describe a defect; None if its mask is empty."""
    covered = opened(mask, "L").point(lambda level: 255 * (level > 127))
    box = covered.getbbox()
    if box is None:
        return None
    grey = np.asarray(opened(image, "L").crop(box).resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    inside = np.asarray(covered.crop(box).resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32) / np.float32(255)
    weight = max(float(inside.sum()), 1.0)
    content = (grey - np.float32((grey * inside).sum() / weight)) * inside
    shape = inside - np.float32(inside.mean())
    square = np.add(_unit(content), _unit(shape), dtype=np.float32)
    turned = [np.rot90(square, turns) for turns in range(4)]
    return Look(np.stack([each.ravel() for square in turned for each in (square, square[:, ::-1])]))


def nearest(look: Look, others: Sequence[Look]) -> tuple[int, float]:
    """Return which of the others looks most like it, in any position, and how much, 0–1."""
    likeness = [float((other.positions @ look.positions[0]).max()) / 2 for other in others]
    best = int(np.argmax(likeness))
    return best, max(0.0, min(1.0, likeness[best]))


def _unit(square: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(square))
    return square / np.float32(length) if length > 1e-6 else square
