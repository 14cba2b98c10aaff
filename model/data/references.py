"""Crops of the real defects at their photographs' own scale, and where they lay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from model.data.crops import DEFECTS_PER_PAIR, draw_window, find_defects
from model.data.placement import Placement
from model.types import Pair
from service.core.options.common import CropKind


def make_references(
    pairs: Sequence[Pair], view: CropKind, resolution: int, seed: int
) -> tuple[list[Pair], list[Placement]]:
    """Crop every image's largest defects at their own scale, drawn from `seed`; also returns their positions.

    Args:
        resolution: the model's side, pixels.
    """
    references, placements = [], []
    for number, pair in enumerate(pairs):
        labels, defects = find_defects(pair.mask)
        rng = np.random.default_rng([seed, number])
        height, width = pair.mask.shape
        for defect in np.sort(defects[:DEFECTS_PER_PAIR]):
            window = draw_window(labels == defect, view, resolution, rng)
            references.append(Pair(pair.name, pair.image[window.slices], pair.mask[window.slices]))
            x, y = _travel(window.left, width - window.side), _travel(window.top, height - window.side)
            placements.append(Placement(pair.name, window.side, x, y))
    return references, placements


def _travel(start: int, travel: int) -> float:
    return round(start / travel, 4) if travel else 0.5


def write_pairs(folder: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs as `000.png` and `000_mask.png` to a new folder."""
    folder.mkdir()
    for number, pair in enumerate(pairs):
        Image.fromarray(pair.image).save(folder / f"{number:03d}.png")
        Image.fromarray(pair.mask).save(folder / f"{number:03d}_mask.png")


def read_pairs(folder: Path, names: Sequence[str], problems: list[str]) -> list[Pair]:
    """Read what `write_pairs` wrote; adds a problem for every pair that cannot be read."""
    pairs = []
    for number, name in enumerate(names):
        try:
            with Image.open(folder / f"{number:03d}.png") as image:
                pixels = np.asarray(image.convert("RGB"))
            with Image.open(folder / f"{number:03d}_mask.png") as image:
                mask = np.asarray(image.convert("L")) > 127
        except OSError as error:
            problems.append(f"{folder.name}/{number:03d}: {error}")
            continue
        pairs.append(Pair(name, pixels, mask))
    return pairs
