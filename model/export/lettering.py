"""Writes on contact sheets, including letters that Pillow's font lacks: CJK, kana, Hangul, Cyrillic, emoji.

These come from GNU Unifont, bitmaps of 16 pixels, stored beside its licence.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIZE = 12
_GLYPHS = Path(__file__).with_name("unifont") / "glyphs.npz"
_SIDE = 16

Colour = tuple[int, int, int]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def width_of(text: str) -> float:
    """Measure the width of a text in pixels."""
    return sum(_width(run, own=own) for own, run in _runs(text))


def write(sheet: Image.Image, place: tuple[int, int], text: str, ink: Colour) -> None:
    """Write a text with its upper left corner at `place`."""
    draw = ImageDraw.Draw(sheet)
    x, y = float(place[0]), place[1]
    for own, run in _runs(text):
        if own:
            draw.text((x, y), run, ink, _font())
        else:
            for number, letter in enumerate(run):
                left = round(x + sum(_advance(before) for before in run[:number]))
                draw.bitmap((left, y - 1), Image.fromarray(_bitmap(letter)), ink)
        x += _width(run, own=own)


def _runs(text: str) -> list[tuple[bool, str]]:
    """Split a text into pieces: whether Pillow's font has the letters, and the piece."""
    return [(own, "".join(letters)) for own, letters in groupby(text, _is_own)]


def _width(run: str, *, own: bool) -> float:
    return float(_font().getlength(run)) if own else sum(map(_advance, run))


@lru_cache(maxsize=1)
def _font() -> _Font:
    return ImageFont.load_default(SIZE)


@lru_cache(maxsize=4096)
def _is_own(letter: str) -> bool:
    """Return whether to use Pillow's font: it has the letter, or no font here has."""
    missing, drawn = (bytes(_font().getmask(each)) for each in ("\U0010ffff", letter))
    return letter.isascii() or drawn != missing or _place(letter) is None


@lru_cache(maxsize=1)
def _unifont() -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.bool_]]:
    with np.load(_GLYPHS, allow_pickle=False) as file:
        return file["codes"], file["rows"], file["wide"]


def _place(letter: str) -> int | None:
    codes = _unifont()[0]
    place = int(np.searchsorted(codes, ord(letter)))
    return place if place < len(codes) and codes[place] == ord(letter) else None


def _advance(letter: str) -> int:
    place = _place(letter)
    return _SIDE if place is not None and _unifont()[2][place] else _SIDE // 2


def _bitmap(letter: str) -> NDArray[np.uint8]:
    """`(16, 16)`, 255 = ink."""
    place = _place(letter)
    rows = np.zeros(2 * _SIDE, np.uint8) if place is None else _unifont()[1][place]
    ink: NDArray[np.uint8] = np.unpackbits(rows).reshape(_SIDE, _SIDE) * np.uint8(255)
    return ink
