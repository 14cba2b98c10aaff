"""Draws contact sheets: labelled tiles in rows, to compare pairs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from PIL import Image
from scipy import ndimage

from model.export.lettering import width_of, write
from model.types import Candidate, ImageArray, MaskArray, Pair

TILE = 160
SURROUNDINGS = 0.15
"""Margin shown around a generated window, on each side, as a share of the window's size."""

MAX_PAIRS = 24
PAIRS_PER_ROW = 3
GAP = 6
LABEL_HEIGHT = 18
PAPER = (250, 250, 250)
INK = (30, 30, 30)
OUTLINE = (255, 0, 160)
"""Magenta: rare in metal, wood, textile and circuit boards."""

Tile = ImageArray | MaskArray
"""`(H, W, 3)` uint8, or `(H, W)` bool shown white on black."""


def contact_sheet(rows: Sequence[Sequence[Tile]], labels: Sequence[Sequence[str]], tile: int = TILE) -> Image.Image:
    """Draw rows of tiles, each fitted into a square with its label below; rows may differ in length.

    Args:
        rows: the images, of any size.
        labels: one text per image, shortened to the width of a tile.
        tile: side of the square in pixels.
    """
    columns = max(len(row) for row in rows)
    step_x, step_y = tile + GAP, tile + LABEL_HEIGHT + GAP
    sheet = Image.new("RGB", (columns * step_x + GAP, len(rows) * step_y + GAP), PAPER)
    for y, (row, texts) in enumerate(zip(rows, labels, strict=True)):
        for x, (picture, text) in enumerate(zip(row, texts, strict=True)):
            left, top = GAP + x * step_x, GAP + y * step_y
            fitted = _fitted(picture, tile)
            sheet.paste(fitted, (left + (tile - fitted.width) // 2, top + (tile - fitted.height) // 2))
            write(sheet, (left, top + tile + 2), _shortened(text, tile), INK)
    return sheet


def _fitted(picture: Tile, tile: int) -> Image.Image:
    """Resize a picture so that its longer side is `tile` pixels; even the smallest parts of a mask stay visible."""
    height, width = picture.shape[:2]
    scale = tile / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if picture.dtype != np.bool_:
        return Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    covered = ndimage.maximum_filter(picture, size=max(1, round(1 / scale)))
    return Image.fromarray(covered.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)


def outlined(image: ImageArray, mask: MaskArray) -> ImageArray:
    """Draw a line around the mask, outside of it so that the defect itself stays visible.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool.
    """
    line = ndimage.binary_dilation(mask, iterations=2) & ~ndimage.binary_dilation(mask)
    return np.where(line[..., None], np.array(OUTLINE, np.uint8), image)


class PairSheet:
    """Draws the preview of a dataset: the real pairs, then the first generated ones, best first, three per row.

    Showing the best of all would flatter the dataset, so the first ones are shown, sorted by their score. Of a
    generated image, only the generated window is shown, with a margin. Pairs are kept at the size of a tile, so many of
    them take no more memory than the sheet.
    """

    def __init__(self, reals: Sequence[Pair] = ()) -> None:
        self._reals = [_tiles(real.image, real.mask, f"real: {real.name}") for real in reals[:MAX_PAIRS]]
        self._generated: list[tuple[float, list[tuple[Tile, str]]]] = []

    def add(self, number: int, candidate: Candidate) -> None:
        """Add a pair, unless the sheet is full."""
        if len(self._generated) < MAX_PAIRS:
            place, score = _generated_region(candidate), candidate.scores.get("score", 0.0)
            shown = f"{number:06d}" if candidate.defect is None else f"{number:06d} {candidate.defect}"
            name = f"{shown}: score {score:.2f}"
            self._generated.append((score, _tiles(candidate.image[place], candidate.mask[place], name)))

    def render(self) -> Image.Image:
        """Draw the sheet; needs at least one pair."""
        best_first = [tiles for _, tiles in sorted(self._generated, key=lambda scored: -scored[0])]
        rows = [
            list(chain(*pairs[start : start + PAIRS_PER_ROW]))
            for pairs in (self._reals, best_first)
            for start in range(0, len(pairs), PAIRS_PER_ROW)
        ]
        return contact_sheet([[tile for tile, _ in row] for row in rows], [[text for _, text in row] for row in rows])


def _generated_region(candidate: Candidate) -> tuple[slice, slice]:
    """Return row and column slices."""
    height, width = candidate.mask.shape
    left, top, right, bottom = candidate.window or (0, 0, width, height)
    around = round(SURROUNDINGS * max(right - left, bottom - top))
    rows = slice(max(0, top - around), min(height, bottom + around))
    return rows, slice(max(0, left - around), min(width, right + around))


def _tiles(image: ImageArray, mask: MaskArray, name: str) -> list[tuple[Tile, str]]:
    small, small_mask = np.asarray(_fitted(image, TILE)), np.asarray(_fitted(mask, TILE)) > 0
    return [(small, name), (outlined(small, small_mask), "outline"), (small_mask, f"mask: {mask.mean():.2%}")]


def _shortened(text: str, width: int) -> str:
    return next(short for short in _ever_shorter(text) if width_of(short) <= width)


def _ever_shorter(text: str) -> Iterator[str]:
    yield text
    for length in range(len(text) - 1, -1, -1):
        yield f"{text[:length]}…"
